//! What messages show of a key, from the text that identifies it.

/// The number of hex digits of a Guix key in messages.
pub(super) const GUIX_SHORT_DIGITS: usize = 16;

/// The first digits of the Guix key with this id, which is the name of a kind, a colon and digits.
pub(super) fn guix_short_name(id: &str) -> &str {
    let digits = guix_digits(id);
    digits.get(..GUIX_SHORT_DIGITS).unwrap_or(digits)
}

/// All digits of the Guix key with this id.
pub(super) fn guix_digits(id: &str) -> &str {
    id.split_once(':').map_or(id, |(_, digits)| digits)
}

/// The Nix key with this id, which is `NAME:BASE64`, without its name: signatures do not cover the name.
pub(super) fn nix_key(id: &str) -> &str {
    id.split_once(':').map_or(id, |(_, key)| key)
}

/// The name of the Nix key with this id, which is `NAME:BASE64`.
pub(super) fn nix_name(id: &str) -> &str {
    id.split_once(':').map_or(id, |(name, _)| name)
}
