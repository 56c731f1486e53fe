//! What the store database keeps of an item.

use crate::format::base64;
use crate::format::content_address::is_readable_by_nix;
use crate::format::hash::NarHash;
use crate::format::narinfo::NarInfo;
use crate::format::store_path::{StorePath, StorePathRef};

/// An item to be made valid: everything the database keeps of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Registration {
    pub(super) path: StorePath,
    pub(super) nar_hash: NarHash,
    /// The size of its nar in bytes.
    pub(super) nar_size: u64,
    /// The derivation it was built from, which need not be valid.
    pub(super) deriver: Option<StorePath>,
    /// What it refers to, itself included where it does.
    pub(super) references: Vec<StorePath>,
    /// Signatures of the form `NAME:BASE64`; only a Nix store keeps them.
    pub(super) signatures: Vec<String>,
    /// How its name follows from its content, where it does; only a Nix store keeps it.
    pub(super) ca: Option<String>,
}

impl Registration {
    /// What is to be recorded of the item that `narinfo` describes.
    pub(super) fn of(narinfo: &NarInfo) -> Self {
        Self {
            path: narinfo.store_path().to_path(),
            nar_hash: narinfo.nar_hash(),
            nar_size: narinfo.nar_size(),
            deriver: narinfo.deriver().map(StorePathRef::to_path),
            references: narinfo.references().map(StorePathRef::to_path).collect(),
            signatures: narinfo
                .nix_signatures()
                .filter(|signature| is_signature(signature))
                .map(str::to_owned)
                .collect(),
            ca: narinfo
                .ca()
                .filter(|address| is_readable_by_nix(address))
                .map(str::to_owned),
        }
    }
}

/// Whether `text` has the form of a signature, `NAME:BASE64`. No signature covers these lines of a narinfo, and
/// Nix could not use an item with anything else in its database, where blanks separate signatures.
fn is_signature(text: &str) -> bool {
    text.split_once(':').is_some_and(|(name, digits)| {
        let is_name = !name.is_empty() && !name.contains(|c: char| c.is_ascii_whitespace());
        is_name && base64::decode::<SIGNATURE_BYTES>(digits).is_some()
    })
}

/// Of an Ed25519 signature.
const SIGNATURE_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::store_path::StoreDir;

    #[test]
    fn what_nix_could_not_read_again_is_not_recorded() {
        let digits = "0".repeat(52);
        let signature = format!("a-1:{}==", "A".repeat(86));
        let nix = StoreDir::parse(StoreDir::NIX).unwrap();
        let text = format!(
            "StorePath: /nix/store/vxjiwkjkn7x4079qvh1jkl5pn05j2aw0-foo\nURL: x\nCompression: none\n\
             NarHash: sha256:{digits}\nNarSize: 7\nReferences: \nSig: x\nSig: {signature}\nSig: b-1:?\n\
             Sig: b-1:AA==\nSig: b {signature}\nSig: :{}\n",
            &signature[4..]
        );
        let recorded = |address: &str| {
            let text = format!("{text}CA: {address}\n");
            Registration::of(&NarInfo::parse(text, &nix).unwrap())
        };
        assert_eq!(recorded("x").ca, None);
        let address = format!("fixed:r:sha256:{digits}");
        assert_eq!(recorded(&address).ca, Some(address));
        assert_eq!(recorded("x").signatures, [signature]);
    }
}
