//! Nix's signatures: `Sig: NAME:BASE64`, Ed25519 over a fingerprint of what is described.
//!
//! The fingerprint is `1;STOREPATH;sha256:NARHASH;NARSIZE;REF,REF...`, the hash in nix-base32
//! however the narinfo spells it, references as full names, sorted and each once. Keys are found
//! by name, of which two may share one; verification is strict. One valid signature suffices,
//! and those that cannot be read are passed over as long as another one is valid. As for Nix, the
//! `=` at the end of base64 may be missing, in keys and in signatures.

pub mod signing;

use std::fmt::Write;
use std::sync::Arc;

use data_encoding::BASE64;
use ed25519_dalek::{Signature, VerifyingKey};

use super::refusal::Refusal;
use super::signer::{SignatureScope, Signer, Signers};
use crate::format::base64;
use crate::format::escape::clip;
use crate::format::narinfo::NarInfo;
use crate::format::store_path::{StoreDir, StorePathRef};

/// The key of cache.nixos.org, which is part of Nix.
pub const OFFICIAL_KEY: &str = "cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=";

/// Why a text in a list of keys is not a key that can be trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustedKeyError {
    /// The text does not have the form of a key.
    #[error("`{}` is not a public key of the form NAME:BASE64", .0.escape_debug())]
    Syntax(String),
    /// The bytes of the key with this name are not a point of the curve.
    #[error("the key `{}` is not a point of the curve Ed25519", .0.escape_debug())]
    Point(String),
    /// The bytes of the key with this name are another notation of a point than the allowed one.
    #[error("the key `{}` is not the only allowed notation of its point of the curve Ed25519", .0.escape_debug())]
    Notation(String),
    /// The point of the key with this name has a small order.
    #[error("the key `{}` is a point of small order, for which anyone can make signatures", .0.escape_debug())]
    SmallOrder(String),
}

/// A public key with its name.
#[derive(Debug, Clone)]
pub struct TrustedKey {
    name: Arc<str>,
    id: Arc<str>,
    key: VerifyingKey,
}

impl TrustedKey {
    /// The name that signatures refer to, such as `cache.nixos.org-1`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `NAME:BASE64`, with padding, which identifies the key.
    #[must_use]
    pub fn id(&self) -> &Arc<str> {
        &self.id
    }

    fn parse(text: &str) -> Result<Self, TrustedKeyError> {
        let parts = text.split_once(':').filter(|(name, _)| !name.is_empty());
        let parts = parts.and_then(|(name, digits)| Some((name, base64::decode(digits)?)));
        let (name, bytes) = parts.ok_or_else(|| TrustedKeyError::Syntax(text.to_owned()))?;

        let key = VerifyingKey::from_bytes(&bytes)
            .map_err(|_| TrustedKeyError::Point(name.to_owned()))?;
        if key.is_weak() {
            return Err(TrustedKeyError::SmallOrder(name.to_owned()));
        }
        if key.to_edwards().compress().to_bytes() != bytes {
            return Err(TrustedKeyError::Notation(name.to_owned()));
        }

        Ok(Self {
            name: name.into(),
            id: format!("{name}:{}", BASE64.encode(&bytes)).into(),
            key,
        })
    }
}

/// The authorized keys.
#[derive(Debug, Clone)]
pub struct TrustedKeys(Vec<TrustedKey>);

impl TrustedKeys {
    /// Parses a blank-separated list, as in `nix.conf`. An empty list authorizes no key.
    ///
    /// # Errors
    /// A part of the list is not a key, or one that anyone can sign for.
    pub fn parse(list: &str) -> Result<Self, TrustedKeyError> {
        let keys = list.split_ascii_whitespace().map(TrustedKey::parse);
        keys.collect::<Result<_, _>>().map(Self)
    }

    /// The key of cache.nixos.org.
    #[must_use]
    pub fn official_nix_server() -> Self {
        Self::parse(OFFICIAL_KEY).expect("the official key is well formed")
    }

    /// Whether no key is authorized.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The keys, in the order given.
    pub fn iter(&self) -> impl Iterator<Item = &TrustedKey> {
        self.0.iter()
    }
}

/// The text that a signature of `narinfo` covers: its description in canonical form.
#[must_use]
pub fn fingerprint(narinfo: &NarInfo, store_dir: &StoreDir) -> String {
    let mut references: Vec<_> = narinfo.references().map(StorePathRef::base).collect();
    references.sort_unstable();
    references.dedup();
    let dir = store_dir.as_str();
    let mut text = String::with_capacity(
        256 + references
            .iter()
            .map(|name| dir.len() + name.len() + 2)
            .sum::<usize>(),
    );
    let path = narinfo.store_path();
    write!(
        text,
        "1;{dir}/{path};{};{};",
        narinfo.nar_hash(),
        narinfo.nar_size()
    )
    .expect("a String takes everything");

    for (position, name) in references.into_iter().enumerate() {
        text.push_str(if position > 0 { "," } else { "" });
        text.push_str(dir);
        text.push('/');
        text.push_str(name);
    }

    text
}

