//! Verified signatures: a claimed [`NarInfo`] becomes a [`SignedNarInfo`], which at least one authorized
//! key has signed, or is refused by reason.

use std::sync::Arc;

use super::acl::AuthorizedKeys;
use super::content_address;
use super::guix;
use super::nix;
use super::refusal::Refusal;
use super::signer::{SignatureScope, Signer, Signers};
use crate::format::narinfo::NarInfo;
use crate::format::store_path::{StoreDir, StorePathRef};

/// A narinfo of the requested item that at least one authorized key has signed, or whose store path
/// proves its content. It is up to the policy whether that is enough.
#[derive(Debug, Clone)]
pub(crate) struct SignedNarInfo {
    pub(super) narinfo: Arc<NarInfo>,
    pub(super) signers: Signers,
    /// Whether an earlier run has verified the signature, and this one has not.
    pub(super) is_recorded: bool,
}

impl SignedNarInfo {
    /// The narinfo.
    #[must_use]
    pub(crate) fn narinfo(&self) -> &Arc<NarInfo> {
        &self.narinfo
    }

    /// The id of the first key, for [`reuse_signature`]; empty if authentication was switched off.
    #[must_use]
    pub(crate) fn key_id(&self) -> &str {
        self.signers.first().key_id()
    }

    /// The same with an [abridged](NarInfo::abridged) narinfo.
    #[must_use]
    pub(crate) fn abridged(self) -> Self {
        Self {
            narinfo: Arc::new(self.narinfo.abridged()),
            ..self
        }
    }
}

/// Verifies the signatures of many claims, each a narinfo and the requested item, in their order: those
/// that at least one of `keys` has signed, or whose store path proves the content.
#[must_use]
pub(crate) fn verify_all(
    claims: Vec<(Arc<NarInfo>, StorePathRef<'_>)>,
    keys: &AuthorizedKeys,
    store_dir: &StoreDir,
    scope: SignatureScope,
) -> Vec<Result<SignedNarInfo, Refusal>> {
    let narinfos = claims.iter().map(|(narinfo, _)| &**narinfo);
    let signers: Vec<Result<Signers, Refusal>> = match keys {
        AuthorizedKeys::Guix(acl) => guix::check_all(narinfos, acl, scope),
        AuthorizedKeys::Nix(keys) => narinfos
            .map(|narinfo| {
                let signed = nix::check(narinfo, keys, store_dir, scope);
                with_content_proof(signed, narinfo, store_dir, scope)
            })
            .collect(),
        AuthorizedKeys::AllowUnauthenticated => narinfos
            .map(|_| Ok(Signers::one(Signer::Unauthenticated)))
            .collect(),
    };

    let verdicts = claims
        .into_iter()
        .zip(signers)
        .map(|((narinfo, asked), signers)| {
            check_item(&narinfo, asked, signers.is_ok())?;
            signers.map(|signers| SignedNarInfo {
                narinfo,
                signers,
                is_recorded: false,
            })
        });

    verdicts.collect()
}

/// `signed`, with the proof by the store path where that is needed or votes are counted.
fn with_content_proof(
    signed: Result<Signers, Refusal>,
    narinfo: &NarInfo,
    store_dir: &StoreDir,
    scope: SignatureScope,
) -> Result<Signers, Refusal> {
    if signed.is_ok() && scope == SignatureScope::First {
        return signed;
    }
    let Some(proof) = content_address::prove(narinfo, store_dir) else {
        return signed;
    };

    let proof = Signer::ContentAddress(proof);
    Ok(match signed {
        Ok(mut signers) => {
            signers.add(proof);
            signers
        }
        Err(_) => Signers::one(proof),
    })
}

/// A narinfo that was found to be signed by the key with the id `key_id` before, if that key is still
/// authorized. The signature is not verified again: the caller guarantees that `narinfo` and
/// `key_id` were kept where no other user can write. `None` where all signers matter and it may have
/// more than that one.
///
/// # Errors
/// The narinfo describes another item, or the key is not authorized any more; a content address is
/// no key, and is to be proved again.
pub(crate) fn reuse_signature(
    narinfo: &NarInfo,
    asked: StorePathRef<'_>,
    key_id: &str,
    keys: &AuthorizedKeys,
    scope: SignatureScope,
) -> Result<Option<SignedNarInfo>, Refusal> {
    let signer = keys.signer(key_id);
    check_item(narinfo, asked, signer.is_some())?;
    let signer = signer.ok_or_else(|| Refusal::UnauthorizedKey {
        key: key_id.to_owned(),
    })?;

    let signatures = narinfo.guix_signatures().count() + narinfo.nix_signatures().count();
    let may_have_more = signatures != 1 || narinfo.ca().is_some();
    if scope == SignatureScope::All && may_have_more {
        return Ok(None);
    }
    Ok(Some(SignedNarInfo {
        narinfo: Arc::new(narinfo.abridged()),
        signers: Signers::one(signer),
        is_recorded: true,
    }))
}

/// Refuses a narinfo of another item. With a valid signature for one, a server could replace an item
/// by another one, or by an older one of the same name.
fn check_item(narinfo: &NarInfo, asked: StorePathRef<'_>, is_signed: bool) -> Result<(), Refusal> {
    let answered = narinfo.store_path();
    if answered == asked {
        return Ok(());
    }

    Err(Refusal::WrongItem {
        asked: asked.to_path(),
        answered: answered.to_path(),
        is_signed,
    })
}
