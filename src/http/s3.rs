//! Buckets of object stores as servers: requests signed with access keys, and what their errors mean.
//!
//! `signature` computes signatures; `keys` keeps access keys, renewed by `services` where `key_source` names one
//! (`key_response` reads what they answer, and `xml` documents); `signer` signs the requests to one
//! bucket, with the `body_hash` of what they send, `verdict` says what follows from a response, and `allowance` what was allowed
//! so far.
//!
//! A signature and a session token are sent only to what is below the URL of their bucket, and secret keys never.

mod allowance;
pub(in crate::http) mod body_hash;
pub(in crate::http) mod key_response;
pub(in crate::http) mod key_source;
pub(in crate::http) mod keys;
pub(in crate::http) mod services;
mod signature;
pub(in crate::http) mod signer;
pub(in crate::http) mod verdict;
pub(in crate::http) mod xml;
