//! The key that signs endorsements.

use std::sync::Arc;

use crate::format::narinfo::{NarInfo, NarInfoError};
use crate::format::store_path::{Dialect, StoreDir};
use crate::trust::guix::signing::{SigningKey, SigningKeyError};
use crate::trust::nix::fingerprint;
use crate::trust::nix::signing::{NixSigningKey, NixSigningKeyError};

/// The host in a Guix signature, which is not signed and means nothing.
const HOST: &str = "subst";

/// Why a text is not a key that can sign for a store.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EndorsementKeyError {
    /// Not one of Guix.
    #[error(transparent)]
    Guix(#[from] SigningKeyError),
    /// Not one of Nix.
    #[error(transparent)]
    Nix(#[from] NixSigningKeyError),
}

/// The key that signs endorsements.
pub(crate) enum EndorsementKey {
    /// For a store of Guix.
    Guix(SigningKey),
    /// For a store of Nix.
    Nix(NixSigningKey),
}

impl EndorsementKey {
    /// Parses the text of a secret key of `dialect`.
    ///
    /// # Errors
    /// It is not one.
    pub(crate) fn parse(text: &str, dialect: Dialect) -> Result<Self, EndorsementKeyError> {
        Ok(match dialect {
            Dialect::Guix => Self::Guix(SigningKey::parse(text.as_bytes())?),
            Dialect::Nix => Self::Nix(NixSigningKey::parse(text)?),
        })
    }

    /// The public key, as others authorize it.
    pub(crate) fn public_key(&self) -> String {
        match self {
            Self::Guix(key) => key.public_key().to_string(),
            Self::Nix(key) => key.public_key(),
        }
    }

    /// A narinfo that says `description`, signed, with these `downloads`: each of them is lines of its
    /// own. Clients of Nix read only the first.
    ///
    /// # Errors
    /// The two do not make a narinfo.
    pub(super) fn signed_narinfo(
        &self,
        description: &str,
        downloads: &[String],
        store_dir: &StoreDir,
    ) -> Result<String, Arc<NarInfoError>> {
        let text = match self {
            Self::Guix(key) => {
                let signature = key.signature_line(description, HOST);
                format!("{description}{signature}{}", downloads.concat())
            }
            Self::Nix(key) => {
                let unsigned = format!("{description}{}", downloads.concat());
                let parsed = NarInfo::parse(unsigned, store_dir).map_err(Arc::new)?;
                let signature = key.signature_line(&fingerprint(&parsed, store_dir));
                let first = downloads.first().map_or("", String::as_str);
                let (path, rest) = description.split_once('\n').unwrap_or((description, ""));
                format!("{path}\n{first}{rest}{signature}")
            }
        };

        // What clients will read has to be a narinfo, whatever the pool's URLs are like.
        NarInfo::parse(text.clone(), store_dir).map_err(Arc::new)?;
        Ok(text)
    }
}
