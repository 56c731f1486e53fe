//! nix-base32: the alphabet and digit order of store paths and hashes.
//!
//! Digits are taken from the *end* of the byte string, five bits at a time, least
//! significant first; 20 bytes give 32 characters and 32 bytes give 52. Unused high
//! bits must be zero, so that a value has exactly one spelling.

/// The 32 digits: `e`, `o`, `u` and `t` are left out.
const ALPHABET: &[u8; 32] = b"0123456789abcdfghijklmnpqrsvwxyz";

/// Why a text is not the nix-base32 form of the given number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Base32Error {
    /// The text does not have the length of that number of bytes.
    #[error("{found} characters where {expected} are needed")]
    Length {
        /// Characters needed.
        expected: usize,
        /// Characters found.
        found: usize,
    },
    /// A byte is not one of the 32 digits.
    #[error("`{}` is not a nix-base32 digit", .0.escape_ascii())]
    Digit(u8),
    /// The first digit has bits beyond the last byte.
    #[error("the first digit overflows")]
    Overflow,
}

/// The number of characters that `bytes` bytes are encoded in.
#[must_use]
pub(crate) const fn encoded_len(bytes: usize) -> usize {
    (bytes * 8).div_ceil(5)
}

/// Whether `byte` is a nix-base32 digit.
#[must_use]
pub(crate) const fn is_digit(byte: u8) -> bool {
    VALUES[byte as usize] != INVALID
}

/// The nix-base32 form of `bytes`.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(encoded_len(bytes.len()));
    for position in (0..encoded_len(bytes.len())).rev() {
        let (byte, shift) = (position * 5 / 8, position * 5 % 8);
        let next = bytes.get(byte + 1).copied().unwrap_or(0);
        let pair = u16::from_le_bytes([bytes[byte], next]);
        text.push(char::from(ALPHABET[usize::from(pair >> shift) & 31]));
    }

    text
}

/// Decodes `text` to `N` bytes.
///
/// # Errors
/// `text` has another length than `N` bytes have, a character outside the alphabet, or unused
/// bits that are set.
pub fn decode<const N: usize>(text: &str) -> Result<[u8; N], Base32Error> {
    let (expected, found) = (encoded_len(N), text.len());
    if expected != found {
        return Err(Base32Error::Length { expected, found });
    }

    let mut bytes = [0u8; N];
    for (position, digit) in text.bytes().rev().enumerate() {
        let value = VALUES[usize::from(digit)];
        if value == INVALID {
            return Err(Base32Error::Digit(digit));
        }

        let (byte, shift) = (position * 5 / 8, position * 5 % 8);
        let [low, high] = (u16::from(value) << shift).to_le_bytes();
        bytes[byte] |= low;

        match bytes.get_mut(byte + 1) {
            Some(next) => *next |= high,
            None if high != 0 => return Err(Base32Error::Overflow),
            None => {}
        }
    }

    Ok(bytes)
}

const INVALID: u8 = 0xff;

const VALUES: [u8; 256] = {
    let mut values = [INVALID; 256];
    let mut digit = 0;
    while digit < 32 {
        values[ALPHABET[digit as usize] as usize] = digit;
        digit += 1;
    }
    values
};

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_vectors() {
        let empty = "0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73";
        let sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let bytes = data_encoding::HEXLOWER.decode(sha256.as_bytes()).unwrap();
        assert_eq!(encode(&bytes), empty);
        assert_eq!(decode::<32>(empty).unwrap().as_slice(), bytes);
    }

    #[test]
    fn refuses_what_is_not_the_one_spelling() {
        let short = decode::<20>("0").unwrap_err();
        assert_eq!(
            short,
            Base32Error::Length {
                expected: 32,
                found: 1
            }
        );
        let vowel = format!("e{}", "0".repeat(31));
        assert_eq!(decode::<20>(&vowel), Err(Base32Error::Digit(b'e')));
        let overflow = format!("2{}", "0".repeat(51));
        assert_eq!(decode::<32>(&overflow), Err(Base32Error::Overflow));
    }

    proptest! {
        #[test]
        fn decode_inverts_encode(bytes: [u8; 32], short: [u8; 20]) {
            prop_assert_eq!(decode::<32>(&encode(&bytes)), Ok(bytes));
            prop_assert_eq!(decode::<20>(&encode(&short)), Ok(short));
        }

        #[test]
        fn encode_inverts_decode(text in "[0-9a-z]{52}") {
            if let Ok(bytes) = decode::<32>(&text) {
                prop_assert_eq!(encode(&bytes), text);
            }
        }
    }
}
