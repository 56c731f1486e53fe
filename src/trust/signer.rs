//! Which authorized key has signed a narinfo, or what else makes it acceptable.

use std::sync::Arc;

use super::content_address::ContentProof;
use super::guix::PublicKey;
use super::nix::TrustedKey;

/// In place of a signer and of its id, where the store path proves the content. No Nix key has such
/// an id, which has a colon.
pub(super) const CONTENT_ADDRESSED: &str = "content-addressed";

/// The authorized key that signed a narinfo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Signer {
    /// The Guix key with this id.
    GuixKey(Arc<str>),
    /// The Nix key with this id.
    NixKey(Arc<str>),
    /// None: the store path proves the content.
    ContentAddress(ContentProof),
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
