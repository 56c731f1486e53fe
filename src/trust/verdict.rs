//! The verdict: a claimed [`NarInfo`] becomes an [`AuthorizedNarInfo`], or is refused by reason.
//!
//! This is the only maker of [`AuthorizedNarInfo`], so what takes one cannot be handed a claim.
//! Believed are its store path, NarHash, NarSize and references. Nobody vouches for downloads, nor
//! in Nix's dialect for deriver, system and CA; in Guix's a server can add those three where
//! the signer left them out, but not change them.

use std::sync::Arc;

use super::acl::{AuthorizedKeys, Signer};
use super::guix;
use super::nix;
use crate::format::narinfo::NarInfo;
use crate::format::store_path::{StoreDir, StorePath, StorePathRef};

/// Why a narinfo is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The server answered with another item than the one asked for.
    #[error("the server answered for {answered} when asked for {asked}")]
    WrongItem {
        /// The item asked for.
        asked: StorePath,
        /// The item answered.
        answered: StorePath,
    },
    /// There is no signature, or it does not cover all that it must.
    #[error("it is not signed")]
    Unsigned,
    /// The key that signed is not among those believed.
    #[error("the key `{}` that signed it is not authorized", .key.escape_debug())]
    UnauthorizedKey {
        /// The digits that identify a Guix key, or the name of a Nix key.
        key: String,
    },
    /// The signature is about another text than the one it stands in.
    #[error("its signature is for another text")]
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
}

impl Refusal {
    /// The reason in one word, for programs.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::WrongItem { .. } => "wrong-item",
            Self::Unsigned => "unsigned",
            Self::UnauthorizedKey { .. } => "unauthorized-key",
            Self::SignedHashMismatch => "signed-hash-mismatch",
            Self::InvalidSignature => "invalid-signature",
            Self::CorruptSignature { .. } => "corrupt-signature",
        }
    }
}

/// A narinfo of the item asked for, vouched for by an authorized key.
#[derive(Debug, Clone)]
pub struct AuthorizedNarInfo {
    narinfo: Arc<NarInfo>,
    signer: Signer,
}

impl AuthorizedNarInfo {
    /// What was vouched for.
    #[must_use]
    pub fn narinfo(&self) -> &Arc<NarInfo> {
        &self.narinfo
    }

    /// Who vouched, for people: the first digits of a Guix key, or the name of a Nix key.
    #[must_use]
    pub fn signed_by(&self) -> &str {
        match &self.signer {
            Signer::GuixKey(id) => guix::key::short_name(id),
            Signer::NixKey(id) => nix::name_of(id),
            Signer::Unauthenticated => "nobody",
        }
    }

    /// The same with nothing of the narinfo but the item's description: see
    /// [`NarInfo::abridged`].
    #[must_use]
    pub fn abridged(self) -> Self {
        Self {
            narinfo: Arc::new(self.narinfo.abridged()),
            signer: self.signer,
        }
    }

    /// The key that vouched, for [`authorize_cached`]; empty when
    /// authentication was switched off.
    #[must_use]
    pub fn key_id(&self) -> &str {
        match &self.signer {
            Signer::GuixKey(id) | Signer::NixKey(id) => id,
            Signer::Unauthenticated => "",
        }
    }
}

/// Believes `narinfo` if it is about `asked` and one of `keys` vouches for it.
///
/// # Errors
/// See [`Refusal`].
pub fn authorize(
    narinfo: Arc<NarInfo>,
    asked: StorePathRef<'_>,
    keys: &AuthorizedKeys,
    store_dir: &StoreDir,
) -> Result<AuthorizedNarInfo, Refusal> {
    let mut verdicts = authorize_all(vec![(narinfo, asked)], keys, store_dir);
    verdicts.pop().expect("one claim has one verdict")
}

