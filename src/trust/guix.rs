//! Guix's signatures: `Signature: 1;HOST;BASE64` over the text of the narinfo above it.
//!
//! BASE64 is an s-expression in libgcrypt's advanced form, `(signature (data (flags rfc6979) (hash
//! sha256 HASH)) (sig-val (ecdsa (r R) (s S))) (public-key ...))`; for RSA the flags are `pkcs1`
//! and the value is `(rsa (s S))`. HOST is not signed and means nothing. Guix carries the
//! s-expression as a string of characters: a byte above 0x7f, which about one of 5,000 signatures
//! contains, is a Latin-1 character written as UTF-8.
//!
//! The signed text ends before the first `Signature:`, wherever that is. `StorePath`, `NarHash`
//! and `References` must be inside, otherwise the narinfo counts as unsigned; so must `NarSize`
//! here, which Guix's own programs always sign, since it bounds what is written to disk.

mod ecdsa;
mod key;
mod signature;
pub mod signing;
#[cfg(test)]
mod tests;

pub(super) use key::key_id;
pub use key::{KeyError, PublicKey};
pub(super) use signature::check_all;
