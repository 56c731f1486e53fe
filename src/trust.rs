//! Layer 2: has an authorized key signed this narinfo? Pure; uses `format` only.
//!
//! A narinfo is a claim. [`verdict::authorize`] is the only way from a claim to an
//! [`verdict::AuthorizedNarInfo`]; without authorized keys it refuses everything.

pub mod acl;
mod content_address;
pub mod guix;
pub mod nix;
mod refusal;
mod signer;
#[cfg(test)]
mod tests;
pub mod verdict;
