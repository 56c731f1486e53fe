//! Which authorized key has signed a narinfo.

use std::sync::Arc;

use super::guix::PublicKey;
use super::nix::TrustedKey;

/// The authorized key that signed a narinfo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Signer {
    /// The Guix key with this id.
    GuixKey(Arc<str>),
    /// The Nix key with this id.
    NixKey(Arc<str>),
    /// None: authentication is switched off.
    Unauthenticated,
}

impl Signer {
    pub(super) fn guix(key: &PublicKey) -> Self {
        Self::GuixKey(Arc::clone(key.id()))
    }

    pub(super) fn nix(key: &TrustedKey) -> Self {
        Self::NixKey(Arc::clone(key.id()))
    }
}
