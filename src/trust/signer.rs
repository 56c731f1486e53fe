//! Which authorized keys have signed a narinfo, or what else makes it acceptable.

use std::sync::Arc;

use super::content_address::ContentProof;
use super::key_names::{guix_short_name, nix_name};

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
            Self::GuixKey(id) => guix_short_name(id),
            Self::NixKey(id) => nix_name(id),
            Self::ContentAddress(_) => CONTENT_ADDRESSED,
            Self::Unauthenticated => "nobody",
        }
    }
}

/// How many of a narinfo's signatures are examined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SignatureScope {
    /// Those up to the first valid one, which suffices; in Guix's dialect only the first one, as in
    /// stock Guix.
    First,
    /// All, because signers are counted.
    All,
}

/// All keys that have signed a narinfo, or the proof by its store path; at least one. A single one takes no
/// memory of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Signers {
    first: Signer,
    others: Vec<Signer>,
}

impl Signers {
    pub(super) fn one(first: Signer) -> Self {
        let others = Vec::new();
        Self { first, others }
    }

    /// The first one, by which a narinfo is authorized that needs no other.
    pub(super) fn first(&self) -> &Signer {
        &self.first
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Signer> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// Adds a signer, unless it is among them.
    pub(super) fn add(&mut self, signer: Signer) {
        if !self.iter().any(|known| *known == signer) {
            self.others.push(signer);
        }
    }

    /// How the store path proves the content, if it was found to do so.
    pub(super) fn content_proof(&self) -> Option<ContentProof> {
        self.iter().find_map(|signer| match signer {
            Signer::ContentAddress(proof) => Some(*proof),
            Signer::GuixKey(_) | Signer::NixKey(_) | Signer::Unauthenticated => None,
        })
    }
}
