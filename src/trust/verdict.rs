//! The verdict: a claimed [`NarInfo`] becomes an [`AuthorizedNarInfo`], or is refused by reason.
//!
//! Only [`authorize`] and [`authorize_all`] make an [`AuthorizedNarInfo`], after verifying it in this
//! run, so a function that takes one cannot be passed a claim. `reuse_verdict` relies on an earlier
//! run, and so returns another type, `PreviouslyAuthorizedNarInfo`, which cannot be converted.
//!
//! The store path, NarHash, NarSize and references of an authorized narinfo are verified. Downloads
//! are not, nor are in Nix's dialect deriver, system and CA; in Guix's a server can add those three
//! where the signer left them out, but not change them.
//!
//! An item of Nix whose store path proves its content needs no signature. Its store path and
//! references are verified; so is its content as soon as it has been read
//! (`AuthorizedNarInfo::file_hash`), and with it NarSize (`AuthorizedNarInfo::verified_nar_size`).

use std::sync::Arc;

use super::acl::AuthorizedKeys;
use super::content_address::{self, ContentProof};
use super::guix;
use super::nix;
pub use super::refusal::Refusal;
use super::signer::Signer;
use crate::format::narinfo::NarInfo;
use crate::format::store_path::{StoreDir, StorePathRef};

/// A narinfo of the requested item that an authorized key has signed, or whose content is proved by
/// the store path.
#[derive(Debug, Clone)]
pub struct AuthorizedNarInfo {
    narinfo: Arc<NarInfo>,
    signer: Signer,
}

impl AuthorizedNarInfo {
    /// The narinfo.
    #[must_use]
    pub fn narinfo(&self) -> &Arc<NarInfo> {
        &self.narinfo
    }

    /// The key for messages: the first digits of a Guix key, or the name of a Nix key;
    /// `content-addressed` if the store path proves the content.
    #[must_use]
    pub fn signed_by(&self) -> &str {
        self.signer.display_name()
    }

    /// The SHA-256 that the item, a file that is not executable, must have for its store path to
    /// prove it; `None` if NarHash is verified.
    #[must_use]
    pub(crate) fn file_hash(&self) -> Option<[u8; 32]> {
        match self.signer {
            Signer::ContentAddress(ContentProof::File(hash)) => Some(hash),
            _ => None,
        }
    }

    /// Bytes of its nar, if the signature covers them or authentication was switched off. Where only
    /// the store path proves the content, `None`: until the nar has been read, any server may claim
    /// any size.
    #[must_use]
    pub(crate) fn verified_nar_size(&self) -> Option<u64> {
        match self.signer {
            Signer::ContentAddress(_) => None,
            Signer::GuixKey(_) | Signer::NixKey(_) | Signer::Unauthenticated => {
                Some(self.narinfo.nar_size())
            }
        }
    }

    /// The same with an [abridged](NarInfo::abridged) narinfo.
    #[must_use]
    pub(crate) fn abridged(self) -> Self {
        Self {
            narinfo: Arc::new(self.narinfo.abridged()),
            signer: self.signer,
        }
    }

    /// The id of the key, for [`reuse_verdict`]; empty if authentication was switched off.
    #[must_use]
    pub(crate) fn key_id(&self) -> &str {
        self.signer.key_id()
    }
}

/// A narinfo of the requested item that was authorized in an earlier run, and whose key is
/// authorized now. Enough for reports; every change of a store takes an [`AuthorizedNarInfo`].
#[derive(Debug, Clone)]
pub(crate) struct PreviouslyAuthorizedNarInfo {
    narinfo: Arc<NarInfo>,
    signer: Signer,
}

impl PreviouslyAuthorizedNarInfo {
    /// The narinfo, [abridged](NarInfo::abridged).
    #[must_use]
    pub(crate) fn narinfo(&self) -> &Arc<NarInfo> {
        &self.narinfo
    }

    /// The key, as [`AuthorizedNarInfo::signed_by`].
    #[must_use]
    pub(crate) fn signed_by(&self) -> &str {
        self.signer.display_name()
    }

    /// The id of the key, as [`AuthorizedNarInfo::key_id`].
    #[must_use]
    pub(crate) fn key_id(&self) -> &str {
        self.signer.key_id()
    }
}

/// Accepts `narinfo` if it describes the item `asked` and one of `keys` has signed it, or its store
/// path proves the content. `store_dir` is the one it was parsed for.
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

/// The verdicts of [`authorize`] for many claims, each a narinfo and the requested item, in their
/// order. Guix's signatures take less than half the time when they are verified together
/// (benchmark `guix_narinfos_parse_and_authorize_together`).
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
            .map(|narinfo| match nix::check(narinfo, keys, store_dir) {
                Ok(key) => Ok(Signer::nix(key)),
                Err(refusal) => content_address::prove(narinfo, store_dir)
                    .map(Signer::ContentAddress)
                    .ok_or(refusal),
            })
            .collect(),
        AuthorizedKeys::AllowUnauthenticated => {
            narinfos.map(|_| Ok(Signer::Unauthenticated)).collect()
        }
    };

    let verdicts = claims
        .into_iter()
        .zip(signers)
        .map(|((narinfo, asked), signer)| {
            check_item(&narinfo, asked)?;
            signer.map(|signer| AuthorizedNarInfo { narinfo, signer })
        });

    verdicts.collect()
}