/// The authorized keys that have signed `narinfo`, the first of them or all; without any, the refusal
/// of the signature that comes closest to being valid.
pub(super) fn check(
    narinfo: &NarInfo,
    keys: &TrustedKeys,
    store_dir: &StoreDir,
    scope: SignatureScope,
) -> Result<Signers, Refusal> {
    let fingerprint = fingerprint(narinfo, store_dir);
    let mut result = Err(Refusal::Unsigned);
    for text in narinfo.nix_signatures() {
        match (check_one(text, &fingerprint, keys), &mut result) {
            (Ok(key), Ok(signers)) => Signers::add(signers, Signer::NixKey(Arc::clone(key.id()))),
            (Ok(key), Err(_)) => result = Ok(Signers::one(Signer::NixKey(Arc::clone(key.id())))),
            (Err(other), Err(refusal)) if weight(&other) > weight(refusal) => *refusal = other,
            (Err(_), _) => {}
        }
        if result.is_ok() && scope == SignatureScope::First {
            break;
        }
    }

    result
}

fn check_one<'a>(
    signature: &str,
    fingerprint: &str,
    keys: &'a TrustedKeys,
) -> Result<&'a TrustedKey, Refusal> {
    let (name, digits) = signature.split_once(':').ok_or(Refusal::CorruptSignature {
        why: "it has no key name",
    })?;
    let mut named = keys.iter().filter(|key| *key.name == *name).peekable();
    if named.peek().is_none() {
        return Err(Refusal::UnauthorizedKey {
            key: clip(name, NAME_BYTES_MAX).to_owned(),
        });
    }

    let bytes = base64::decode(digits.trim_ascii_end()).ok_or(Refusal::CorruptSignature {
        why: "it is not 64 bytes in base64",
    })?;
    let signature = Signature::from_bytes(&bytes);
    let signer = named.find(|key| {
        key.key
            .verify_strict(fingerprint.as_bytes(), &signature)
            .is_ok()
    });

    signer.ok_or(Refusal::InvalidSignature)
}

/// A refusal quotes at most this many bytes of a key's name.
const NAME_BYTES_MAX: usize = 128;

