//! Layer 2: compressed bytes to nar bytes, as streams.
//!
//! [`decode::decoder`] decodes one stream on the calling thread. [`decoders::Decoders`] shares
//! memory and threads between many streams, and decodes the pieces of one nar in parallel.

mod ahead;
mod brotli;
mod budget;
mod contexts;
pub mod decode;
pub mod decoders;
mod lz4;
mod memory;
mod xz_blocks;
mod xz_container;
mod zstd_frames;
mod zstd_header;
