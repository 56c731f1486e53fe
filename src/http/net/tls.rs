//! TLS settings: which certificates are believed, and which protocols are offered.
//!
//! A machine without any certificates is no error here (build sandboxes, bare containers): https
//! then fails at its handshake, and http works. They are hundreds of files, so they are read only
//! for https, while the first connection is being made. The cryptography is ring's, named
//! explicitly, so that no process-wide default has to be installed.

use std::path::PathBuf;
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
    pub(in crate::http) any_http: Arc<ClientConfig>,
    /// Offers HTTP/1.1 only.
    pub(in crate::http) http1: Arc<ClientConfig>,
    verifier: Arc<Verifier>,
}

impl Tls {
    pub(in crate::http) fn new(options: &Options) -> Result<Self, HttpError> {
        let provider = Arc::new(ring::default_provider());
        let verifier = Arc::new(Verifier::new(options, Arc::clone(&provider)));
        let base = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|cause| HttpError::setup("TLS", cause))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&verifier) as _)
            .with_no_client_auth();
        let with = |protocols: &[&[u8]]| {
            let mut config = base.clone();
            config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
            Arc::new(config)
        };
        Ok(Self {
            any_http: with(&[b"h2", b"http/1.1"]),
            http1: with(&[b"http/1.1"]),
            verifier,
        })
    }

    /// Begins to read the certificates, if that is still to be done, on a thread for such things.
    /// Who waits for it before the handshake does not make everybody else wait in it. Without a
    /// thread they are read in the handshake.
    pub(in crate::http) fn read_roots(&self) -> Option<Receiver<()>> {
        let Believed::Roots { webpki, .. } = &self.verifier.believed else {
            return None;
        };
        if webpki.get().is_some() {
            return None;
        }
        let verifier = Arc::clone(&self.verifier);
        blocking::start("certificates", move || drop(verifier.webpki().cloned())).ok()
    }
}

/// Decides about the certificate that a server shows.
#[derive(Debug)]
struct Verifier {
    believed: Believed,
    provider: Arc<CryptoProvider>,
}

#[derive(Debug)]
enum Believed {
    /// Any certificate. The handshake's own signatures are still checked, so that the connection
    /// is at least to one and the same holder of a key.
    Any,
    /// Those that a root vouches for.
    Roots {
        /// What to read instead of the system's.
        file: Option<PathBuf>,
        dir: Option<PathBuf>,
        /// Made when first needed. `None` if there are no roots: then no certificate is believed.
        webpki: OnceLock<Option<Arc<WebPkiServerVerifier>>>,
    },
}

impl Verifier {
    fn new(options: &Options, provider: Arc<CryptoProvider>) -> Self {
        let believed = match options.verify_tls {
            TlsVerification::Insecure => Believed::Any,
            TlsVerification::Verify => Believed::Roots {
                file: options.ca_file.clone(),
                dir: options.ca_dir.clone(),
                webpki: OnceLock::new(),
            },
        };
        Self { believed, provider }
    }

    /// The one that knows the roots. Reads them the first time; others wait for that.
    fn webpki(&self) -> Option<&Arc<WebPkiServerVerifier>> {
        let Believed::Roots { file, dir, webpki } = &self.believed else {
            return None;
        };
        let read = || {
            // One that cannot be read is left out: it makes fewer servers believable, never more.
            let found = if file.is_some() || dir.is_some() {
                rustls_native_certs::load_certs_from_paths(file.as_deref(), dir.as_deref())
            } else {
                rustls_native_certs::load_native_certs()
            };
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(found.certs);
            let provider = Arc::clone(&self.provider);
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .ok()
        };
        webpki.get_or_init(read).as_ref()
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match (&self.believed, self.webpki()) {
            (Believed::Any, _) => Ok(ServerCertVerified::assertion()),
            (Believed::Roots { .. }, Some(webpki)) => webpki.verify_server_cert(
                end_entity,
                intermediates,
                server_name,
                ocsp_response,
                now,
            ),
            (Believed::Roots { .. }, None) => Err(CertificateError::UnknownIssuer.into()),
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
