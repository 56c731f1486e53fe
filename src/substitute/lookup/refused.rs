//! A refused narinfo in the lookup cache: why it was refused, and what it offers. Bounded, whatever
//! the server sent; of use only while the same keys are authorized.

use std::fmt::Write as _;

use crate::format::narinfo::NarOffer;
use crate::format::store_path::{StoreDir, StorePath};
use crate::trust::verdict::Refusal;

/// What is kept of a refused narinfo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RefusedNarInfo {
    /// The item that it is about.
    pub(super) path: StorePath,
    pub(super) refusal: Refusal,
    pub(super) offer: NarOffer,
}

impl RefusedNarInfo {
    /// As text for the lookup cache; `None` for a refusal that is not kept. `keys` is the fingerprint of
    /// the authorized keys.
    pub(super) fn to_facts(&self, store_dir: &StoreDir, keys: &str) -> Option<Box<str>> {
        let detail = match &self.refusal {
            Refusal::UnauthorizedKey { key } => key,
            Refusal::Unsigned | Refusal::SignedHashMismatch | Refusal::InvalidSignature => "",
            Refusal::WrongItem { .. }
            | Refusal::UnusableKey { .. }
            | Refusal::CorruptSignature { .. }
            | Refusal::TooFewVotes(_)
            | Refusal::Dissent(_) => return None,
        };

        let mut text = format!("StorePath: {}\n{keys}\n", store_dir.display(&self.path),);

        // Writing to a string cannot fail.
        let _ = writeln!(text, "{} {detail}", self.refusal.reason());
        text.push_str(&self.offer.to_text());
        Some(text.into())
    }

    /// What [`RefusedNarInfo::to_facts`] wrote; `None` when other keys are authorized now.
    pub(super) fn from_facts(facts: &str, store_dir: &StoreDir, keys: &str) -> Option<Self> {
        let mut lines = facts.splitn(4, '\n');
        let path = lines.next()?.strip_prefix("StorePath: ")?;
        let path = store_dir.parse_path(path).ok()?.to_path();
        if lines.next()? != keys {
            return None;
        }

        let (reason, detail) = lines.next()?.split_once(' ')?;
        let unauthorized = Refusal::UnauthorizedKey {
            key: detail.to_owned(),
        };

        let known = [
            Refusal::Unsigned,
            Refusal::SignedHashMismatch,
            Refusal::InvalidSignature,
            unauthorized,
        ];
        let refusal = known
            .into_iter()
            .find(|refusal| refusal.reason() == reason)?;
        let offer = NarOffer::parse(lines.next()?)?;
        Some(Self {
            path,
            refusal,
            offer,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::narinfo::NarInfo;
    use crate::trust::acl::{Acl, AuthorizedKeys};
    use crate::trust::signer::SignatureScope;

    const TEXT: &str = include_str!("../../../fixtures/signatures/vector-a.narinfo");

    #[test]
    fn facts_hold_while_the_same_keys_are_authorized() {
        let dir = StoreDir::parse(StoreDir::GUIX).unwrap();
        let narinfo = NarInfo::parse(TEXT, &dir).unwrap();
        let scope = SignatureScope::First;
        let no_keys = AuthorizedKeys::Guix(Acl::default());
        let others = [
            AuthorizedKeys::Guix(Acl::official_guix_servers()).fingerprint(scope),
            AuthorizedKeys::AllowUnauthenticated.fingerprint(scope),
            no_keys.fingerprint(SignatureScope::All),
        ];
        let no_keys = no_keys.fingerprint(scope);
        let key = "(guix) 0123".to_owned();
        for refusal in [Refusal::Unsigned, Refusal::UnauthorizedKey { key }] {
            let path = narinfo.store_path().to_path();
            let refused = RefusedNarInfo {
                path,
                refusal,
                offer: NarOffer::of(&narinfo),
            };
            let facts = refused.to_facts(&dir, &no_keys).unwrap();
            assert_eq!(
                RefusedNarInfo::from_facts(&facts, &dir, &no_keys),
                Some(refused)
            );
            for other in &others {
                assert_eq!(RefusedNarInfo::from_facts(&facts, &dir, other), None);
            }
        }

        for text in ["", "x", "StorePath: /gnu/store/x\n"] {
            assert_eq!(RefusedNarInfo::from_facts(text, &dir, &no_keys), None);
        }
    }
}
