//! Signatures by authorized keys that one narinfo lacks and equivalent ones have.
//!
//! Only the `trust` module verifies: a signature is added if the narinfo, with that signature alone, is
//! authorized.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::format::narinfo::NarInfo;
use crate::format::store_path::{Dialect, StoreDir};
use crate::trust::acl::AuthorizedKeys;
use crate::trust::verdict::authorize;

/// The most signatures that are added to a narinfo, which has room for its own and these.
const ADDED_MAX: usize = 8;

/// The values of the signatures of `others`, in their order, by authorized keys that have not signed
/// `narinfo`: what each of them signs is the same as in `narinfo`.
pub(super) fn missing_signatures<'a>(
    narinfo: &NarInfo,
    others: impl Iterator<Item = &'a NarInfo>,
    keys: &AuthorizedKeys,
    store_dir: &StoreDir,
) -> Vec<String> {
    let own: BTreeSet<&str> = signatures(narinfo, store_dir).collect();
    let others = others.filter(|other| narinfo.is_equivalent(other));
    let further: Vec<&str> = others
        .flat_map(|other| signatures(other, store_dir))
        .filter(|signature| !own.contains(signature))
        .collect();
    if further.is_empty() {
        return Vec::new();
    }

    let mut signers: BTreeSet<String> = signatures(narinfo, store_dir)
        .filter_map(|signature| signer(narinfo, signature, keys, store_dir))
        .collect();

    let mut added: Vec<String> = Vec::new();
    for signature in further {
        let signer = signer(narinfo, signature, keys, store_dir);
        if added.len() < ADDED_MAX && signer.is_some_and(|signer| signers.insert(signer)) {
            added.push(signature.to_owned());
        }
    }
    added
}

/// The values of the signature fields.
pub(super) fn signatures<'n>(
    narinfo: &'n NarInfo,
    store_dir: &StoreDir,
) -> Box<dyn Iterator<Item = &'n str> + 'n> {
    match store_dir.dialect() {
        Dialect::Guix => Box::new(narinfo.guix_signatures()),
        Dialect::Nix => Box::new(narinfo.nix_signatures()),
    }
}

/// The authorized key that has made `signature` of what `narinfo` says.
fn signer(
    narinfo: &NarInfo,
    signature: &str,
    keys: &AuthorizedKeys,
    store_dir: &StoreDir,
) -> Option<String> {
    let alone = with_signature_alone(narinfo, signature, store_dir)?;
    let alone = Arc::new(NarInfo::parse(alone, store_dir).ok()?);
    let authorized = authorize(Arc::clone(&alone), narinfo.store_path(), keys, store_dir).ok()?;
    // A store path that proves the content says nothing about the signature.
    authorized.verified_nar_size()?;
    Some(authorized.signed_by().to_owned())
}

/// The text of `narinfo` with `signature` in place of its own ones.
fn with_signature_alone(
    narinfo: &NarInfo,
    signature: &str,
    store_dir: &StoreDir,
) -> Option<String> {
    match store_dir.dialect() {
        Dialect::Guix => {
            let signed = narinfo.signed_text()?;
            Some(format!("{signed}Signature: {signature}\n"))
        }
        Dialect::Nix => {
            let lines = narinfo.text().split_inclusive('\n');
            let mut text: String = lines.filter(|line| !line.starts_with("Sig:")).collect();
            if !text.ends_with('\n') {
                text.push('\n');
            }
            text.push_str(&format!("Sig: {signature}\n"));
            Some(text)
        }
    }
}
