//! The authorized keys: Guix's ACL, or Nix's list.
//!
//! An ACL is `(acl ENTRY ...)`, and only `(entry (public-key ...) (tag (guix import)))`
//! authorizes. Guix gives up on the whole file when one entry has another tag; here such an
//! entry authorizes nothing and is kept when the file is written again, and so is a key that is not
//! supported or too weak: [`Acl::unusable_keys`] lists the latter. A missing file is the same as an
//! empty one: no key is authorized.

use std::fmt;
use std::sync::Arc;

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

use super::guix::{KeyError, PublicKey, key_id};
use super::key_names::guix_short_name;
use super::nix::{TrustedKey, TrustedKeys};
use super::signer::{SignatureScope, Signer};
use crate::format::sexp::{Sexp, SexpError};

/// The keys whose signatures are accepted.
#[derive(Debug, Clone)]
pub enum AuthorizedKeys {
    /// Guix signatures by the keys of an ACL.
    Guix(Acl),
    /// Nix signatures by named keys.
    Nix(TrustedKeys),
    /// No signature is required: the user has switched authentication off.
    AllowUnauthenticated,
}

impl AuthorizedKeys {
    /// A digest of the authorized keys, and of which signatures are examined. A cached refusal is
    /// valid as long as it stays the same.
    #[must_use]
    pub(crate) fn fingerprint(&self, scope: SignatureScope) -> String {
        let (kind, mut ids): (&str, Vec<&str>) = match self {
            Self::Guix(acl) => (
                match scope {
                    SignatureScope::First => "guix",
                    SignatureScope::All => "guix, all signatures",
                },
                acl.keys().map(|key| &**key.id()).collect(),
            ),
            Self::Nix(keys) => (
                "nix, content addresses",
                keys.iter().map(|key| &**key.id()).collect(),
            ),
            Self::AllowUnauthenticated => ("anyone", Vec::new()),
        };
        ids.sort_unstable();
        let mut digest = Sha256::new_with_prefix(kind);

        for id in ids {
            digest.update([0]);
            digest.update(id);
        }

        HEXLOWER.encode(&digest.finalize())
    }

    /// The authorized key with this id.
    pub(super) fn signer(&self, id: &str) -> Option<Signer> {
        match self {
            Self::Guix(acl) => find_id(acl.keys().map(PublicKey::id), id).map(Signer::GuixKey),
            Self::Nix(keys) => find_id(keys.iter().map(TrustedKey::id), id).map(Signer::NixKey),
            Self::AllowUnauthenticated => Some(Signer::Unauthenticated),
        }
    }
}

fn find_id<'a>(mut ids: impl Iterator<Item = &'a Arc<str>>, wanted: &str) -> Option<Arc<str>> {
    ids.find(|id| ***id == *wanted).cloned()
}

/// Why a text is not an ACL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AclError {
    /// Not an s-expression.
    #[error("the ACL cannot be read")]
    Sexp(#[from] SexpError),
    /// An s-expression that is not an ACL.
    #[error("not an ACL, which is a list that begins with `acl`")]
    Shape,
}

/// Guix's list of authorized keys; the default is empty.
#[derive(Debug, Clone, Default)]
pub struct Acl {
    entries: Vec<AclEntry>,
}

#[derive(Debug, Clone)]
struct AclEntry {
    sexp: Sexp,
    key: EntryKey,
}

#[derive(Debug, Clone)]
enum EntryKey {
    /// The entry authorizes this key.
    Authorized(PublicKey),
    /// The entry would authorize a key, which cannot be used.
    Unusable(UnusableKey),
    /// The entry authorizes no key.
    None,
}

/// A key in an ACL whose signatures are not accepted.
#[derive(Debug, Clone)]
pub struct UnusableKey {
    id: String,
    /// Why it cannot be used.
    pub why: KeyError,
}

impl UnusableKey {
    /// A text that identifies the key, as [`PublicKey::id`].
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The first digits that identify the key, as [`PublicKey::short_name`].
    #[must_use]
    pub fn short_name(&self) -> &str {
        guix_short_name(&self.id)
    }
}

impl Acl {
    /// Parses an ACL file.
    ///
    /// # Errors
    /// `text` is not a list that begins with `acl`.
    pub fn parse(text: &[u8]) -> Result<Self, AclError> {
        let sexp = Sexp::parse(text)?;
        let entries = sexp.behind_tag("acl").ok_or(AclError::Shape)?;
        let entries = entries.iter().map(|sexp| AclEntry {
            key: entry_key(sexp).unwrap_or(EntryKey::None),
            sexp: sexp.clone(),
        });

        Ok(Self {
            entries: entries.collect(),
        })
    }

    /// The keys of ci.guix.gnu.org and bordeaux.guix.gnu.org, which are part of Guix.
    #[must_use]
    pub fn official_guix_servers() -> Self {
        let mut acl = Self::default();
        for (_, q) in OFFICIAL_KEYS {
            let text = format!("(public-key (ecc (curve Ed25519) (q #{q}#)))");
            let key = PublicKey::parse(text.as_bytes());
            acl.authorize(key.expect("the official keys are points of the curve"));
        }

        acl
    }

