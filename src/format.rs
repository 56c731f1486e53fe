//! Layer 1: bytes <-> types. Pure: no files, sockets, clock, environment or threads.

pub mod base32;
pub mod cache_info;
pub mod compression;
pub mod credentials;
pub mod escape;
pub mod hash;
pub mod nar;
pub mod narinfo;
pub mod server_url;
pub mod sexp;
pub mod sha256;
pub mod store_path;
