//! The SHA-256 of what a request sends, as it is signed. Object stores refuse other bytes.

use data_encoding::HEXLOWER;

use crate::format::sha256::Sha256;

/// The SHA-256 of a body in hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BodyHash(String);

impl BodyHash {
    /// That of `bytes`.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let mut digest = Sha256::new();
        digest.update(bytes);
        Self::from_digest(&digest.finish())
    }

    /// The SHA-256 that was computed elsewhere.
    pub(crate) fn from_digest(digest: &[u8; 32]) -> Self {
        Self(HEXLOWER.encode(digest))
    }

    /// The digits.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}
