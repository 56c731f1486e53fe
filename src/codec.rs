//! Layer 3: compressed bytes to nar bytes, as streams.

mod ahead;
mod budget;
mod contexts;
pub mod decode;
pub mod decoders;
pub mod memory;
mod xz_blocks;
mod xz_container;
mod zstd_frames;
mod zstd_header;
