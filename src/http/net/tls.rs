//! TLS settings: which certificates are trusted, and which protocols are offered.
//!
//! A machine without any certificates is no error here (build sandboxes, bare containers), nor are
//! those that cannot be read: https then fails in its handshake, and http works. They are hundreds of
//! files, so they are read only for https, while the first connection is being made. The
//! cryptography is ring's, named explicitly, so that no process-wide default has to be installed.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::crypto::ring;
use tokio::sync::oneshot::Receiver;
use url::Url;

use super::blocking;
use super::certificate_verifier::CertificateVerifier;
use crate::http::credentials::ClientIdentity;
use crate::http::error::HttpError;
use crate::http::options::Options;

/// The settings of all connections.
#[derive(Debug)]
pub(in crate::http) struct Tls {
    /// Without a client certificate.
    anonymous: TlsConfigs,
    /// With the client certificate of each server that has one.
    identified: Vec<Option<TlsConfigs>>,
    verifier: Arc<CertificateVerifier>,
}

/// Settings for the two kinds of connections.
#[derive(Debug)]
pub(super) struct TlsConfigs {
    /// Offers HTTP/2 and HTTP/1.1.
    pub(super) any_http: Arc<ClientConfig>,
    /// Offers HTTP/1.1 only.
    pub(super) http1: Arc<ClientConfig>,
}

impl Tls {
    /// The settings that `options` lead to. No certificate is read yet.
    pub(super) fn new(options: &Options) -> Result<Self, HttpError> {
        let provider = Arc::new(ring::default_provider());
        let verifier = Arc::new(CertificateVerifier::new(options, Arc::clone(&provider)));
        let base = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|cause| HttpError::setup("TLS", cause))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&verifier) as _)
            .with_no_client_auth();
        let identities = options.credentials.identities();
        Ok(Self {
            anonymous: TlsConfigs::from_base(&base),
            identified: identities
                .map(|identity| Some(TlsConfigs::from_base(&with_identity(&base, identity?))))
                .collect(),
            verifier,
        })
    }

    /// The settings without a client certificate.
    pub(super) fn anonymous(&self) -> &TlsConfigs {
        &self.anonymous
    }

    /// The settings for connections to `url`.
    pub(super) fn configs_for(&self, url: &Url, options: &Options) -> &TlsConfigs {
        let number = options.credentials.identity_of(url);
        let identified = number.and_then(|number| self.identified[number].as_ref());
        identified.unwrap_or(&self.anonymous)
    }

    /// Begins to read the certificates on a thread of their own, if they are not read yet. A connection that
    /// waits for it before its handshake does not block the others. Without a thread they are read
    /// in the handshake.
    pub(in crate::http) fn read_roots(&self) -> Option<Receiver<()>> {
        if !self.verifier.needs_reading() {
            return None;
        }

        let verifier = Arc::clone(&self.verifier);
        blocking::start("certificates", move || verifier.read()).ok()
    }
}

impl TlsConfigs {
    fn from_base(base: &ClientConfig) -> Self {
        Self {
            any_http: offering(base, &[b"h2", b"http/1.1"]),
            http1: offering(base, &[b"http/1.1"]),
        }
    }
}

/// The same with a client certificate. Sessions that began without it are not resumed.
fn with_identity(base: &ClientConfig, identity: &ClientIdentity) -> ClientConfig {
    let mut config = base.clone();
    config.client_auth_cert_resolver = identity.resolver();
    config.resumption = Resumption::default();
    config
}

fn offering(base: &ClientConfig, protocols: &[&[u8]]) -> Arc<ClientConfig> {
    let mut config = base.clone();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    Arc::new(config)
}
