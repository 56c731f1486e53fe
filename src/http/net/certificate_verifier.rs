//! Verifies the certificate of a server.
//!
//! Beyond what the TLS library accepts, a certificate that is itself among the trusted ones counts
//! for its host names and dates, whoever signed it and whether it may sign others: programs that make
//! a certificate for one server often mark it as an authority (`openssl req -x509` does), which the
//! library refuses in a server's certificate.

use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{
    WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor, verify_server_name,
};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};

use super::trusted_certificates::{CertificatesError, TrustedCertificates};
use crate::http::options::{CertificatePath, Options, TlsVerification};

/// Verifies the certificate of a server.
#[derive(Debug)]
pub(super) struct CertificateVerifier {
    acceptable: AcceptableCertificates,
    provider: Arc<CryptoProvider>,
}

/// Which certificates are acceptable.
#[derive(Debug)]
enum AcceptableCertificates {
    /// Any certificate. The handshake's own signatures are still checked, so that the connection
    /// is at least to one and the same holder of a key.
    Any,
    /// Certificates that are trusted, or that a trusted one has signed.
    Trusted {
        paths: Vec<CertificatePath>,
        /// Read when first needed.
        read: OnceLock<Result<TrustedVerifier, Arc<CertificatesError>>>,
    },
}

/// The library's verifier, and the certificates that it trusts.
#[derive(Debug)]
struct TrustedVerifier {
    webpki: Option<Arc<WebPkiServerVerifier>>,
    encoded: Vec<CertificateDer<'static>>,
}

impl CertificateVerifier {
    pub(super) fn new(options: &Options, provider: Arc<CryptoProvider>) -> Self {
        let acceptable = match options.verify_tls {
            TlsVerification::Insecure => AcceptableCertificates::Any,
            TlsVerification::Verify => AcceptableCertificates::Trusted {
                paths: options.certificate_paths.clone(),
                read: OnceLock::new(),
            },
        };
        Self {
            acceptable,
            provider,
        }
    }

    /// Whether certificates have to be read, and are not read yet.
    pub(super) fn needs_reading(&self) -> bool {
        match &self.acceptable {
            AcceptableCertificates::Any => false,
            AcceptableCertificates::Trusted { read, .. } => read.get().is_none(),
        }
    }

    /// Reads the certificates, if that is needed. A failure shows in the handshake.
    pub(super) fn read(&self) {
        if let AcceptableCertificates::Trusted { paths, read } = &self.acceptable {
            read.get_or_init(|| self.read_trusted(paths));
        }
    }

    fn read_trusted(
        &self,
        paths: &[CertificatePath],
    ) -> Result<TrustedVerifier, Arc<CertificatesError>> {
        let trusted = TrustedCertificates::read(paths).map_err(Arc::new)?;
        let (authorities, provider) = (Arc::new(trusted.authorities), Arc::clone(&self.provider));
        let webpki = WebPkiServerVerifier::builder_with_provider(authorities, provider).build();
        Ok(TrustedVerifier {
            // Fails only without any authority.
            webpki: webpki.ok(),
            encoded: trusted.encoded,
        })
    }

    /// Verifies a certificate that is itself trusted: its dates and its host names.
    fn verify_itself(
        &self,
        certificate: &CertificateDer<'_>,
        server_name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(certificate)?;
        let mut itself = RootCertStore::empty();
        itself.add(certificate.clone().into_owned())?;

        // With itself as the authority, the library verifies the dates first. Then it refuses what is
        // marked as an authority, and what another key signed; both are acceptable here.
        let algorithms = self.provider.signature_verification_algorithms.all;
        match verify_server_cert_signed_by_trust_anchor(&parsed, &itself, &[], now, algorithms) {
            Err(error) if !is_about_issuer(&error) => return Err(error),
            _ => {}
        }
        verify_server_name(&parsed, server_name)?;
        Ok(ServerCertVerified::assertion())
    }
}

/// Whether a certificate is refused for being an authority's, or for who signed it and how.
fn is_about_issuer(error: &Error) -> bool {
    let Error::InvalidCertificate(error) = error else {
        return false;
    };
    match error {
        CertificateError::UnknownIssuer
        | CertificateError::BadSignature
        | CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => true,
        CertificateError::Other(OtherError(other)) => {
            matches!(other.downcast_ref(), Some(webpki::Error::CaUsedAsEndEntity))
        }
        _ => false,
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
    ) -> Result<ServerCertVerified, Error> {
        let AcceptableCertificates::Trusted { paths, read } = &self.acceptable else {
            return Ok(ServerCertVerified::assertion());
        };
        let trusted = match read.get_or_init(|| self.read_trusted(paths)) {
            Ok(trusted) => trusted,
            Err(error) => {
                let error = Arc::clone(error) as _;
                return Err(CertificateError::Other(OtherError(error)).into());
            }
        };

        let verified = match &trusted.webpki {
            Some(webpki) => webpki.verify_server_cert(
                end_entity,
                intermediates,
                server_name,
                ocsp_response,
                now,
            ),
            None => Err(CertificateError::UnknownIssuer.into()),
        };
        if verified.is_err() && trusted.encoded.contains(end_entity) {
            return self.verify_itself(end_entity, server_name, now);
        }
        verified
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
