//! SHA-256 hashes of nars and of compressed files, as two types that cannot be confused.
//!
//! Narinfos spell them as `sha256:` and 52 nix-base32 characters; Nix also writes 64 base16
//! digits, 44 characters of base64, or the SRI form `sha256-BASE64`. The store database wants
//! base16.

use std::fmt;

use data_encoding::{BASE64, HEXLOWER, HEXLOWER_PERMISSIVE};

use super::{base32, base64};

/// Why a text is not a SHA-256 hash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    /// Another algorithm, or none named.
    #[error("`{}` is not a sha256 hash", .0.escape_debug())]
    Algorithm(String),
    /// The digits are not 32 bytes in any of the known encodings.
    #[error("`{}` does not hold 32 bytes in nix-base32, base16 or base64", .0.escape_debug())]
    Digits(String),
}

/// The notation of a hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashForm {
    /// `sha256:` and 52 nix-base32 characters, the usual form.
    Base32,
    /// `sha256:` and 64 base16 digits.
    Base16,
    /// `sha256:` and padded base64.
    Base64,
    /// `sha256-` and base64, whose padding may be missing.
    Sri,
}

/// SHA-256 over the uncompressed bytes of a nar.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct NarHash([u8; 32]);

/// SHA-256 over the bytes of a nar as downloaded, compressed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileHash([u8; 32]);

macro_rules! sha256_type {
    ($name:ident) => {
        impl $name {
            /// The hash with these 32 bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// Parses a hash in any of the forms, and returns the form as well.
            ///
            /// # Errors
            /// The algorithm is not sha256, or the digits are not those of 32 bytes.
            pub fn parse(text: &str) -> Result<(Self, HashForm), HashError> {
                parse_sha256(text).map(|(bytes, form)| (Self(bytes), form))
            }

            /// The 32 bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// The 52 nix-base32 characters, without the algorithm.
            #[must_use]
            pub fn base32(&self) -> String {
                base32::encode(&self.0)
            }

            /// `sha256:` and 64 base16 digits: the form of the store database.
            #[must_use]
            pub fn base16_with_algorithm(&self) -> String {
                format!("sha256:{}", HEXLOWER.encode(&self.0))
            }

            /// The hash in the notation `form`.
            #[must_use]
            pub fn in_form(&self, form: HashForm) -> String {
                match form {
                    HashForm::Base32 => self.to_string(),
                    HashForm::Base16 => self.base16_with_algorithm(),
                    HashForm::Base64 => format!("sha256:{}", BASE64.encode(&self.0)),
                    HashForm::Sri => format!("sha256-{}", BASE64.encode(&self.0)),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "sha256:{}", self.base32())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    };
}

sha256_type!(NarHash);
sha256_type!(FileHash);

fn parse_sha256(text: &str) -> Result<([u8; 32], HashForm), HashError> {
    let (digits, is_sri) = match text.strip_prefix("sha256") {
        Some(rest) if rest.starts_with(['-', ':']) => (&rest[1..], rest.starts_with('-')),
        _ => return Err(HashError::Algorithm(text.to_owned())),
    };
    let form = match digits.len() {
        _ if is_sri => HashForm::Sri,
        64 => HashForm::Base16,
        44 => HashForm::Base64,
        _ => HashForm::Base32,
    };

    let bytes = match form {
        HashForm::Base32 => base32::decode(digits).ok(),
        HashForm::Base16 => decode_base16(digits),
        HashForm::Base64 | HashForm::Sri => base64::decode(digits),
    };
    let bytes = bytes.ok_or_else(|| HashError::Digits(text.to_owned()))?;
    Ok((bytes, form))
}

/// The `N` bytes that `digits` spell; `None` if it is not their base16.
pub(super) fn decode_base16<const N: usize>(digits: &str) -> Option<[u8; N]> {
    if digits.len() != 2 * N {
        return None;
    }

    let mut bytes = [0; N];
    let decoded = HEXLOWER_PERMISSIVE.decode_mut(digits.as_bytes(), &mut bytes);
    decoded.is_ok().then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_the_same_hash_is_equal() {
        let (hash, form) =
            NarHash::parse("sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73").unwrap();
        assert_eq!(form, HashForm::Base32);
        for form in [
            HashForm::Base32,
            HashForm::Base16,
            HashForm::Base64,
            HashForm::Sri,
        ] {
            assert_eq!(NarHash::parse(&hash.in_form(form)), Ok((hash, form)));
        }
    }

    #[test]
    fn base64_is_read_as_nix_reads_it() {
        let base16 = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let digits = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU";
        let (hash, _) = NarHash::parse(base16).unwrap();
        for text in [
            format!("sha256:{digits}="),
            format!("sha256-{digits}="),
            format!("sha256-{digits}"),
        ] {
            assert_eq!(
                NarHash::parse(&text).map(|(hash, _)| hash),
                Ok(hash),
                "{text}"
            );
        }
        for text in [
            format!("sha256-{digits}=="),
            format!("sha256-{digits}=x"),
            format!("sha256-{}", &digits[1..]),
            format!("sha256:{}", digits.replace('+', "-")),
        ] {
            assert!(NarHash::parse(&text).is_err(), "{text}");
        }
    }

    #[test]
    fn refuses_other_algorithms_and_lengths() {
        for text in [
            "",
            "sha512:00",
            "md5:0",
            "sha256:",
            "sha256:00",
            "sha256-AAAA",
            "sha256",
        ] {
            assert!(NarHash::parse(text).is_err(), "{text}");
        }
    }
}
