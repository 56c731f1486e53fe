//! Layer 2: is this narinfo vouched for? Pure; uses `format` only.
//!
//! A narinfo is a claim. [`verdict::authorize`] is the one way from a claim to an
//! [`verdict::AuthorizedNarInfo`]; without keys it refuses everything.

pub mod acl;
pub mod guix;
pub mod nix;
#[cfg(test)]
mod tests;
pub mod verdict;