fn weight(refusal: &Refusal) -> u8 {
    match refusal {
        Refusal::InvalidSignature => 3,
        Refusal::CorruptSignature { .. } => 2,
        Refusal::UnauthorizedKey { .. } => 1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::{Signer as _, SigningKey};

    const ITEM: &str = "0f9qzp1g3jy45al4zspzqah9f8d5bisp-a";
    const OTHER: &str = "8yrx9brcs5jjh07qvgl5i9dg7kvn60m4-b";
    const HASH: &str = "sha256:01axkqflwrksipzgihrmiihc1xbk4bqvq4q0b3dcvf217ygqdgg8";

    fn dir() -> StoreDir {
        StoreDir::parse(StoreDir::NIX).unwrap()
    }

    fn narinfo(signatures: &[&str]) -> NarInfo {
        let mut text = format!(
            "StorePath: /nix/store/{ITEM}\nURL: x\nNarHash: {HASH}\nNarSize: 7\n\
             References: {OTHER} {ITEM} {OTHER}\n"
        );
        signatures
            .iter()
            .for_each(|signature| writeln!(text, "Sig: {signature}").unwrap());
        NarInfo::parse(text, &dir()).unwrap()
    }

    fn signing_key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    fn key(name: &str, seed: u8) -> String {
        let public = signing_key(seed).verifying_key();
        format!("{name}:{}", BASE64.encode(public.as_bytes()))
    }

    fn sign(name: &str, seed: u8) -> String {
        let fingerprint = fingerprint(&narinfo(&[]), &dir());
        let signature = signing_key(seed).sign(fingerprint.as_bytes());
        format!("{name}:{}", BASE64.encode(&signature.to_bytes()))
    }

    fn verdict(signatures: &[&str], keys: &str) -> Result<String, Refusal> {
        let keys = TrustedKeys::parse(keys).unwrap();
        let signers = check(&narinfo(signatures), &keys, &dir(), SignatureScope::First);
        signers.map(|signers| signers.first().display_name().to_owned())
    }

    #[test]
    fn the_fingerprint_has_sorted_full_names() {
        let expected = format!("1;/nix/store/{ITEM};{HASH};7;/nix/store/{ITEM},/nix/store/{OTHER}");
        assert_eq!(fingerprint(&narinfo(&[]), &dir()), expected);
    }

    #[test]
    fn one_valid_signature_suffices() {
        let (good, wrong) = (sign("a", 1), sign("a", 2));
        let keys = key("a", 1);
        for signatures in [
            &[&*good][..],
            &["nonsense", "a:!", "a:AAAA", "b:AAAA", &wrong, &good, &wrong],
        ] {
            assert_eq!(verdict(signatures, &keys), Ok("a".into()));
        }
    }

    /// Nix does not need the `=` at the end of base64.
    #[test]
    fn signatures_and_keys_need_no_padding() {
        let (signature, key) = (sign("a", 1), key("a", 1));
        let (plain, plain_key) = (signature.trim_end_matches('='), key.trim_end_matches('='));
        assert!(plain.len() < signature.len() && plain_key.len() < key.len());
        for (signature, key) in [(plain, &*key), (&signature, plain_key), (plain, plain_key)] {
            assert_eq!(verdict(&[signature], key), Ok("a".into()));
        }
        let more = format!("{signature}=");
        assert!(verdict(&[&more], &key).is_err());
    }

    /// Such keys verify signatures that anyone can make, or none.
    #[test]
    fn keys_of_small_order_are_refused() {
        let points = curve25519_dalek::constants::EIGHT_TORSION;
        for point in points.map(|point| point.compress().to_bytes()) {
            let key = format!("weak-1:{}", BASE64.encode(&point));
            let error = TrustedKeys::parse(&key).unwrap_err().to_string();
            assert!(error.contains("weak-1"), "{error}");
            assert!(error.contains("small order"), "{error}");
        }
    }

    /// As for Nix, which refuses what such keys have signed: else one key would be two.
    #[test]
    fn each_point_has_a_single_notation() {
        let is_refused = |y: u8| {
            let mut bytes = [0xff; 32];
            (bytes[0], bytes[31]) = (0xed + y, 0x7f);
            let error = TrustedKeys::parse(&format!("a-1:{}", BASE64.encode(&bytes))).unwrap_err();
            error == TrustedKeyError::Notation("a-1".into())
        };
        assert!((2..19).any(is_refused));
    }

    #[test]
    fn two_keys_may_share_a_name() {
        let keys = format!(" {}\n\t{} ", key("a", 1), key("a", 2));
        assert_eq!(verdict(&[&sign("a", 2)], &keys), Ok("a".into()));
        assert_eq!(
            verdict(&[&sign("a", 3)], &keys),
            Err(Refusal::InvalidSignature)
        );
    }

    #[test]
    fn the_most_telling_refusal_is_given() {
        let corrupt = |why| Err(Refusal::CorruptSignature { why });
        let unauthorized = Err(Refusal::UnauthorizedKey { key: "b".into() });
        let (other, wrong) = (sign("b", 1), sign("a", 2));
        let keys = key("a", 1);
        assert_eq!(verdict(&[], &keys), Err(Refusal::Unsigned));
        assert_eq!(verdict(&["x"], &keys), corrupt("it has no key name"));
        assert_eq!(verdict(&[&other], &keys), unauthorized);
        assert_eq!(
            verdict(&[&other, "a:AAAA"], &keys),
            corrupt("it is not 64 bytes in base64")
        );
        assert_eq!(
            verdict(&[&wrong, &other, "a:!"], &keys),
            Err(Refusal::InvalidSignature)
        );
        assert_eq!(
            verdict(&[&sign("a", 1)], ""),
            Err(Refusal::UnauthorizedKey { key: "a".into() })
        );
    }

    #[test]
    fn every_flipped_bit_of_what_is_covered_is_refused() {
        let keys = TrustedKeys::parse(&key("a", 1)).unwrap();
        let narinfo = narinfo(&[&sign("a", 1)]);
        let (text, url) = (narinfo.text(), narinfo.text().find("URL").unwrap());
        let mut accepted = 0;
        for bit in 0..text.len() * 8 {
            let mut bytes = text.as_bytes().to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let Ok(flipped) = String::from_utf8(bytes) else {
                continue;
            };
            let Ok(flipped) = NarInfo::parse(flipped, &dir()) else {
                continue;
            };
            if check(&flipped, &keys, &dir(), SignatureScope::First).is_ok() {
                let is_url_line = (url..url + "URL: x\n".len()).contains(&(bit / 8));
                assert!(is_url_line || flipped.is_equivalent(&narinfo), "bit {bit}");
                accepted += 1;
            }
        }
        assert!(accepted > 0, "the URL is not covered");
    }

    #[test]
    fn refuses_what_is_no_key() {
        for text in [
            "a",
            "a:",
            ":AAAA",
            "a:AAAA",
            "a:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY==",
        ] {
            assert_eq!(
                TrustedKeys::parse(text).unwrap_err(),
                TrustedKeyError::Syntax(text.into())
            );
        }
        let official = TrustedKeys::official_nix_server();
        assert_eq!(official.iter().next().unwrap().name(), "cache.nixos.org-1");
        assert!(TrustedKeys::parse(" \n").unwrap().is_empty());
    }
}
