//! Items of Nix that need no signature, because the store path itself proves what is in them.
//!
//! The path is a digest of the content's hash, the name and the references. So when the path that is
//! requested results from a narinfo's `CA`, name and references, these are right; and when the
//! content turns out to have that hash, so is the content. Nix accepts such items without a
//! signature too. NarSize is not proved before the content has been read.

use crate::format::content_address::{ContentAddress, HashedContent};
use crate::format::narinfo::NarInfo;
use crate::format::store_path::{Dialect, StoreDir, StorePathRef};

/// How the content is proved, once it has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ContentProof {
    /// By NarHash, which is the hash in the content address.
    Nar,
    /// It is one file, not executable, whose bytes have this SHA-256.
    File([u8; 32]),
}

/// How the content of `narinfo` is proved without a signature, if it can be.
pub(super) fn prove(narinfo: &NarInfo, store_dir: &StoreDir) -> Option<ContentProof> {
    if store_dir.dialect() != Dialect::Nix {
        return None;
    }
    // A derivation names the paths of its outputs. Nix computes these again before it uses them; this program
    // does not, so a derivation needs a signature.
    if narinfo.store_path().is_derivation() {
        return None;
    }

    let address = ContentAddress::parse(narinfo.ca()?)?;
    let path = narinfo.store_path();
    let mut references: Vec<StorePathRef<'_>> = narinfo.references().collect();
    references.sort_unstable();
    references.dedup();
    if references.contains(&path) {
        return None;
    }

    let item = address.item_base(path.name(), &references, store_dir)?;
    if item != path.base() {
        return None;
    }
    match address.content {
        HashedContent::Nar if address.hash == *narinfo.nar_hash().as_bytes() => {
            Some(ContentProof::Nar)
        }
        HashedContent::Nar => None,
        HashedContent::File | HashedContent::Text => Some(ContentProof::File(address.hash)),
    }
}
