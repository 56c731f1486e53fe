//! What a server offers for an item, and by whose authority.

use crate::format::narinfo::NarOffer;
use crate::substitute::item_lookup::{Authority, NarSource};
use crate::substitute::outcome::Unusable;
use crate::trust::signed::SignedNarInfo;
use crate::trust::verdict::Judgment;

/// A narinfo that came from a server.
pub(super) struct ServerOffer {
    pub(super) source: NarSource,
    /// `None`: its signature was refused, or the policy has refused it.
    pub(super) authority: Option<Authority>,
    /// Where votes are counted: the narinfo with its signers, if its signature was not refused.
    pub(super) signed: Option<Box<SignedNarInfo>>,
    /// Whether it names a download that can be used.
    pub(super) usable: Result<(), Unusable>,
}

impl ServerOffer {
    pub(super) fn new(source: NarSource, usable: Result<(), Unusable>) -> Self {
        Self {
            source,
            authority: None,
            signed: None,
            usable,
        }
    }

    pub(super) fn is_usable(&self) -> bool {
        self.usable.is_ok()
    }

    pub(super) fn is_same_nar(&self, other: &NarOffer) -> bool {
        self.source.offer.is_same_nar(other)
    }

    /// Takes over what `judgment` says of `signed`, which is the narinfo of this offer.
    pub(super) fn authorize(&mut self, judgment: &Judgment, signed: &SignedNarInfo) {
        self.authority = judgment.authorize(signed).map(Authority::from);
    }

    /// Takes over what `judgment` says of the vote, if there is one.
    pub(super) fn judge(&mut self, judgment: &Judgment) {
        let vote = self.signed.as_deref();
        let authorization = vote.and_then(|signed| judgment.authorize(signed));
        self.authority = authorization.map(Authority::from);
    }
}
