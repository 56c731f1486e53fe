//! TLS settings: which certificates are trusted, and which protocols are offered.
//!
//! A machine without any certificates is no error here (build sandboxes, bare containers): https
//! then fails in its handshake, and http works. They are hundreds of files, so they are read only
//! for https, while the first connection is being made. The cryptography is ring's, named
//! explicitly, so that no process-wide default has to be installed.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use tokio::sync::oneshot::Receiver;

use super::blocking;
use crate::http::error::HttpError;
use crate::http::options::{Options, TlsVerification};

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
        let TrustedCertificates::Roots { webpki, .. } = &self.verifier.trusted else {
            return None;
        };
        if webpki.get().is_some() {
            return None;
        }

        let verifier = Arc::clone(&self.verifier);
        blocking::start("certificates", move || drop(verifier.webpki().cloned())).ok()
    }
}

fn offering(base: &ClientConfig, protocols: &[&[u8]]) -> Arc<ClientConfig> {
    let mut config = base.clone();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    Arc::new(config)
}

/// Verifies the certificate of a server.
#[derive(Debug)]
struct CertificateVerifier {
    trusted: TrustedCertificates,
    provider: Arc<CryptoProvider>,
}

/// Which certificates are acceptable.
#[derive(Debug)]
enum TrustedCertificates {
    /// Any certificate. The handshake's own signatures are still checked, so that the connection
    /// is at least to one and the same holder of a key.
    Any,
    /// Certificates that a trusted root has signed.
    Roots {
        /// What to read instead of the system's.
        file: Option<PathBuf>,
        dir: Option<PathBuf>,
        /// Made when first needed. `None` if there are no roots: then no certificate is trusted.
        webpki: OnceLock<Option<Arc<WebPkiServerVerifier>>>,
    },
}

impl CertificateVerifier {
    fn new(options: &Options, provider: Arc<CryptoProvider>) -> Self {
        let trusted = match options.verify_tls {
            TlsVerification::Insecure => TrustedCertificates::Any,
            TlsVerification::Verify => TrustedCertificates::Roots {
                file: options.ca_file.clone(),
                dir: options.ca_dir.clone(),
                webpki: OnceLock::new(),
            },
        };
        Self { trusted, provider }
    }

    /// The verifier with the trusted roots. The first call reads them; others wait for it.
    fn webpki(&self) -> Option<&Arc<WebPkiServerVerifier>> {
        let TrustedCertificates::Roots { file, dir, webpki } = &self.trusted else {
            return None;
        };
        webpki
            .get_or_init(|| self.read_roots(file.as_deref(), dir.as_deref()))
            .as_ref()
    }

    fn read_roots(
        &self,
        file: Option<&Path>,
        dir: Option<&Path>,
    ) -> Option<Arc<WebPkiServerVerifier>> {
        // A certificate that cannot be read is left out: fewer servers are trusted, never more.
        let found = if file.is_some() || dir.is_some() {
            rustls_native_certs::load_certs_from_paths(file, dir)
        } else {
            rustls_native_certs::load_native_certs()
        };
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(found.certs);

        let provider = Arc::clone(&self.provider);
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .ok()
    }
}

impl ServerCertVerifier for CertificateVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match (&self.trusted, self.webpki()) {
            (TrustedCertificates::Any, _) => Ok(ServerCertVerified::assertion()),
            (TrustedCertificates::Roots { .. }, Some(webpki)) => webpki.verify_server_cert(
                end_entity,
                intermediates,
                server_name,
                ocsp_response,
                now,
            ),
            (TrustedCertificates::Roots { .. }, None) => {
                Err(CertificateError::UnknownIssuer.into())
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
