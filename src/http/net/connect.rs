//! One connection to a server: address, TCP, proxy, TLS.
//!
//! The addresses of a host are tried in turn, a little apart and side by side (RFC 8305), so that
//! an IPv6 route that does not work costs a quarter of a second and not a whole timeout. An HTTP
//! proxy gets whole URLs in its requests for http (the request encoder of lookups writes them),
//! and a CONNECT for https. The timeout limits each step: resolving, one address, the proxy, TLS.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tracing::debug;
use url::Url;

use super::address;
use super::prompt_acks::PromptlyAcknowledged;
use super::proxy;
use super::runtime::ConnectionSetup;
use super::timeout::timeout;
use super::tls::Tls;
use super::tls_failure::handshake_failure;
use crate::http::error::HttpErrorKind;
use crate::http::options::{Options, Protocol};

/// What carries the bytes: TCP, or TLS on it.
pub(in crate::http) trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

/// A connection ready for requests.
pub(in crate::http) struct Connection {
    pub(in crate::http) transport: Box<dyn Transport>,
    pub(in crate::http) protocol: Protocol,
}

/// Where to connect, and how.
pub(in crate::http) struct Dialer<'a> {
    pub(in crate::http) url: &'a Url,
    pub(in crate::http) options: &'a Options,
    pub(in crate::http) setup: &'a ConnectionSetup,
    /// For each step.
    pub(in crate::http) timeout: Duration,
    /// Whether to offer HTTP/2.
    pub(in crate::http) offers_http2: bool,
}

impl Dialer<'_> {
    /// Connects to the server.
    pub(in crate::http) async fn connect(&self) -> Result<Connection, HttpErrorKind> {
        if self.url.scheme() != "https" {
            return Ok(Connection {
                transport: self.open_transport().await?,
                protocol: Protocol::Http1,
            });
        }

        // Reading the certificates takes as long as connecting; both happen at the same time.
        let tls = self.tls()?;
        let roots = tls.read_roots();
        let transport = self.open_transport().await?;
        if let Some(roots) = roots {
            // A failure shows in the handshake.
            let _ = roots.await;
        }

        let configs = tls.configs_for(self.url, self.options);
        let config = if self.offers_http2 {
            &configs.any_http
        } else {
            &configs.http1
        };
        let stream = self
            .handshake(self.url, Arc::clone(config), transport)
            .await?;
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let protocol = if is_http2 {
            Protocol::Http2
        } else {
            Protocol::Http1
        };
        Ok(Connection {
            transport: Box::new(stream),
            protocol,
        })
    }

    fn tls(&self) -> Result<&Tls, HttpErrorKind> {
        self.setup
            .tls(self.options)
            .map_err(|error| error.kind().clone())
    }

    /// The bytes' way to the server, direct or through its proxy.
    async fn open_transport(&self) -> Result<Box<dyn Transport>, HttpErrorKind> {
        match self.options.proxies.for_url(self.url) {
            None => Ok(Box::new(self.dial(self.url).await?)),
            Some(proxy) => self
                .dial_through(proxy)
                .await
                .map_err(|kind| kind.via_proxy(proxy)),
        }
    }

    async fn dial_through(&self, proxy: &Url) -> Result<Box<dyn Transport>, HttpErrorKind> {
        let tcp = self.dial(proxy).await?;
        let mut transport: Box<dyn Transport> = match proxy.scheme() {
            "https" => {
                let config = Arc::clone(&self.tls()?.anonymous().http1);
                Box::new(self.handshake(proxy, config, tcp).await?)
            }
            _ => Box::new(tcp),
        };

        let connected = match proxy.scheme() {
            "http" | "https" if self.url.scheme() == "https" => {
                self.within_timeout(proxy::connect_http(&mut transport, proxy, self.url))
                    .await
            }
            "http" | "https" => Ok(()),
            // The settings have no proxies of other kinds.
            _ => {
                self.within_timeout(proxy::connect_socks(&mut transport, proxy, self.url))
                    .await
            }
        };
        connected.map_err(|error| HttpErrorKind::Proxy(Arc::new(error)))?;
        Ok(transport)
    }

    async fn within_timeout<T>(&self, step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        timeout(self.timeout, step)
            .await
            .unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))
    }

    async fn handshake<T: Transport>(
        &self,
        url: &Url,
        config: Arc<ClientConfig>,
        transport: T,
    ) -> Result<TlsStream<T>, HttpErrorKind> {
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| HttpErrorKind::Tls(Arc::new(error)))?;
        let handshake = TlsConnector::from(config).connect(name, transport);
        match timeout(self.timeout, handshake).await {
            Some(Ok(stream)) => Ok(stream),
            Some(Err(error)) => Err(handshake_failure(error)),
            None => Err(HttpErrorKind::ConnectTimeout(self.timeout)),
        }
    }

    /// A TCP connection to the host of `url`.
    async fn dial(&self, url: &Url) -> Result<PromptlyAcknowledged, HttpErrorKind> {
        let addresses = address::resolve(url, self.timeout).await?;
        let mut waiting = addresses
            .into_iter()
            .map(|address| self.dial_address(address));
        let mut dialing: FuturesUnordered<_> = waiting.next().into_iter().collect();
        let mut first_error = None;
        loop {
            tokio::select! {
                outcome = dialing.next() => match outcome {
                    Some(Ok(stream)) => return Ok(PromptlyAcknowledged(stream)),
                    Some(Err(error)) => {
                        first_error = first_error.or(Some(error));
                        dialing.extend(waiting.next());
                    }
                    None => return Err(first_error.unwrap_or_else(|| address::no_address(url))),
                },
                () = tokio::time::sleep(NEXT_ADDRESS_AFTER), if waiting.len() > 0 => {
                    dialing.extend(waiting.next());
                }
            }
        }
    }

    async fn dial_address(&self, address: SocketAddr) -> Result<TcpStream, HttpErrorKind> {
        debug!(%address, "connecting");
        let Some(connected) = timeout(self.timeout, TcpStream::connect(address)).await else {
            return Err(HttpErrorKind::ConnectTimeout(self.timeout));
        };
        connected
            .and_then(|stream| {
                // Requests leave when they are written; waiting to fill a packet costs a round trip.
                stream.set_nodelay(true)?;
                Ok(stream)
            })
            .map_err(|error| HttpErrorKind::Connect(Arc::new(error)))
    }
}

/// The head start of one address before the next (RFC 8305, section 5).
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);
