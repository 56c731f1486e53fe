//! Guix's signatures: `Signature: 1;HOST;BASE64` over the text of the narinfo above it.
//!
//! BASE64 is an s-expression in libgcrypt's advanced form, `(signature (data (flags rfc6979) (hash
//! sha256 HASH)) (sig-val (ecdsa (r R) (s S))) (public-key ...))`; for RSA the flags are `pkcs1`
//! and the value is `(rsa (s S))`. HOST is not signed and means nothing. Guix carries the
//! s-expression as a string of characters: a byte above 0x7f, which about one of 5,000 signatures
//! contains, is a Latin-1 character written as UTF-8.
//!
//! The signed text ends before the first `Signature:`, wherever that is. `StorePath`, `NarHash`
//! and `References` must be inside, otherwise the narinfo counts as unsigned; so must `NarSize`
//! here, which Guix's own programs always sign, since it bounds what is written to disk.

mod ecdsa;
pub(super) mod key;
pub mod signing;
#[cfg(test)]
mod tests;

use data_encoding::BASE64;
use sha2::{Digest, Sha256};

pub use key::{KeyError, PublicKey};

use key::Examined;

use super::acl::Acl;
use super::verdict::Refusal;
use crate::format::narinfo::NarInfo;
use crate::format::sexp::Sexp;

/// For each of `narinfos` the authorized key that has signed it.
pub(super) fn check_all<'a, 'n>(
    narinfos: impl Iterator<Item = &'n NarInfo>,
    acl: &'a Acl,
) -> Vec<Result<&'a PublicKey, Refusal>> {
    let mut equations = Vec::new();
    let examined: Vec<_> = narinfos
        .map(|narinfo| {
            let (key, examined) = examine(narinfo, acl)?;
            let decided = match examined {
                Examined::Decided(is_valid) => Some(is_valid),
                Examined::Open(equation) => {
                    equations.push(equation);
                    None
                }
            };
            Ok((key, decided))
        })
        .collect();

    // One result for each equation, in their order.
    let mut results = ecdsa::which_hold(&equations).into_iter();
    let verdicts = examined.into_iter().map(|examined| {
        let (key, decided) = examined?;
        match decided.or_else(|| results.next()) {
            Some(true) => Ok(key),
            _ => Err(Refusal::InvalidSignature),
        }
    });
    verdicts.collect()
}

/// The authorized key that `narinfo` claims to be signed by, and what remains to be verified.
fn examine<'a>(narinfo: &NarInfo, acl: &'a Acl) -> Result<(&'a PublicKey, Examined<'a>), Refusal> {
    let (Some(text), Some(line)) = (narinfo.signed_text(), narinfo.guix_signature()) else {
        return Err(Refusal::Unsigned);
    };
    if !narinfo.describes_item_within(text.len()) {
        return Err(Refusal::Unsigned);
    }
    let signature = parse_line(line).map_err(|why| Refusal::CorruptSignature { why })?;
    let claim =
        ParsedSignature::of(&signature).ok_or(Refusal::CorruptSignature { why: NO_SIGNATURE })?;
    let key = acl.key(claim.key).ok_or_else(|| Refusal::UnauthorizedKey {
        key: key::key_id(claim.key),
    })?;
    let hash: [u8; 32] = Sha256::digest(text).into();
    // ECDSA on this curve ignores three bits of the hash; this comparison does not.
    if claim.hash != hash {
        return Err(Refusal::SignedHashMismatch);
    }
    let examined = key.examine(claim.flags, claim.value, text.as_bytes(), &hash);
    let why = "it is not of the kind of its key";
    Ok((key, examined.ok_or(Refusal::CorruptSignature { why })?))
}

const NO_SIGNATURE: &str = "it has no hash, value and key";

/// The parts of a Guix signature.
struct ParsedSignature<'s> {
    flags: &'s [u8],
    hash: &'s [u8],
    value: &'s Sexp,
    key: &'s Sexp,
}

impl<'s> ParsedSignature<'s> {
    fn of(signature: &'s Sexp) -> Option<Self> {
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

/// The s-expression in the value of a `Signature` field, or why there is none.
fn parse_line(line: &str) -> Result<Sexp, &'static str> {
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