    /// The official server whose key has this [`PublicKey::id`].
    #[must_use]
    pub(crate) fn official_guix_server(id: &str) -> Option<&'static str> {
        let digits = id.strip_prefix("ecc:")?;
        let found = OFFICIAL_KEYS.iter().find(|(_, q)| *q == digits);
        found.map(|(server, _)| *server)
    }

    /// Whether no key is authorized.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys().next().is_none()
    }

    /// Whether `key`, a `(public-key ...)`, is authorized, in whatever notation it was written.
    #[must_use]
    pub fn contains(&self, key: &Sexp) -> bool {
        self.key(key).is_some()
    }

    /// Authorizes `key`; `false` if it was authorized already.
    pub fn authorize(&mut self, key: PublicKey) -> bool {
        if self.contains(key.as_sexp()) {
            return false;
        }

        let tag = Sexp::tagged("tag", [Sexp::tagged("guix", [Sexp::atom("import")])]);
        let sexp = Sexp::tagged("entry", [key.as_sexp().clone(), tag]);
        self.entries.push(AclEntry {
            sexp,
            key: EntryKey::Authorized(key),
        });

        true
    }

    /// Removes every entry that authorizes the key with this [`PublicKey::id`], or would; `false` if
    /// there is none.
    pub fn remove(&mut self, id: &str) -> bool {
        let count = self.entries.len();
        self.entries.retain(|entry| match &entry.key {
            EntryKey::Authorized(key) => **key.id() != *id,
            EntryKey::Unusable(key) => key.id != id,
            EntryKey::None => true,
        });
        self.entries.len() < count
    }

    /// The authorized keys.
    pub fn keys(&self) -> impl Iterator<Item = &PublicKey> {
        self.entries.iter().filter_map(|entry| match &entry.key {
            EntryKey::Authorized(key) => Some(key),
            EntryKey::Unusable(_) | EntryKey::None => None,
        })
    }

    /// The keys that entries would authorize, but that are not supported or too weak.
    pub fn unusable_keys(&self) -> impl Iterator<Item = &UnusableKey> {
        self.entries.iter().filter_map(|entry| match &entry.key {
            EntryKey::Unusable(key) => Some(key),
            EntryKey::Authorized(_) | EntryKey::None => None,
        })
    }

    /// The authorized key equal to `sexp`.
    pub(super) fn key(&self, sexp: &Sexp) -> Option<&PublicKey> {
        self.keys().find(|key| key.as_sexp() == sexp)
    }

    /// The key with this id, if an entry would authorize it and it cannot be used.
    pub(super) fn unusable_key(&self, id: &str) -> Option<&UnusableKey> {
        self.unusable_keys().find(|key| key.id == id)
    }
}

/// The text of an ACL file, with every entry of the one it was parsed from.
impl fmt::Display for Acl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = self.entries.iter().map(|entry| entry.sexp.clone());
        writeln!(f, "{}", Sexp::tagged("acl", entries))
    }
}

/// Guix's official servers, and the q of their keys.
const OFFICIAL_KEYS: [(&str, &str); 2] = [
    (
        "ci.guix.gnu.org",
        "8D156F295D24B0D9A86FA5741A840FF2D24F60F7B6C4134814AD55625971B394",
    ),
    (
        "bordeaux.guix.gnu.org",
        "7D602902D3A2DBB83F8A0FB98602A754C5493B0B778C8D1DD4E0F41DE14DE34F",
    ),
];

