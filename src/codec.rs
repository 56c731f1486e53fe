//! Layer 3: compressed bytes to nar bytes, as streams.

pub mod decode;
pub mod decoders;
pub mod memory;
