//! Signing narinfos as `guix publish` does, for tests and fixtures.
//!
//! The nonce follows RFC 6979 with HMAC-SHA256, so signatures are the same as libgcrypt's. Nothing
//! here protects a key against side channels on the same machine: only sign with throw-away keys.

use curve25519_dalek::{EdwardsPoint, Scalar};
use data_encoding::BASE64;
use ring::hmac;
use sha2::{Digest, Sha256};

use super::ecdsa::{hash_to_scalar, shift_right_3, xs_mod_n};
use crate::format::sexp::Sexp;

/// A private key.
pub struct SigningKey {
    /// As libgcrypt stores it: big-endian, and not below n.
    stored: [u8; 32],
    d: Scalar,
    public: Sexp,
}

impl SigningKey {
    /// The key with these big-endian bytes as its `d`.
    #[must_use]
    pub fn from_bytes(stored: [u8; 32]) -> Self {
        let mut little_endian = stored;
        little_endian.reverse();
        let d = Scalar::from_bytes_mod_order(little_endian);
        let q = EdwardsPoint::mul_base(&d).compress().to_bytes();
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
