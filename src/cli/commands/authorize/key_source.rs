//! Where a key to authorize comes from: a file, standard input, or a server.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use url::Url;

use crate::cli::error::CliError;
use crate::cli::file_trust::{self, FileSelection};
use crate::cli::output::Output;
use crate::format::server_url::{ServerUrl, redacted};
use crate::http::{HttpError, NarRequest};
use crate::substitute::network::Network;
use crate::trust::guix::PublicKey;

/// The name of the key that `guix publish` serves.
const KEY_NAME: &str = "signing-key.pub";

/// The most bytes of a key: real ones have 120, or 900 with RSA.
const KEY_BYTES_MAX: usize = 64 << 10;

/// Where a key comes from.
pub(super) enum KeySource {
    /// Standard input.
    Input,
    /// A file.
    File(PathBuf),
    /// A server on the network: the URL of its key.
    Server(Url),
}

impl KeySource {
    /// What the argument of the command names.
    ///
    /// # Errors
    /// It begins like a URL and is not that of a server.
    pub(super) fn parse(argument: Option<&Path>) -> Result<Self, CliError> {
        let Some(path) = argument.filter(|path| *path != Path::new("-")) else {
            return Ok(Self::Input);
        };
        let Some(text) = path.to_str().filter(|text| text.contains("://")) else {
            return Ok(Self::File(path.to_owned()));
        };

        let server = ServerUrl::parse(text).map_err(|error| CliError::Usage(error.to_string()))?;
        let base = server.base();
        let is_key = base.path().trim_end_matches('/').ends_with(".pub");
        if server.is_file() {
            let directory = base.to_file_path().unwrap_or_default();
            return Ok(Self::File(match is_key {
                true => directory,
                false => directory.join(KEY_NAME),
            }));
        }

        let mut url = base.clone();
        let path = base.path().trim_end_matches('/');
        url.set_path(&match is_key {
            true => path.to_owned(),
            false => format!("{path}/{KEY_NAME}"),
        });
        Ok(Self::Server(url))
    }

    /// Its name for messages.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Input => "standard input".to_owned(),
            Self::File(path) => path.display().to_string(),
            Self::Server(url) => redacted(url),
        }
    }

    /// Reads the key of a file or of standard input.
    ///
    /// # Errors
    /// It cannot be read, or has no key.
    pub(super) fn read(&self, output: &Output) -> Result<PublicKey, CliError> {
        self.parse_key(&self.read_text(output)?)
    }

    /// Reads what should be the key of a file or of standard input.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn read_text(&self, output: &Output) -> Result<Vec<u8>, CliError> {
        let text = match self {
            Self::File(path) => {
                if let Ok(Err(fault)) = file_trust::check(path, None) {
                    let selection = FileSelection::Explicit;
                    let warning = file_trust::warning("key file", path, &fault, selection);
                    output.warn(&warning);
                }
                std::fs::read(path)
            }
            Self::Input | Self::Server(_) => {
                output.announce_input("a public key");
                let mut text = Vec::new();
                let read = std::io::stdin().lock().read_to_end(&mut text);
                read.map(|_| text)
            }
        };
        text.map_err(CliError::file("read", self.name()))
    }

    /// The key in `text`, which is from this source.
    ///
    /// # Errors
    /// There is none, or one that is not supported.
    pub(super) fn parse_key(&self, text: &[u8]) -> Result<PublicKey, CliError> {
        PublicKey::parse(text).map_err(|source| CliError::Key {
            what: format!("{} has no key that can be authorized", self.name()),
            source: Box::new(source),
        })
    }
}

/// Downloads the text of the key at `url`.
///
/// # Errors
/// The server does not send it.
pub(super) fn download(network: &Network, url: &Url) -> Result<Vec<u8>, Arc<HttpError>> {
    let client = network.client_for(url)?;
    let mut body = client.nar(NarRequest::new(url.clone())).map_err(Arc::new)?;
    let mut text = Vec::new();
    while let Some(chunk) = body.next_chunk().map_err(Arc::new)? {
        text.extend_from_slice(&chunk);
        // What is longer is no key, whatever follows.
        if text.len() > KEY_BYTES_MAX {
            break;
        }
    }
    Ok(text)
}
