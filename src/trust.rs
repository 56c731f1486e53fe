//! Layer 2: has an authorized key signed this narinfo? Pure; uses `format` only.
//!
//! A narinfo is a claim. Only [`verdict`] makes an [`verdict::AuthorizedNarInfo`] of it, by verifying
//! its signature or its content address in this run; without authorized keys it refuses everything.
//! The module `policy` says whether one authorized key suffices, or several principals have to agree.
//! A narinfo whose signature was verified in an earlier run has another type, which the store does
//! not accept.

pub mod acl;
mod ballot;
mod content_address;
pub mod guix;
mod key_names;
pub(crate) mod name_pattern;
pub mod nix;
pub(crate) mod policy;
mod refusal;
pub(crate) mod signed;
pub(crate) mod signer;
#[cfg(test)]
mod tests;
pub mod verdict;
