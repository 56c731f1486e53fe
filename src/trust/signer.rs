//! Which authorized key has signed a narinfo, or what else makes it acceptable.

use std::sync::Arc;

use super::content_address::ContentProof;
use super::guix::{self, PublicKey};
use super::nix::{self, TrustedKey};

/// In place of a signer and of its id, where the store path proves the content. No Nix key has such
/// an id, which has a colon.
const CONTENT_ADDRESSED: &str = "content-addressed";

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

    /// The id of the key for the lookup cache; empty if authentication was switched off.
    pub(super) fn key_id(&self) -> &str {
        match self {
            Self::GuixKey(id) | Self::NixKey(id) => id,
            Self::ContentAddress(_) => CONTENT_ADDRESSED,
            Self::Unauthenticated => "",
        }
    }

    /// The key for messages.
    pub(super) fn display_name(&self) -> &str {
        match self {
            Self::GuixKey(id) => guix::short_name(id),
            Self::NixKey(id) => nix::name_of(id),
            Self::ContentAddress(_) => CONTENT_ADDRESSED,
            Self::Unauthenticated => "nobody",
        }
    }
}
