//! What a narinfo states of an item, for comparing the narinfos of different keys and servers.

use sha2::{Digest as _, Sha256};

use super::info::{NarInfo, in_order};
use crate::format::hash::NarHash;
use crate::format::store_path::StorePathRef;

/// A digest of the item, NarHash, NarSize and the set of references: of all that
/// [`NarInfo::is_equivalent`] compares. It is kept in the lookup cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NarFact(pub(super) [u8; 32]);

impl NarFact {
    /// What `narinfo` states.
    #[must_use]
    pub(crate) fn of(narinfo: &NarInfo) -> Self {
        let (item, references) = (narinfo.store_path(), narinfo.references());
        Self::new(item, narinfo.nar_hash(), narinfo.nar_size(), references)
    }

    /// That the nar of `item` has this hash and size, and that the item refers to `references`.
    #[must_use]
    pub(crate) fn new<'a>(
        item: StorePathRef<'_>,
        nar_hash: NarHash,
        nar_size: u64,
        references: impl Iterator<Item = StorePathRef<'a>>,
    ) -> Self {
        let mut digest = Sha256::new();
        digest.update(item.base());
        digest.update([0]);
        digest.update(nar_hash.to_string());
        digest.update(nar_size.to_le_bytes());
        for reference in in_order(references) {
            digest.update(reference.base());
            digest.update([0]);
        }

        Self(digest.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::store_path::StoreDir;

    fn fact(item: &str, hash: &str, size: u64, references: &str) -> NarFact {
        let (item, hash) = (item.repeat(32), hash.repeat(52));
        let text = format!(
            "StorePath: /gnu/store/{item}-x\nURL: x\nNarHash: sha256:{hash}\nNarSize: {size}\n\
             References: {references}\n"
        );
        NarFact::of(&NarInfo::parse(text, &StoreDir::parse(StoreDir::GUIX).unwrap()).unwrap())
    }

    #[test]
    fn references_are_compared_as_a_set_and_everything_else_exactly() {
        let [one, other] = ["1", "2"].map(|digit| format!("{}-x", digit.repeat(32)));
        let both = format!("{one} {other}");
        let expected = fact("0", "0", 7, &both);
        for same in [format!("{other} {one}"), format!("{one} {other} {one}")] {
            assert_eq!(fact("0", "0", 7, &same), expected);
        }
        for different in [
            fact("3", "0", 7, &both),
            fact("0", "1", 7, &both),
            fact("0", "0", 8, &both),
            fact("0", "0", 7, &one),
            fact("0", "0", 7, ""),
        ] {
            assert_ne!(different, expected);
        }
    }
}
