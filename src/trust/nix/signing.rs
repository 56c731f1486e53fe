//! Signing narinfos as Nix does.

use std::fmt;

use data_encoding::BASE64;
use ed25519_dalek::{Signer as _, SigningKey as Ed25519Key};

use crate::format::base64;

/// Why a text is not a secret key of Nix. It quotes nothing of the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NixSigningKeyError {
    /// The text does not have the form of a secret key.
    #[error("not a secret key of the form NAME:BASE64, as `nix key generate-secret` prints it")]
    Syntax,
    /// The public half does not belong to the secret half.
    #[error("its two halves are not those of one key")]
    Halves,
}

/// A secret key with its name.
pub struct NixSigningKey {
    name: String,
    key: Ed25519Key,
}

impl NixSigningKey {
    /// Parses `NAME:BASE64`, the text of a file that `nix-store --generate-binary-cache-key` wrote.
    ///
    /// # Errors
    /// See [`NixSigningKeyError`].
    pub fn parse(text: &str) -> Result<Self, NixSigningKeyError> {
        let (name, digits) = text
            .trim()
            .split_once(':')
            .ok_or(NixSigningKeyError::Syntax)?;
        let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic());
        let bytes = base64::decode::<64>(digits).filter(|_| is_name);
        let bytes = bytes.ok_or(NixSigningKeyError::Syntax)?;
        let key = Ed25519Key::from_keypair_bytes(&bytes).map_err(|_| NixSigningKeyError::Halves)?;
        Ok(Self {
            name: name.to_owned(),
            key,
        })
    }

    /// `NAME:BASE64` of the public key, as `trusted-public-keys` has it.
    #[must_use]
    pub fn public_key(&self) -> String {
        let public = self.key.verifying_key();
        format!("{}:{}", self.name, BASE64.encode(public.as_bytes()))
    }

    /// The line `Sig: NAME:BASE64` for a narinfo with this [`fingerprint`](super::fingerprint).
    #[must_use]
    pub fn signature_line(&self, fingerprint: &str) -> String {
        let signature = self.key.sign(fingerprint.as_bytes()).to_bytes();
        format!("Sig: {}:{}\n", self.name, BASE64.encode(&signature))
    }
}

/// Without the secret.
impl fmt::Debug for NixSigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NixSigningKey({})", self.public_key())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(name: &str, seed: u8) -> String {
        let key = Ed25519Key::from_bytes(&[seed; 32]);
        format!("{name}:{}", BASE64.encode(&key.to_keypair_bytes()))
    }

    #[test]
    fn what_a_key_signs_is_verified_with_its_public_half() {
        let key = NixSigningKey::parse(&format!("{}\n", secret("me-1", 3))).unwrap();
        let public = Ed25519Key::from_bytes(&[3; 32]).verifying_key();
        let expected = format!("me-1:{}", BASE64.encode(public.as_bytes()));
        assert_eq!(key.public_key(), expected);

        let line = key.signature_line("1;text");
        let digits = line.strip_prefix("Sig: me-1:").unwrap().trim_end();
        let signature = base64::decode::<64>(digits).unwrap();
        let signature = ed25519_dalek::Signature::from_bytes(&signature);
        assert!(public.verify_strict(b"1;text", &signature).is_ok());
    }

    #[test]
    fn other_texts_are_no_secret_keys() {
        let (one, two) = (secret("k", 1), secret("k", 2));
        let mixed = format!("{}{}", &one[..46], &two[46..]);
        assert_eq!(
            NixSigningKey::parse(&mixed).unwrap_err(),
            NixSigningKeyError::Halves
        );
        let unnamed = secret("", 1);
        let public = NixSigningKey::parse(&one).unwrap().public_key();
        for text in ["", "k", "k:", &unnamed, &public, "k k:AAAA"] {
            assert_eq!(
                NixSigningKey::parse(text).unwrap_err(),
                NixSigningKeyError::Syntax
            );
        }
    }
}
