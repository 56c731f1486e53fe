//! Layer 3: compressed bytes to nar bytes, as streams.

pub mod decode;
