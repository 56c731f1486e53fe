//! TLS settings: which certificates are believed, and which protocols are offered.
//!
//! A machine without any certificates is no error here (build sandboxes, bare containers): https
//! then fails at its handshake, and http works. The cryptography is ring's, named explicitly, so
//! that no process-wide default has to be installed.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::error::HttpError;
use super::options::{Options, TlsVerification};

/// Settings for the two kinds of connections.
#[derive(Debug)]
pub(super) struct Tls {
    /// Offers HTTP/2 and HTTP/1.1.
    pub(super) any_http: Arc<ClientConfig>,
    /// Offers HTTP/1.1 only.
    pub(super) http1: Arc<ClientConfig>,
}

impl Tls {
    pub(super) fn new(options: &Options) -> Result<Self, HttpError> {
        let base = config(options)?;
        let with = |protocols: &[&[u8]]| {
            let mut config = base.clone();
            config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
            Arc::new(config)
        };
        Ok(Self { any_http: with(&[b"h2", b"http/1.1"]), http1: with(&[b"http/1.1"]) })
    }
}

fn config(options: &Options) -> Result<ClientConfig, HttpError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|cause| HttpError::setup("TLS", cause))?;
    Ok(match options.verify_tls {
        TlsVerification::Verify => builder.with_root_certificates(roots(options)),
        TlsVerification::Insecure => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AcceptAny { provider }))
        }
    }
    .with_no_client_auth())
}

/// The certificates to believe. One that cannot be read is left out: it makes fewer servers
/// believable, never more.
fn roots(options: &Options) -> RootCertStore {
    let (file, dir) = (options.ca_file.as_deref(), options.ca_dir.as_deref());
    let found = if file.is_some() || dir.is_some() {
        rustls_native_certs::load_certs_from_paths(file, dir)
    } else {
        rustls_native_certs::load_native_certs()
    };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    roots
}

/// Takes any certificate. The handshake's own signatures are still checked, so that the
/// connection is at least to one and the same holder of a key.
#[derive(Debug)]
struct AcceptAny {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
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
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
