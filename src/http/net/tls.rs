//! TLS settings: which certificates are trusted, and which protocols are offered.
//!
//! A machine without any certificates is no error here (build sandboxes, bare containers), nor are
//! those that cannot be read: https then fails in its handshake, and http works. They are hundreds of
//! files, so they are read only for https, while the first connection is being made. The
//! cryptography is ring's, named explicitly, so that no process-wide default has to be installed.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::crypto::ring;
use tokio::sync::oneshot::Receiver;

use super::blocking;
use super::certificate_verifier::CertificateVerifier;
use crate::http::error::HttpError;
use crate::http::options::Options;

/// Settings for the two kinds of connections.
#[derive(Debug)]
pub(in crate::http) struct Tls {
    /// Offers HTTP/2 and HTTP/1.1.
    pub(super) any_http: Arc<ClientConfig>,
    /// Offers HTTP/1.1 only.
    pub(super) http1: Arc<ClientConfig>,
    verifier: Arc<CertificateVerifier>,
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
        Ok(Self {
            any_http: offering(&base, &[b"h2", b"http/1.1"]),
            http1: offering(&base, &[b"http/1.1"]),
            verifier,
        })
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

fn offering(base: &ClientConfig, protocols: &[&[u8]]) -> Arc<ClientConfig> {
    let mut config = base.clone();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    Arc::new(config)
}
