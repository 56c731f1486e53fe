//! The parts of a signature, and which authorized keys have made those of a narinfo.

use std::sync::Arc;

use data_encoding::BASE64;
use sha2::{Digest, Sha256};

use super::ecdsa::{self, Equation};
use super::key::{Examined, PublicKey, key_id};
use crate::format::narinfo::NarInfo;
use crate::format::sexp::Sexp;
use crate::trust::acl::Acl;
use crate::trust::refusal::Refusal;
use crate::trust::signer::{SignatureScope, Signer, Signers};

/// For each of `narinfos` the authorized keys that have signed it; without any, the refusal of its
/// first signature.
pub(in crate::trust) fn check_all<'n>(
    narinfos: impl Iterator<Item = &'n NarInfo>,
    acl: &Acl,
    scope: SignatureScope,
) -> Vec<Result<Signers, Refusal>> {
    let mut equations = Vec::new();
    let mut examined = Vec::new();
    for narinfo in narinfos {
        let first = examine(narinfo, narinfo.guix_signature(), acl, &mut equations);
        examined.push((Place::NextNarInfo, first));
        let further = (scope == SignatureScope::All).then(|| narinfo.guix_signatures().skip(1));
        for line in further.into_iter().flatten() {
            let other = examine(narinfo, Some(line), acl, &mut equations);
            examined.push((Place::SameNarInfo, other));
        }
    }

    // One result for each equation, in their order.
    let mut results = ecdsa::which_hold(&equations).into_iter();
    let mut verdicts: Vec<Result<Signers, Refusal>> = Vec::new();
    for (place, examined) in examined {
        let signer = examined.and_then(|(key, decided)| match decided.or_else(|| results.next()) {
            Some(true) => Ok(Signer::GuixKey(Arc::clone(key.id()))),
            _ => Err(Refusal::InvalidSignature),
        });
        match (place, verdicts.last_mut(), signer) {
            (Place::SameNarInfo, Some(Ok(signers)), Ok(signer)) => signers.add(signer),
            (Place::SameNarInfo, Some(verdict), Ok(signer)) => *verdict = Ok(Signers::one(signer)),
            (Place::SameNarInfo, _, Err(_)) => {}
            (_, _, signer) => verdicts.push(signer.map(Signers::one)),
        }
    }
    verdicts
}

/// Which narinfo a signature belongs to.
#[derive(Clone, Copy)]
enum Place {
    NextNarInfo,
    SameNarInfo,
}

/// The authorized key that the signature in `line` claims to be by, and whether it is, if that does not
/// follow from the equation that is added to `equations`.
fn examine<'a>(
    narinfo: &NarInfo,
    line: Option<&str>,
    acl: &'a Acl,
    equations: &mut Vec<Equation<'a>>,
) -> Result<(&'a PublicKey, Option<bool>), Refusal> {
    let (Some(text), Some(line)) = (narinfo.signed_text(), line) else {
        return Err(Refusal::Unsigned);
    };
    if !narinfo.describes_item_within(text.len()) {
        return Err(Refusal::Unsigned);
    }

    let signature = parse_line(line).map_err(|why| Refusal::CorruptSignature { why })?;
    let claim =
        ParsedSignature::of(&signature).ok_or(Refusal::CorruptSignature { why: NO_SIGNATURE })?;
    let key = acl
        .key(claim.key)
        .ok_or_else(|| not_authorized(acl, claim.key))?;
    let hash: [u8; 32] = Sha256::digest(text).into();
    // ECDSA on this curve ignores three bits of the hash; this comparison does not.
    if claim.hash != hash {
        return Err(Refusal::SignedHashMismatch);
    }

    let examined = key.examine(claim.flags, claim.value, text.as_bytes(), &hash);
    let why = "it is not of the kind of its key";
    match examined.ok_or(Refusal::CorruptSignature { why })? {
        Examined::Decided(is_valid) => Ok((key, Some(is_valid))),
        Examined::Open(equation) => {
            equations.push(equation);
            Ok((key, None))
        }
    }
}

/// Why `key` is not one of the authorized keys.
fn not_authorized(acl: &Acl, key: &Sexp) -> Refusal {
    let key = key_id(key);
    match acl.unusable_key(&key) {
        Some(unusable) => Refusal::UnusableKey {
            key: unusable.short_name().to_owned(),
            why: unusable.why.clone(),
        },
        None => Refusal::UnauthorizedKey { key },
    }
}

const NO_SIGNATURE: &str = "it has no hash, value and key";

/// The parts of a Guix signature.
pub(super) struct ParsedSignature<'s> {
    pub(super) flags: &'s [u8],
    pub(super) hash: &'s [u8],
    pub(super) value: &'s Sexp,
    pub(super) key: &'s Sexp,
}

impl<'s> ParsedSignature<'s> {
    /// The parts of `signature`; `None` if it is not of the shape of a signature.
    pub(super) fn of(signature: &'s Sexp) -> Option<Self> {
        let [data, value, key] = signature.exactly("signature")?;
        let [flags, hash] = data.exactly("data")?;
        let [algorithm, hash] = hash.exactly("hash")?;
        if algorithm.as_atom()? != b"sha256" {
            return None;
        }

        key.behind_tag("public-key")?;
        Some(Self {
            flags: flags.atom_behind_tag("flags")?,
            hash: hash.as_atom()?,
            value,
            key,
        })
    }
}

/// The longest value of a `Signature` field, in bytes: real ones have 900, or 3,000 with RSA.
const SIGNATURE_BYTES_MAX: usize = 16 << 10;

/// The s-expression in the value of a `Signature` field, or why there is none.
pub(super) fn parse_line(line: &str) -> Result<Sexp, &'static str> {
    if line.len() > SIGNATURE_BYTES_MAX {
        return Err("it is too long");
    }

    let mut parts = line.trim_ascii().split(';');
    let (Some(version), Some(_host), Some(base64), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err("it does not have three parts");
    };
    if version != "1" {
        return Err("its version is not 1");
    }

    let utf8 = BASE64
        .decode(base64.as_bytes())
        .map_err(|_| "it is not in base64")?;
    let latin1 = latin1(&utf8).ok_or("it is not Latin-1 text in UTF-8")?;
    Sexp::parse(&latin1).map_err(|_| "it is not an s-expression")
}

/// One byte for each character of the text.
fn latin1(utf8: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(utf8).ok()?;
    text.chars()
        .map(|character| u8::try_from(character).ok())
        .collect()
}
