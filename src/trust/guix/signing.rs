//! Signing narinfos as `guix publish` does.
//!
//! The nonce follows RFC 6979 with HMAC-SHA256, so signatures are the same as libgcrypt's. Nothing
//! here protects a key against side channels on the same machine: do not sign where users that you
//! do not trust run programs.

use std::fmt;

use curve25519_dalek::{EdwardsPoint, Scalar};
use data_encoding::BASE64;
use ring::hmac;
use sha2::{Digest, Sha256};

use super::ecdsa::{hash_to_scalar, shift_right_3, xs_mod_n};
use crate::format::sexp::{Sexp, SexpError};

/// Why a text is not a private key that can sign. It quotes nothing of the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SigningKeyError {
    /// Not an s-expression.
    #[error("the key cannot be read")]
    Sexp(#[from] SexpError),
    /// Another s-expression, such as a public key, or another kind of key.
    #[error("not a private key on the curve Ed25519, as `guix archive --generate-key` makes it")]
    Shape,
    /// The public half does not belong to the private half.
    #[error("its two halves are not those of one key")]
    Halves,
}

/// A private key.
pub struct SigningKey {
    /// As libgcrypt stores it: big-endian, and not below n.
    stored: [u8; 32],
    d: Scalar,
    public: Sexp,
}

/// Without the secret.
impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public)
    }
}

impl SigningKey {
    /// Parses the text of a `signing-key.sec`.
    ///
    /// # Errors
    /// See [`SigningKeyError`].
    pub fn parse(text: &[u8]) -> Result<Self, SigningKeyError> {
        let sexp = Sexp::parse(text)?;
        // Older versions of Guix wrote both halves.
        let both = sexp
            .behind_tag("key-data")
            .unwrap_or(std::slice::from_ref(&sexp));
        let private = both.iter().find_map(|half| half.exactly("private-key"));
        let [key] = private.ok_or(SigningKeyError::Shape)?;
        let parts = key.behind_tag("ecc").ok_or(SigningKeyError::Shape)?;
        if part(parts, "curve") != Some(b"Ed25519") {
            return Err(SigningKeyError::Shape);
        }

        let d = part(parts, "d").ok_or(SigningKeyError::Shape)?;
        let zeros = d.iter().take_while(|byte| **byte == 0).count();
        let digits = &d[zeros..];
        if digits.is_empty() || digits.len() > 32 {
            return Err(SigningKeyError::Shape);
        }
        let mut stored = [0; 32];
        stored[32 - digits.len()..].copy_from_slice(digits);

        let key = Self::from_bytes(stored);
        match part(parts, "q") {
            Some(q) if q == key.q() => Ok(key),
            _ => Err(SigningKeyError::Halves),
        }
    }

    /// The key with these big-endian bytes as its `d`.
    #[must_use]
    pub fn from_bytes(stored: [u8; 32]) -> Self {
        let mut little_endian = stored;
        little_endian.reverse();
        let d = Scalar::from_bytes_mod_order(little_endian);
        let q = public_point(&d);
        let curve = Sexp::tagged("curve", [Sexp::atom("Ed25519")]);
        let ecc = Sexp::tagged("ecc", [curve, Sexp::tagged("q", [Sexp::atom(q)])]);

        Self {
            stored,
            d,
            public: Sexp::tagged("public-key", [ecc]),
        }
    }

    /// The public half, as an ACL has it.
    #[must_use]
    pub fn public_key(&self) -> &Sexp {
        &self.public
    }

    /// The bytes of its public point.
    fn q(&self) -> [u8; 32] {
        public_point(&self.d)
    }

    /// The line `Signature: 1;HOST;...` for a narinfo that consists of `text` before it.
    #[must_use]
    pub fn signature_line(&self, text: &str, host: &str) -> String {
        let hash = Sha256::digest(text).into();
        let (r, s) = self.sign(&hash);
        let data = Sexp::tagged(
            "data",
            [
                Sexp::tagged("flags", [Sexp::atom("rfc6979")]),
                Sexp::tagged("hash", [Sexp::atom("sha256"), Sexp::atom(hash)]),
            ],
        );
        let numbers = [
            Sexp::tagged("r", [Sexp::atom(r)]),
            Sexp::tagged("s", [Sexp::atom(s)]),
        ];
        let value = Sexp::tagged("sig-val", [Sexp::tagged("ecdsa", numbers)]);
        let signature = Sexp::tagged("signature", [data, value, self.public.clone()]);

        // Printed atoms are tokens and hex, so the text is ASCII and needs no Latin-1 step.
        format!(
            "Signature: 1;{host};{}\n",
            BASE64.encode(signature.to_string().as_bytes())
        )
    }