/// Accepts a narinfo that [`authorize`] has accepted before, if the key that signed it is still
/// authorized. The signature is not verified again: the caller guarantees that `narinfo` and
/// `key_id` were kept where no other user can write.
///
/// # Errors
/// The narinfo describes another item, or the key is not authorized any more; a content address is
/// no key, and is to be proved again.
pub(crate) fn reuse_verdict(
    narinfo: &NarInfo,
    asked: StorePathRef<'_>,
    key_id: &str,
    keys: &AuthorizedKeys,
) -> Result<PreviouslyAuthorizedNarInfo, Refusal> {
    check_item(narinfo, asked)?;
    match keys.signer(key_id) {
        Some(signer) => Ok(PreviouslyAuthorizedNarInfo {
            narinfo: Arc::new(narinfo.abridged()),
            signer,
        }),
        None => Err(Refusal::UnauthorizedKey {
            key: key_id.to_owned(),
        }),
    }
}

/// Refuses a narinfo of another item. With a valid signature for one, a server could replace an item
/// by another one, or by an older one of the same name.
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
    use crate::format::content_address::ContentAddress;
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
    fn names_the_key_that_signed() {
        let authorized = verdict(ITEM, &keys()).unwrap();
        assert_eq!(authorized.signed_by(), "E8E85766778A8A68");
        assert!(keys().signer(authorized.key_id()).is_some());
        assert_eq!(authorized.narinfo().text(), TEXT);
        let size = authorized.narinfo().nar_size();
        assert_eq!(authorized.verified_nar_size(), Some(size));
    }

    #[test]
    fn another_item_is_refused_even_with_a_valid_signature() {
        let other_hash = "8yrx9brcs5jjh07qvgl5i9dg7kvn60m4-debconf-1.0";
        let other_name = "0f9qzp1g3jy45al4zspzqah9f8d5bisp-debconf-1.1";
        for item in [other_hash, other_name] {
            for keys in [keys(), AuthorizedKeys::AllowUnauthenticated] {
                let refusal = verdict(item, &keys).unwrap_err();
                assert_eq!(refusal.reason(), "wrong-item");
                let message = format!("the server answered for {ITEM} when asked for {item}");
                assert_eq!(refusal.to_string(), message);
                let asked = StorePathRef::parse(item).unwrap();
                let id = verdict(ITEM, &keys).unwrap().key_id().to_owned();
                assert_eq!(
                    reuse_verdict(&narinfo(), asked, &id, &keys).unwrap_err(),
                    refusal
                );
            }
        }
    }

    #[test]
    fn everything_is_refused_without_keys() {
        let refusal = verdict(ITEM, &AuthorizedKeys::Guix(Acl::default())).unwrap_err();
        assert_eq!(refusal.reason(), "unauthorized-key");
        let nix = AuthorizedKeys::Nix(TrustedKeys::official_nix_server());
        assert_eq!(verdict(ITEM, &nix).unwrap_err(), Refusal::Unsigned);
    }

    /// A narinfo without a signature of `builtins.toFile "foo" "bar"`.
    fn content_addressed(dir: &StoreDir, references: &str, address: &str) -> Arc<NarInfo> {
        let text = format!(
            "StorePath: {}/vxjiwkjkn7x4079qvh1jkl5pn05j2aw0-foo\nURL: x\nCompression: none\n\
             NarHash: sha256:{}\nNarSize: 7\nReferences: {references}\nCA: {address}\n",
            dir.as_str(),
            "0".repeat(52),
        );
        Arc::new(NarInfo::parse(text, dir).unwrap())
    }

    #[test]
    fn a_store_path_that_proves_the_content_needs_no_key() {
        let bar = "sha256:fcde2b2edba56bf408601fb721fe9b5c338d10ee429ea04fae5511b68fbf8fb9";
        let nix = StoreDir::parse(StoreDir::NIX).unwrap();
        let item = "vxjiwkjkn7x4079qvh1jkl5pn05j2aw0-foo";
        let asked = StorePathRef::parse(item).unwrap();
        let keys = AuthorizedKeys::Nix(TrustedKeys::parse("").unwrap());

        let narinfo = content_addressed(&nix, "", &format!("text:{bar}"));
        let authorized = authorize(Arc::clone(&narinfo), asked, &keys, &nix).unwrap();
        assert_eq!(authorized.signed_by(), "content-addressed");
        assert_eq!(authorized.verified_nar_size(), None);
        assert!(
            authorized.file_hash().is_some(),
            "its content is to be checked"
        );
        assert!(authorized.abridged().file_hash().is_some());
        let cached = reuse_verdict(&narinfo, asked, "content-addressed", &keys);
        assert!(cached.is_err(), "it is proved each time");
        let other = StorePathRef::parse(ITEM).unwrap();
        let refusal = authorize(narinfo, other, &keys, &nix).unwrap_err();
        assert_eq!(refusal.reason(), "wrong-item");

        for (references, address) in [
            (item, format!("text:{bar}")),
            (ITEM, format!("text:{bar}")),
            ("", format!("fixed:{bar}")),
            ("", format!("fixed:r:{bar}")),
            ("", format!("text:{bar}0")),
            ("", String::new()),
        ] {
            let narinfo = content_addressed(&nix, references, &address);
            let refusal = authorize(narinfo, asked, &keys, &nix).unwrap_err();
            assert_eq!(refusal, Refusal::Unsigned, "{references} {address}");
        }
        let narinfo = content_addressed(&dir(), "", &format!("text:{bar}"));
        let guix = AuthorizedKeys::Guix(Acl::default());
        let refusal = authorize(narinfo, asked, &guix, &dir()).unwrap_err();
        assert_eq!(refusal, Refusal::Unsigned, "Guix has no such rule");
    }

    /// The path of a derivation proves its text, not that the outputs which the text names are those of it.
    #[test]
    fn a_derivation_needs_a_signature_whatever_its_store_path_proves() {
        let hash = "sha256:fcde2b2edba56bf408601fb721fe9b5c338d10ee429ea04fae5511b68fbf8fb9";
        let nix = StoreDir::parse(StoreDir::NIX).unwrap();
        let keys = AuthorizedKeys::Nix(TrustedKeys::parse("").unwrap());
        for address in [format!("text:{hash}"), format!("fixed:r:{hash}")] {
            for (name, is_accepted) in [("a.drv", false), ("a.drv.drv", false), ("a.drv.txt", true)]
            {
                let parsed = ContentAddress::parse(&address).unwrap();
                let item = parsed.item_base(name, &[], &nix).unwrap();
                let text = format!(
                    "StorePath: /nix/store/{item}\nURL: x\nNarHash: {hash}\nNarSize: 7\n\
                     References: \nCA: {address}\n"
                );
                let narinfo = Arc::new(NarInfo::parse(text, &nix).unwrap());
                let asked = StorePathRef::parse(&item).unwrap();
                let verdict = authorize(narinfo, asked, &keys, &nix);
                let expected = if is_accepted {
                    None
                } else {
                    Some(Refusal::Unsigned)
                };
                assert_eq!(verdict.err(), expected, "{item} {address}");
            }
        }
    }

    /// The hash of the nar is in the address, and so NarHash proves the content.
    #[test]
    fn the_hash_of_a_nar_is_the_one_in_its_content_address() {
        let hash = "sha256:08813cbee9903c62be4c5027726a418a300da4500b2d369d3af9286f4815ceba";
        let item = "4q0pg5zpfmznxscq3avycvf9xdvx50n3-bar";
        let nix = StoreDir::parse(StoreDir::NIX).unwrap();
        let asked = StorePathRef::parse(item).unwrap();
        let keys = AuthorizedKeys::Nix(TrustedKeys::official_nix_server());
        for (nar_hash, is_proved) in [(hash.to_owned(), true), (hash.replace('8', "9"), false)] {
            let text = format!(
                "StorePath: /nix/store/{item}\nURL: x\nNarHash: {nar_hash}\nNarSize: 7\n\
                 References: \nSig: cache.nixos.org-1:AAAA\nCA: fixed:r:{hash}\n"
            );
            let narinfo = Arc::new(NarInfo::parse(text, &nix).unwrap());
            let verdict = authorize(narinfo, asked, &keys, &nix);
            assert_eq!(verdict.is_ok(), is_proved);
            if let Ok(authorized) = verdict {
                assert_eq!(authorized.file_hash(), None);
                assert_eq!(authorized.verified_nar_size(), None);
            }
        }
    }

    #[test]
    fn any_narinfo_is_accepted_when_authentication_is_off() {
        let authorized = verdict(ITEM, &AuthorizedKeys::AllowUnauthenticated).unwrap();
        assert_eq!(
            (authorized.signed_by(), authorized.key_id()),
            ("nobody", "")
        );
    }

    #[test]
    fn a_cached_verdict_is_valid_as_long_as_its_key_is_authorized() {
        let authorized = verdict(ITEM, &keys()).unwrap();
        let asked = StorePathRef::parse(ITEM).unwrap();
        let again = |id: &str, keys: &AuthorizedKeys| reuse_verdict(&narinfo(), asked, id, keys);
        let recalled = again(authorized.key_id(), &keys()).unwrap();
        assert_eq!(recalled.signed_by(), authorized.signed_by());
        let empty = AuthorizedKeys::Guix(Acl::default());
        assert_eq!(
            again(authorized.key_id(), &empty).unwrap_err().reason(),
            "unauthorized-key"
        );
        let id_without_authentication = "";
        assert!(
            again(id_without_authentication, &keys()).is_err(),
            "a narinfo that was never verified is refused"
        );
    }
}
