//! Guix's public keys: `(public-key (ecc (curve Ed25519) (q ...)))`, and older RSA keys.

use std::sync::Arc;

use curve25519_dalek::edwards::CompressedEdwardsY;
use data_encoding::HEXUPPER;
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use sha2::{Digest, Sha256};

use super::ecdsa::{Equation, KeyPoint};
use crate::format::sexp::{Sexp, SexpError};
use crate::trust::key_names::guix_short_name;

/// The shortest and the longest accepted RSA modulus.
const MIN_RSA_BITS: usize = 2048;
const MAX_RSA_BITS: usize = 8192;

/// The longest RSA exponent that `ring` can verify with.
const MAX_RSA_EXPONENT_BITS: usize = 33;

/// Why a text is not a supported public key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not an s-expression.
    #[error("the key cannot be read")]
    Sexp(#[from] SexpError),
    /// Another s-expression, such as a private key or a signature, or another kind of key.
    #[error("not a public key on the curve Ed25519 or for RSA")]
    Shape,
    /// The bytes of q are not a point of the curve.
    #[error("q is not a point of the curve Ed25519")]
    Point,
    /// The bytes of q are another notation of a point than the one that RFC 8032 allows.
    #[error("q is not the only allowed notation of its point of the curve Ed25519")]
    Notation,
    /// The point has a small order.
    #[error("q is a point of small order, for which anyone can make signatures")]
    SmallOrder,
    /// An RSA key that is short enough to be forged.
    #[error("an RSA key of {0} bits is not accepted: it needs at least {MIN_RSA_BITS}")]
    TooShort(usize),
    /// An RSA key that is too long to verify signatures with.
    #[error("an RSA key of {0} bits is not supported: it may have at most {MAX_RSA_BITS}")]
    TooLong(usize),
    /// An RSA key whose numbers are even, or whose exponent is too small or too large.
    #[error("the RSA key has an even n or an e that is not an odd number from 3 to 2^33 - 1")]
    RsaNumbers,
}

/// A public key, decoded once.
#[derive(Debug, Clone)]
pub struct PublicKey {
    sexp: Sexp,
    numbers: KeyNumbers,
    id: Arc<str>,
}

#[derive(Debug, Clone)]
enum KeyNumbers {
    Ecc(Arc<KeyPoint>),
    /// Big-endian, without leading zeros.
    Rsa(RsaPublicKeyComponents<Vec<u8>>),
}

impl PublicKey {
    /// Parses the text of a key, such as that of a file ending in `.pub`.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn parse(text: &[u8]) -> Result<Self, KeyError> {
        Self::from_sexp(Sexp::parse(text)?)
    }

    /// The key of a `(public-key ...)`.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn from_sexp(sexp: Sexp) -> Result<Self, KeyError> {
        let [key] = sexp.exactly("public-key").ok_or(KeyError::Shape)?;
        let numbers = if let Some([curve, q]) = key.exactly("ecc") {
            let is_ed25519 = curve.atom_behind_tag("curve") == Some(b"Ed25519");
            let q = q
                .atom_behind_tag("q")
                .filter(|_| is_ed25519)
                .ok_or(KeyError::Shape)?;
            let q = CompressedEdwardsY::from_slice(q).map_err(|_| KeyError::Shape)?;

            let point = q.decompress().ok_or(KeyError::Point)?;
            if point.is_small_order() {
                return Err(KeyError::SmallOrder);
            }
            if point.compress() != q {
                return Err(KeyError::Notation);
            }

            KeyNumbers::Ecc(Arc::new(KeyPoint::new(point)))
        } else {
            let [n, e] = rsa_numbers(key).ok_or(KeyError::Shape)?;
            match bit_length(n) {
                bits @ ..MIN_RSA_BITS => return Err(KeyError::TooShort(bits)),
                MIN_RSA_BITS..=MAX_RSA_BITS => {}
                bits => return Err(KeyError::TooLong(bits)),
            }
            let is_exponent = (2..=MAX_RSA_EXPONENT_BITS).contains(&bit_length(e));
            if !is_exponent || !is_odd(n) || !is_odd(e) {
                return Err(KeyError::RsaNumbers);
            }

            KeyNumbers::Rsa(RsaPublicKeyComponents {
                n: n.to_owned(),
                e: e.to_owned(),
            })
        };

        let id = key_id(&sexp).into();
        Ok(Self { sexp, numbers, id })
    }

    /// The key as an s-expression, as it was parsed.
    #[must_use]
    pub fn as_sexp(&self) -> &Sexp {
        &self.sexp
    }

    /// A text that identifies the key: `ecc:` and the hex digits of q, or `sha256:` and the hash of
    /// the whole key. Zeros in front of the numbers of an RSA key make no difference.
    #[must_use]
    pub fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// The first digits of q, for messages.
    #[must_use]
    pub fn short_name(&self) -> &str {
        guix_short_name(&self.id)
    }

    /// Examines `value`, a `(sig-val ...)` made with `flags`, as a signature of `text`, whose SHA-256
    /// is `hash`. `None` if it is not a signature by this kind of key.
    pub(super) fn examine(
        &self,
        flags: &[u8],
        value: &Sexp,
        text: &[u8],
        hash: &[u8; 32],
    ) -> Option<Examined<'_>> {
        let [value] = value.exactly("sig-val")?;
        match &self.numbers {
            KeyNumbers::Ecc(q) if flags == b"rfc6979" => {
                let [r, s] = value.exactly("ecdsa")?;
                let (r, s) = (r.atom_behind_tag("r")?, s.atom_behind_tag("s")?);
                let equation = Equation::new(q, hash, r, s);
                Some(equation.map_or(Examined::Decided(false), Examined::Open))
            }
            KeyNumbers::Rsa(key) if flags == b"pkcs1" => {
                let [s] = value.exactly("rsa")?;
                let s = without_zeros(s.atom_behind_tag("s")?);
                let Some(zeros) = key.n.len().checked_sub(s.len()) else {
                    return Some(Examined::Decided(false));
                };
                let padded = [vec![0; zeros], s.to_owned()].concat();
                let verified = key.verify(&RSA_PKCS1_2048_8192_SHA256, text, &padded);
                Some(Examined::Decided(verified.is_ok()))
            }
            KeyNumbers::Ecc(_) | KeyNumbers::Rsa(_) => None,
        }
    }
}