/// The key of an entry that authorizes one, or would.
fn entry_key(entry: &Sexp) -> Option<EntryKey> {
    let [key, tag] = entry.exactly("entry")?;
    let [import] = tag.exactly("tag")?;
    if import.atom_behind_tag("guix")? != b"import" {
        return None;
    }

    Some(match PublicKey::from_sexp(key.clone()) {
        Ok(key) => EntryKey::Authorized(key),
        Err(why) => EntryKey::Unusable(UnusableKey {
            id: key_id(key),
            why,
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY_A: &[u8] = include_bytes!("../../fixtures/signatures/vector-a.pub");
    const KEY_B: &[u8] = include_bytes!("../../fixtures/signatures/vector-b.pub");

    fn sexp(text: &[u8]) -> Sexp {
        Sexp::parse(text).unwrap()
    }

    fn acl(text: &str) -> Acl {
        Acl::parse(text.as_bytes()).unwrap()
    }

    fn key(text: &[u8]) -> String {
        String::from_utf8(text.to_vec()).unwrap()
    }

    #[test]
    fn authorizes_the_keys_with_the_import_tag_only() {
        let (a, b) = (key(KEY_A), key(KEY_B));
        for entry in [
            format!("(entry {a})"),
            format!("(entry {a} (tag (guix export)))"),
            format!("(entry {a} (tag (guix import archive)))"),
            format!("(entry {a} (tag guix import))"),
            format!("(entry {a} (tag (guix import)) (x))"),
            format!("(entry (tag (guix import)) {a})"),
            format!("(other {a} (tag (guix import)))"),
            a.clone(),
            "x".into(),
        ] {
            let acl = acl(&format!("(acl {entry} (entry {b} (tag (guix import))))"));
            assert!(!acl.contains(&sexp(KEY_A)), "{entry}");
            assert!(
                acl.contains(&sexp(KEY_B)),
                "one entry must not spoil another: {entry}"
            );
            assert_eq!(
                sexp(acl.to_string().as_bytes())
                    .behind_tag("acl")
                    .unwrap()
                    .len(),
                2
            );
        }
    }

    #[test]
    fn keys_that_cannot_be_used_authorize_nothing_and_are_kept() {
        let short = format!("(rsa (n #{}#) (e #010001#))", "FF".repeat(255));
        let off_curve = format!("(ecc (curve Ed25519) (q #02{}#))", "00".repeat(31));
        for key in [
            "(dsa (p #01#))",
            "(ecc (curve Ed25519) (q #00#))",
            "(ecc (curve ed25519) (q #E8E85766778A8A683F8F062D327949489DBD79066BF0A35476D4B4CC55940B07#))",
            &short,
            &off_curve,
        ] {
            let text = format!("(acl (entry (public-key {key}) (tag (guix import))))");
            let acl = acl(&text);
            assert!(acl.is_empty(), "{key}");
            assert_eq!(acl.unusable_keys().count(), 1, "{key}");
            assert_eq!(sexp(acl.to_string().as_bytes()), sexp(text.as_bytes()));
        }
    }

    #[test]
    fn authorizing_is_done_once_and_written() {
        let mut acl = Acl::default();
        assert!(acl.is_empty());
        assert!(acl.authorize(PublicKey::parse(KEY_A).unwrap()));
        assert!(!acl.authorize(PublicKey::parse(KEY_A).unwrap()));
        let again = Acl::parse(acl.to_string().as_bytes()).unwrap();
        assert!(again.contains(&sexp(KEY_A)) && !again.contains(&sexp(KEY_B)));
        assert_eq!(again.to_string(), acl.to_string());
    }

    #[test]
    fn removing_a_key_keeps_the_other_entries() {
        let (a, b) = (key(KEY_A), key(KEY_B));
        let tag = "(tag (guix import))";
        let text = format!("(acl (entry {a} {tag}) (entry {b} {tag}) (entry {a} {tag}) (x))");
        let mut acl = acl(&text);
        let id = PublicKey::parse(KEY_A).unwrap().id().to_string();
        assert!(acl.remove(&id));
        assert!(!acl.remove(&id));
        let kept = format!("(acl (entry {b} {tag}) (x))");
        assert_eq!(sexp(acl.to_string().as_bytes()), sexp(kept.as_bytes()));

        let unusable = "(acl (entry (public-key (dsa (p #01#))) (tag (guix import))))";
        let mut acl = Acl::parse(unusable.as_bytes()).unwrap();
        let id = acl.unusable_keys().next().unwrap().id().to_owned();
        assert!(acl.remove(&id));
        assert_eq!(acl.unusable_keys().count(), 0);
    }

    #[test]
    fn spelling_does_not_matter() {
        let lower = key(KEY_A)
            .to_lowercase()
            .replace("ed25519", "\"Ed25519\"")
            .replace('\n', " ");
        let acl = acl(&format!("(acl(entry{lower}(tag(#67756978#|aW1wb3J0|))))"));
        assert!(acl.contains(&sexp(KEY_A)));
    }

    #[test]
    fn knows_the_official_servers() {
        let acl = Acl::official_guix_servers();
        let names: Vec<_> = acl.keys().map(PublicKey::short_name).collect();
        assert_eq!(names, ["8D156F295D24B0D9", "7D602902D3A2DBB8"]);
    }

    #[test]
    fn refuses_what_is_no_acl() {
        assert_eq!(Acl::parse(KEY_A).unwrap_err(), AclError::Shape);
        assert_eq!(Acl::parse(b"acl").unwrap_err(), AclError::Shape);
        assert!(matches!(Acl::parse(b"").unwrap_err(), AclError::Sexp(_)));
        assert!(Acl::parse(b"(acl)").unwrap().is_empty());
    }

    #[test]
    fn an_empty_acl_differs_from_switched_off_authentication() {
        let id = "ecc:E8E85766778A8A683F8F062D327949489DBD79066BF0A35476D4B4CC55940B07";
        let empty = AuthorizedKeys::Guix(Acl::default());
        assert_eq!(empty.signer(id), None);
        let off = AuthorizedKeys::AllowUnauthenticated;
        assert_eq!(off.signer(id), Some(Signer::Unauthenticated));

        let mut acl = Acl::default();
        acl.authorize(PublicKey::parse(KEY_A).unwrap());
        let keys = AuthorizedKeys::Guix(acl);
        assert!(keys.signer(id).is_some() && keys.signer("").is_none());
    }
}