    /// (r, s) for `hash`, big-endian. The chance that one of them is zero is one in 2^251.
    #[must_use]
    pub fn sign(&self, hash: &[u8; 32]) -> ([u8; 32], [u8; 32]) {
        let z = hash_to_scalar(hash);
        let k = nonce(&self.stored, &big_endian(&z));
        let r = xs_mod_n(&[EdwardsPoint::mul_base(&k)])
            .next()
            .expect("one point has one x");
        let s = k.invert() * (z + r * self.d);
        (big_endian(&r), big_endian(&s))
    }
}

fn public_point(d: &Scalar) -> [u8; 32] {
    EdwardsPoint::mul_base(d).compress().to_bytes()
}

/// The atom behind `tag` in one of `parts`.
fn part<'s>(parts: &'s [Sexp], tag: &str) -> Option<&'s [u8]> {
    parts.iter().find_map(|part| part.atom_behind_tag(tag))
}

/// The nonce of RFC 6979, section 3.2; `key` and `value` are its K and V.
fn nonce(private: &[u8; 32], hash: &[u8; 32]) -> Scalar {
    let (mut key, mut value) = ([0; 32], [1; 32]);
    update_nonce_state(&mut key, &mut value, &[&[0], &private[..], hash].concat());
    update_nonce_state(&mut key, &mut value, &[&[1], &private[..], hash].concat());

    loop {
        value = hmac(&key, &value);
        let k = Scalar::from_canonical_bytes(shift_right_3(&value));
        match Option::<Scalar>::from(k) {
            Some(k) if k != Scalar::ZERO => return k,
            _ => update_nonce_state(&mut key, &mut value, &[0]),
        }
    }
}

fn update_nonce_state(key: &mut [u8; 32], value: &mut [u8; 32], with: &[u8]) {
    *key = hmac(key, &[&value[..], with].concat());
    *value = hmac(key, value);
}

fn hmac(key: &[u8; 32], message: &[u8]) -> [u8; 32] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message);
    tag.as_ref().try_into().expect("HMAC-SHA256 has 32 bytes")
}

fn big_endian(scalar: &Scalar) -> [u8; 32] {
    let mut bytes = scalar.to_bytes();
    bytes.reverse();
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(seed: u8, q_of: u8) -> String {
        let q = Sexp::atom(SigningKey::from_bytes([q_of; 32]).q());
        let d = Sexp::atom([seed; 32]);
        format!("(private-key\n (ecc\n (curve Ed25519)\n (q {q})\n (d {d})\n )\n)\n")
    }

    #[test]
    fn a_key_is_read_as_guix_writes_it() {
        let expected = SigningKey::from_bytes([5; 32]);
        let both = format!("(key-data (public-key (ecc)) {})", text(5, 5));
        for text in [text(5, 5), both, text(5, 5).replace("(d #", "(d #00")] {
            let key = SigningKey::parse(text.as_bytes()).unwrap();
            assert_eq!(key.public_key(), expected.public_key());
            let line = key.signature_line("text", "host");
            assert_eq!(line, expected.signature_line("text", "host"));
        }
    }

    #[test]
    fn other_texts_are_no_private_keys() {
        let halves = SigningKey::parse(text(5, 6).as_bytes()).unwrap_err();
        assert_eq!(halves, SigningKeyError::Halves);
        let public = SigningKey::from_bytes([5; 32]).public_key().to_string();
        for text in [
            public,
            text(5, 5).replace("Ed25519", "NIST P-256"),
            text(5, 5).replace("(d #", "(e #"),
            text(5, 5).replace("(d #", "(d #0505"),
            "(private-key)".to_owned(),
        ] {
            let error = SigningKey::parse(text.as_bytes()).unwrap_err();
            assert!(!error.to_string().contains("0505"));
            assert!(
                matches!(error, SigningKeyError::Shape | SigningKeyError::Sexp(_)),
                "{text}"
            );
        }
    }
}
