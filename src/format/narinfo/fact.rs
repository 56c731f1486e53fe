//! What a narinfo states of an item, for comparing what different keys have signed.

use sha2::{Digest as _, Sha256};

use super::info::NarInfo;
use crate::format::store_path::StorePathRef;

/// A digest of the item, NarHash, NarSize and the set of references. Other than
/// [`NarInfo::is_equivalent`], it does not depend on the order of the references.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NarFact([u8; 32]);

impl NarFact {
    /// What `narinfo` states.
    #[must_use]
    pub(crate) fn of(narinfo: &NarInfo) -> Self {
        let mut references: Vec<StorePathRef<'_>> = narinfo.references().collect();
        references.sort_unstable();
        references.dedup();

        let mut digest = Sha256::new();
        digest.update(narinfo.store_path().base());
        digest.update([0]);
        digest.update(narinfo.nar_hash().as_bytes());
        digest.update(narinfo.nar_size().to_le_bytes());
        for reference in references {
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