/// The result of examining a signature.
#[derive(Debug)]
pub(super) enum Examined<'k> {
    /// Whether it is valid.
    Decided(bool),
    /// It is valid if the equation holds; many equations are evaluated at once.
    Open(Equation<'k>),
}

/// The [`PublicKey::id`] of the key `sexp`, also of one that is not supported.
pub(in crate::trust) fn key_id(sexp: &Sexp) -> String {
    let key = sexp.exactly("public-key").map(|[key]| key);
    let q = key.and_then(|key| key.exactly("ecc"));
    match q.and_then(|[_, q]| q.atom_behind_tag("q")) {
        Some(q) if q.len() == 32 => format!("ecc:{}", HEXUPPER.encode(q)),
        _ => {
            let numbers = key.and_then(rsa_numbers);
            let canonical = numbers.map_or_else(|| sexp.to_canonical(), canonical_rsa_key);
            format!("sha256:{}", HEXUPPER.encode(&Sha256::digest(canonical)))
        }
    }
}

/// The numbers n and e of an `(rsa ...)`, without leading zeros.
fn rsa_numbers(key: &Sexp) -> Option<[&[u8]; 2]> {
    let [n, e] = key.exactly("rsa")?;
    let (n, e) = (n.atom_behind_tag("n")?, e.atom_behind_tag("e")?);
    Some([n, e].map(without_zeros))
}

/// The RSA key with these numbers as libgcrypt writes it: a zero byte is in front of a number that
/// would be negative otherwise.
fn canonical_rsa_key(numbers: [&[u8]; 2]) -> Vec<u8> {
    let [n, e] = numbers.map(|number| {
        let is_negative = number.first().is_some_and(|byte| byte.leading_zeros() == 0);
        let zero: &[u8] = if is_negative { &[0] } else { &[] };
        [zero, number].concat()
    });
    let numbers = [("n", n), ("e", e)].map(|(name, value)| Sexp::tagged(name, [Sexp::atom(value)]));
    Sexp::tagged("public-key", [Sexp::tagged("rsa", numbers)]).to_canonical()
}

/// The number of bits of a number that is big-endian and [without zeros](without_zeros).
fn bit_length(number: &[u8]) -> usize {
    let unused = number.first().map_or(0, |byte| byte.leading_zeros());
    number.len() * 8 - unused as usize
}

fn is_odd(number: &[u8]) -> bool {
    number.last().is_some_and(|byte| byte % 2 == 1)
}

fn without_zeros(bytes: &[u8]) -> &[u8] {
    &bytes[bytes.iter().take_while(|&&byte| byte == 0).count()..]
}