/// The verdicts of [`authorize`] for many claims, in their order: of narinfos and the items asked
/// for. Together, Guix's signatures take less than half of the time.
#[must_use]
pub fn authorize_all(
    claims: Vec<(Arc<NarInfo>, StorePathRef<'_>)>,
    keys: &AuthorizedKeys,
    store_dir: &StoreDir,
) -> Vec<Result<AuthorizedNarInfo, Refusal>> {
    let narinfos = claims.iter().map(|(narinfo, _)| &**narinfo);
    let signers: Vec<Result<Signer, Refusal>> = match keys {
        AuthorizedKeys::Guix(acl) => guix::check_all(narinfos, acl)
            .into_iter()
            .map(|checked| checked.map(Signer::guix))
            .collect(),
        AuthorizedKeys::Nix(keys) => narinfos
            .map(|narinfo| nix::check(narinfo, keys, store_dir).map(Signer::nix))
            .collect(),
        AuthorizedKeys::AllowUnauthenticated => {
            narinfos.map(|_| Ok(Signer::Unauthenticated)).collect()
        }
    };
    let verdict = |((narinfo, asked), signer): ((Arc<NarInfo>, StorePathRef<'_>), _)| {
        check_item(&narinfo, asked)?;
        let signer: Result<Signer, Refusal> = signer;
        Ok(AuthorizedNarInfo {
            signer: signer?,
            narinfo,
        })
    };
    claims.into_iter().zip(signers).map(verdict).collect()
}

/// Believes again a narinfo that [`authorize`] has accepted before, if the key that vouched then
/// counts today. The signature is not computed again: the caller answers for having
/// kept both `narinfo` and `key_id` where nobody else could write.
///
/// # Errors
/// The narinfo is about another item, or the key does not count any more.
pub fn authorize_cached(
    narinfo: Arc<NarInfo>,
    asked: StorePathRef<'_>,
    key_id: &str,
    keys: &AuthorizedKeys,
) -> Result<AuthorizedNarInfo, Refusal> {
    check_item(&narinfo, asked)?;
    match keys.signer(key_id) {
        Some(signer) => Ok(AuthorizedNarInfo { narinfo, signer }),
        None => Err(Refusal::UnauthorizedKey {
            key: key_id.to_owned(),
        }),
    }
}

/// A valid signature for another item is no answer: whoever can serve any signed narinfo could
/// else replace one item by another, or by an older one of the same name.
fn check_item(narinfo: &NarInfo, asked: StorePathRef<'_>) -> Result<(), Refusal> {
    let answered = narinfo.store_path();
    if answered == asked {
        return Ok(());
    }
    Err(Refusal::WrongItem {
        asked: asked.to_path(),
        answered: answered.to_path(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::acl::Acl;
    use crate::trust::guix::PublicKey;
    use crate::trust::nix::TrustedKeys;

    const TEXT: &str = include_str!("../../fixtures/signatures/vector-a.narinfo");
    const KEY: &[u8] = include_bytes!("../../fixtures/signatures/vector-a.pub");
    const ITEM: &str = "0f9qzp1g3jy45al4zspzqah9f8d5bisp-debconf-1.0";

    fn dir() -> StoreDir {
        StoreDir::parse(StoreDir::GUIX).unwrap()
    }

    fn narinfo() -> Arc<NarInfo> {
        Arc::new(NarInfo::parse(TEXT, &dir()).unwrap())
    }

    fn keys() -> AuthorizedKeys {
        let mut acl = Acl::default();
        acl.authorize(PublicKey::parse(KEY).unwrap());
        AuthorizedKeys::Guix(acl)
    }

    fn verdict(item: &str, keys: &AuthorizedKeys) -> Result<AuthorizedNarInfo, Refusal> {
        authorize(narinfo(), StorePathRef::parse(item).unwrap(), keys, &dir())
    }

    #[test]
    fn says_who_vouched() {
        let authorized = verdict(ITEM, &keys()).unwrap();
        assert_eq!(authorized.signed_by(), "E8E85766778A8A68");
        assert!(keys().signer(authorized.key_id()).is_some());
        assert_eq!(authorized.narinfo().text(), TEXT);
    }

    #[test]
    fn another_item_is_refused_whoever_signed_it() {
        let other_hash = "8yrx9brcs5jjh07qvgl5i9dg7kvn60m4-debconf-1.0";
        let other_name = "0f9qzp1g3jy45al4zspzqah9f8d5bisp-debconf-1.1";
        for item in [other_hash, other_name] {
            for keys in [keys(), AuthorizedKeys::AllowUnauthenticated] {
                let refusal = verdict(item, &keys).unwrap_err();
                assert_eq!(refusal.reason(), "wrong-item");
                let words = format!("the server answered for {ITEM} when asked for {item}");
                assert_eq!(refusal.to_string(), words);
                let asked = StorePathRef::parse(item).unwrap();
                let id = verdict(ITEM, &keys).unwrap().key_id().to_owned();
                assert_eq!(
                    authorize_cached(narinfo(), asked, &id, &keys).unwrap_err(),
                    refusal
                );
            }
        }
    }

    #[test]
    fn nobody_is_believed_without_keys() {
        let refusal = verdict(ITEM, &AuthorizedKeys::Guix(Acl::default())).unwrap_err();
        assert_eq!(refusal.reason(), "unauthorized-key");
        let nix = AuthorizedKeys::Nix(TrustedKeys::official_nix_server());
        assert_eq!(verdict(ITEM, &nix).unwrap_err(), Refusal::Unsigned);
    }

    #[test]
    fn anyone_is_believed_when_authentication_is_off() {
        let authorized = verdict(ITEM, &AuthorizedKeys::AllowUnauthenticated).unwrap();
        assert_eq!(
            (authorized.signed_by(), authorized.key_id()),
            ("nobody", "")
        );
    }

    #[test]
    fn a_remembered_verdict_lasts_as_long_as_its_key() {
        let authorized = verdict(ITEM, &keys()).unwrap();
        let asked = StorePathRef::parse(ITEM).unwrap();
        let again = |id: &str, keys: &AuthorizedKeys| authorize_cached(narinfo(), asked, id, keys);
        let recalled = again(authorized.key_id(), &keys()).unwrap();
        assert_eq!(recalled.signed_by(), authorized.signed_by());
        let nobody = AuthorizedKeys::Guix(Acl::default());
        assert_eq!(
            again(authorized.key_id(), &nobody).unwrap_err().reason(),
            "unauthorized-key"
        );
        let id_of_anyone = "";
        assert!(
            again(id_of_anyone, &keys()).is_err(),
            "what was never checked is not believed"
        );
    }
}
