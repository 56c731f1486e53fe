//! Base64 as Nix reads it: the `=` at the end may be missing.

use data_encoding::BASE64_NOPAD;

/// The `N` bytes that `text` spells; `None` if it is not their base64, padded or not.
#[must_use]
pub(crate) fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    let padding = (3 - N % 3) % 3;
    let digits_len = BASE64_NOPAD.encode_len(N);
    let digits = match text.len().checked_sub(digits_len)? {
        0 => text,
        more if more == padding => text.strip_suffix(&"=="[..padding])?,
        _ => return None,
    };

    let mut bytes = [0; N];
    let length = BASE64_NOPAD.decode_mut(digits.as_bytes(), &mut bytes);
    length.is_ok_and(|length| length == N).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_is_optional_and_exact() {
        for text in ["AQI=", "AQI"] {
            assert_eq!(decode(text), Some([1, 2]), "{text}");
        }
        for text in ["AQID", "AQI==", "AQ=I", "AQ", "AQI\n", "AQJ", "", "ÄQI"] {
            assert_eq!(decode::<2>(text), None, "{text}");
        }
        assert_eq!(decode("AQID"), Some([1, 2, 3]));
        assert_eq!(decode::<3>("AQID="), None);
        assert_eq!(decode("AQ"), Some([1]));
        assert_eq!(decode("AQ=="), Some([1]));
        assert_eq!(decode::<1>("AQ="), None);
    }
}
