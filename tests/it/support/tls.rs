//! TLS in front of a server, with a certificate of its own authority; on demand it requires clients to
//! have a certificate of that authority too.

use std::net::SocketAddr;
use std::sync::Arc;

use rcgen::{BasicConstraints, Certificate, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use tokio::io::{AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::Server;

/// An authority that signs certificates.
pub(crate) struct Authority {
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self {
            certificate: params.self_signed(&key).unwrap(),
            issuer: Issuer::new(params, key),
        }
    }

    /// Its certificate as PEM.
    pub(crate) fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// A certificate for `name`, and its key.
    pub(crate) fn sign(&self, name: &str) -> (Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.der().clone()).unwrap();
        Arc::new(roots)
    }
}

/// A listener that passes on to a server without TLS.
pub(crate) struct TlsFront {
    _runtime: Runtime,
    address: SocketAddr,
}

/// Whether clients need a certificate.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clients {
    Anonymous,
    Certified,
}

impl TlsFront {
    /// TLS before `backend`, with a certificate for 127.0.0.1.
    pub(crate) fn before(backend: &Server, authority: &Authority, clients: Clients) -> Self {
        Self::start(backend, authority, clients, false)
    }

    /// The same, but connections end without a `close_notify`.
    pub(crate) fn without_close_notify(backend: &Server, authority: &Authority) -> Self {
        Self::start(backend, authority, Clients::Anonymous, true)
    }

    fn start(
        backend: &Server,
        authority: &Authority,
        clients: Clients,
        omits_close_notify: bool,
    ) -> Self {
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = match clients {
            Clients::Anonymous => builder.with_no_client_auth(),
            Clients::Certified => {
                let roots = authority.roots();
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let (certificate, key) = authority.sign("127.0.0.1");
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = builder.with_single_cert(vec![certificate.der().clone()], key);
        let acceptor = TlsAcceptor::from(Arc::new(config.unwrap()));

        let (runtime, backend) = (Runtime::new().unwrap(), backend.address());
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    // A client that does not like the certificate goes away, and so does one
                    // that has none.
                    if let Ok(mut stream) = acceptor.accept(stream).await {
                        let mut plain = TcpStream::connect(backend).await.unwrap();
                        let _ = match omits_close_notify {
                            true => copy_until_plain_ends(stream, plain).await,
                            false => copy_bidirectional(&mut stream, &mut plain).await.map(drop),
                        };
                    }
                });
            }
        });
        Self {
            _runtime: runtime,
            address,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.address)
    }
}

/// Ends both connections when the one without TLS ends, which TLS is not told.
async fn copy_until_plain_ends(
    stream: TlsStream<TcpStream>,
    mut plain: TcpStream,
) -> std::io::Result<()> {
    let (mut requests, mut responses) = tokio::io::split(stream);
    let (mut plain_responses, mut plain_requests) = plain.split();
    let copied = tokio::select! {
        copied = tokio::io::copy(&mut plain_responses, &mut responses) => copied,
        copied = tokio::io::copy(&mut requests, &mut plain_requests) => copied,
    };
    copied?;
    responses.flush().await
}
