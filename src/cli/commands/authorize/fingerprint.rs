//! Fingerprints: how people name and compare keys.
//!
//! The fingerprint of a key on a curve is the key itself, 64 hexadecimal digits, as an ACL has it; that
//! of an RSA key is the SHA-256 of the key. Enough first digits name one of the keys of an ACL; to trust a
//! key from the network, all are needed.

use crate::trust::acl::Acl;

/// The digits of a whole fingerprint.
const WHOLE_DIGITS: usize = 64;

/// The fewest digits that name a key.
const DIGITS_MIN: usize = 16;

/// What comes before the digits in other places.
const PREFIXES: [&str; 3] = ["guix:", "ecc:", "sha256:"];

/// A fingerprint, or its first digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeyFingerprint(String);

impl KeyFingerprint {
    /// The fingerprint of the key with this id.
    pub(super) fn of_id(id: &str) -> Self {
        let digits = id.split_once(':').map_or(id, |(_, digits)| digits);
        Self(digits.to_ascii_uppercase())
    }

    /// Reads a fingerprint that a user has typed: in either case, with or without blanks and colons
    /// between the digits. `None` if it is not one.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let prefix = PREFIXES.iter().find(|prefix| text.starts_with(**prefix));
        let digits = text.strip_prefix(prefix.unwrap_or(&"")).unwrap_or(text);
        let digits: String = digits.chars().filter(|c| !matches!(c, ' ' | ':')).collect();

        let is_long = (DIGITS_MIN..=WHOLE_DIGITS).contains(&digits.len());
        let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        (is_long && is_hex).then(|| Self(digits.to_ascii_uppercase()))
    }

    /// Whether it has all digits.
    pub(super) fn is_whole(&self) -> bool {
        self.0.len() == WHOLE_DIGITS
    }

    /// The digits.
    pub(super) fn digits(&self) -> &str {
        &self.0
    }

    /// The ids of the keys of `acl`, usable or not, whose fingerprints begin like this.
    pub(super) fn matches(&self, acl: &Acl) -> Vec<String> {
        let usable = acl.keys().map(|key| &**key.id());
        let unusable = acl.unusable_keys().map(|key| key.id());
        let ids = usable.chain(unusable);
        let mut found: Vec<String> = ids
            .filter(|id| Self::of_id(id).0.starts_with(&self.0))
            .map(str::to_owned)
            .collect();
        found.dedup();
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGITS: &str = "8D156F295D24B0D9A86FA5741A840FF2D24F60F7B6C4134814AD55625971B394";

    #[test]
    fn fingerprints_are_read_as_people_write_them() {
        let whole = KeyFingerprint::parse(DIGITS).unwrap();
        assert!(whole.is_whole());
        let spaced = DIGITS
            .as_bytes()
            .chunks(4)
            .map(|four| std::str::from_utf8(four).unwrap().to_lowercase());
        let spaced = spaced.collect::<Vec<_>>().join(" ");
        for text in [
            &spaced,
            &format!("guix:{DIGITS}"),
            &format!(" ecc:{DIGITS}\n"),
        ] {
            assert_eq!(KeyFingerprint::parse(text), Some(whole.clone()), "{text}");
        }
        for text in ["", "8D156F295D24B0D", "key.pub", &format!("{DIGITS}0"), "ü"] {
            assert_eq!(KeyFingerprint::parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_first_digits_name_a_key_of_an_acl() {
        let acl = Acl::official_guix_servers();
        let short = KeyFingerprint::parse(&DIGITS[..16]).unwrap();
        assert!(!short.is_whole());
        assert_eq!(short.matches(&acl), [format!("ecc:{DIGITS}")]);
        let other = KeyFingerprint::parse(&"0".repeat(16)).unwrap();
        assert!(other.matches(&acl).is_empty());
    }
}
