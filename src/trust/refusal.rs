//! Why a narinfo is refused.

use std::sync::Arc;

use super::ballot::Ballot;
use super::guix::KeyError;
use crate::format::store_path::StorePath;

/// Why a narinfo is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The narinfo describes another item than the requested one.
    #[error("the server answered for {answered} when asked for {asked}")]
    WrongItem {
        /// The requested item.
        asked: StorePath,
        /// The described item.
        answered: StorePath,
        /// Whether an authorized key has signed it.
        is_signed: bool,
    },
    /// There is no signature, or it does not cover all that it must.
    #[error("it is not signed")]
    Unsigned,
    /// The key that signed it is not authorized.
    #[error("the key `{}` that signed it is not authorized", .key.escape_debug())]
    UnauthorizedKey {
        /// The digits that identify a Guix key, or the name of a Nix key.
        key: String,
    },
    /// The key that signed it is in the ACL, but cannot be used.
    #[error("the key `{key}` that signed it is in the ACL, but cannot be used: {why}")]
    UnusableKey {
        /// The first digits that identify the key.
        key: String,
        /// Why it cannot be used.
        why: KeyError,
    },
    /// The signature covers other content.
    #[error("its content does not match its signature: the narinfo was changed after signing")]
    SignedHashMismatch,
    /// The signature was not made by the key that it names.
    #[error("its signature is invalid")]
    InvalidSignature,
    /// The signature cannot be read.
    #[error("its signature is corrupt: {why}")]
    CorruptSignature {
        /// What is wrong with it.
        why: &'static str,
    },
    /// Authorized keys have signed it, but of too few principals.
    #[error("too few votes: {}", .0.count_text())]
    TooFewVotes(Arc<Ballot>),
    /// Principals have signed different contents for the same item.
    #[error("its signers disagree: {}", .0.facts_text())]
    Dissent(Arc<Ballot>),
}

impl Refusal {
    /// The name that the requested hash has in the narinfo, where it is not the requested one.
    #[must_use]
    pub fn other_name(&self) -> Option<&str> {
        match self {
            Self::WrongItem {
                asked, answered, ..
            } if asked.hash_part() == answered.hash_part() => Some(answered.name()),
            _ => None,
        }
    }

    /// Whether the request is wrong, and not the narinfo: a hash belongs to one name, and an authorized
    /// key has signed that it is another one.
    #[must_use]
    pub fn is_wrong_name(&self) -> bool {
        let is_signed = matches!(self, Self::WrongItem { is_signed, .. } if *is_signed);
        is_signed && self.other_name().is_some()
    }

    /// The reason as one word for JSON output.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::WrongItem { .. } => "wrong-item",
            Self::Unsigned => "unsigned",
            Self::UnauthorizedKey { .. } => "unauthorized-key",
            Self::UnusableKey { .. } => "unusable-key",
            Self::SignedHashMismatch => "signed-hash-mismatch",
            Self::InvalidSignature => "invalid-signature",
            Self::CorruptSignature { .. } => "corrupt-signature",
            Self::TooFewVotes(_) => "too-few-votes",
            Self::Dissent(_) => "dissent",
        }
    }
}
