//! Layer 1: the formats of Guix and Nix, as types that are parsed and printed.
//!
//! Everything here is pure: no files, sockets, clock, environment or threads. Parsers bound what
//! they accept, since their input usually comes from a server.

pub(crate) mod aws_profile;
pub mod base32;
pub(crate) mod base64;
pub(crate) mod cache_info;
pub mod compression;
pub(crate) mod content_address;
pub(crate) mod credentials;
pub(crate) mod error_text;
pub(crate) mod escape;
pub mod hash;
pub mod nar;
pub mod narinfo;
pub(crate) mod netrc;
pub(crate) mod s3_location;
pub(crate) mod secret;
pub(crate) mod server_list;
pub(crate) mod server_url;
pub mod sexp;
pub mod sha256;
pub mod store_path;
pub(crate) mod units;
