//! One connection to a server: address, TCP, proxy, TLS.
//!
//! The addresses of a host are tried in turn, a little apart and side by side (RFC 8305), so that
//! a dead IPv6 route costs a quarter of a second and not a whole timeout. A proxy is spoken to
//! with absolute addresses for http ([`Requests`](crate::http::lookup::request::Requests) writes those) and told to
//! CONNECT for https. The timeout counts for each step: finding addresses, one address, TLS.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use url::{Host, Url};

use super::blocking;
use super::runtime::Shared;
use super::socks;
use crate::http::error::HttpErrorKind;
use crate::http::lookup::request::basic_credentials;
use crate::http::options::{Options, Protocol};

/// Whatever carries bytes: TCP, or TLS on it.
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
    pub(in crate::http) shared: &'a Shared,
    /// For each step.
    pub(in crate::http) timeout: Duration,
    /// Whether to offer HTTP/2.
    pub(in crate::http) offers_http2: bool,
}

impl Dialer<'_> {
    pub(in crate::http) async fn connect(&self) -> Result<Connection, HttpErrorKind> {
        let is_https = self.url.scheme() == "https";
        let roots = if is_https {
            self.tls()?.read_roots()
        } else {
            None
        };
        let transport = match self.options.proxies.for_url(self.url) {
            Some(proxy) => self.through(proxy).await?,
            None => Box::new(self.dial(self.url).await?),
        };
        if !is_https {
            return Ok(Connection {
                transport,
                protocol: Protocol::Http1,
            });
        }
        if let Some(roots) = roots {
            // A failure shows in the handshake.
            let _ = roots.await;
        }
        let tls = self.tls()?;
        let config = if self.offers_http2 {
            &tls.any_http
        } else {
            &tls.http1
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

    fn tls(&self) -> Result<&super::tls::Tls, HttpErrorKind> {
        self.shared
            .tls(self.options)
            .map_err(|error| error.kind().clone())
    }

    async fn through(&self, proxy: &Url) -> Result<Box<dyn Transport>, HttpErrorKind> {
        let tcp = self.dial(proxy).await?;
        let mut transport: Box<dyn Transport> = match proxy.scheme() {
            "https" => {
                let config = Arc::clone(&self.tls()?.http1);
                Box::new(self.handshake(proxy, config, tcp).await?)
            }
            _ => Box::new(tcp),
        };
        let agreed = match proxy.scheme() {
            "socks5" | "socks5h" => {
                self.in_time(socks::connect(&mut transport, proxy, self.url))
                    .await
            }
            "http" | "https" if self.url.scheme() == "https" => {
                self.in_time(self.ask_proxy(&mut transport, proxy)).await
            }
            "http" | "https" => Ok(()),
            other => Err(io::Error::other(format!(
                "proxies of the kind `{other}` are not known"
            ))),
        };
        agreed.map_err(|error| HttpErrorKind::Proxy(Arc::new(error)))?;
        Ok(transport)
    }

    async fn in_time<T>(&self, step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        timeout(self.timeout, step)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Has an HTTP proxy connect to the server.
    async fn ask_proxy(&self, transport: &mut Box<dyn Transport>, proxy: &Url) -> io::Result<()> {
        let (host, port) = host_and_port(self.url)?;
        let mut request = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n");
        if let Some(credentials) = basic_credentials(proxy) {
            request.push_str(&format!("Proxy-Authorization: {credentials}\r\n"));
        }
        request.push_str("\r\n");
        transport.write_all(request.as_bytes()).await?;
        transport.flush().await?;
        let status = read_proxy_status(transport).await?;
        if (200..300).contains(&status) {
            return Ok(());
        }
        Err(io::Error::other(format!(
            "the proxy answered with status {status}"
        )))
    }

    async fn handshake<T: Transport>(
        &self,
        url: &Url,
        config: Arc<ClientConfig>,
        transport: T,
    ) -> Result<tokio_rustls::client::TlsStream<T>, HttpErrorKind> {
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| HttpErrorKind::Tls(Arc::new(error)))?;
        match timeout(
            self.timeout,
            TlsConnector::from(config).connect(name, transport),
        )
        .await
        {
            Ok(outcome) => outcome.map_err(|error| HttpErrorKind::Tls(Arc::new(error))),
            Err(_) => Err(HttpErrorKind::ConnectTimeout(self.timeout)),
        }
    }

    /// A TCP connection to the host of `url`.
    async fn dial(&self, url: &Url) -> Result<TcpStream, HttpErrorKind> {
        let addresses = self.resolve(url).await?;
        let mut waiting = in_turn(addresses)
            .into_iter()
            .map(|address| self.dial_address(address));
        let mut dialing: FuturesUnordered<_> = waiting.next().into_iter().collect();
        let mut first_error = None;
        loop {
            tokio::select! {
                outcome = dialing.next() => match outcome {
                    Some(Ok(stream)) => return Ok(stream),
                    Some(Err(error)) => {
                        first_error = first_error.or(Some(error));
                        dialing.extend(waiting.next());
                    }
                    None => return Err(first_error.unwrap_or_else(no_address)),
                },
                () = tokio::time::sleep(NEXT_ADDRESS_AFTER), if waiting.len() > 0 => {
                    dialing.extend(waiting.next());
                }
            }
        }
    }

    async fn resolve(&self, url: &Url) -> Result<Vec<SocketAddr>, HttpErrorKind> {
        let fail = |error: io::Error| HttpErrorKind::Resolve(Arc::new(error));
        let port = url
            .port_or_known_default()
            .or(socks::default_port(url))
            .unwrap_or_default();
        let name = match url.host() {
            Some(Host::Ipv4(address)) => return Ok(vec![(address, port).into()]),
            Some(Host::Ipv6(address)) => return Ok(vec![(address, port).into()]),
            Some(Host::Domain(name)) => name,
            None => return Err(no_address()),
        };
        match timeout(self.timeout, blocking::resolve(name.to_owned(), port)).await {
            Ok(found) => found.map_err(fail),
            Err(_) => Err(fail(io::ErrorKind::TimedOut.into())),
        }
    }

    async fn dial_address(&self, address: SocketAddr) -> Result<TcpStream, HttpErrorKind> {
        let fail = |error: io::Error| HttpErrorKind::Connect(Arc::new(error));
        match timeout(self.timeout, TcpStream::connect(address)).await {
            Ok(outcome) => {
                let stream = outcome.map_err(fail)?;
                // Requests leave when they are written; waiting to fill a packet costs a round trip.
                stream.set_nodelay(true).map_err(fail)?;
                Ok(stream)
            }
            Err(_) => Err(HttpErrorKind::ConnectTimeout(self.timeout)),
        }
    }
}

/// Host and port as they stand in a request.
pub(in crate::http) fn host_and_port(url: &Url) -> io::Result<(&str, u16)> {
    let missing = || io::Error::new(io::ErrorKind::InvalidInput, "the address has no host");
    let host = url.host_str().ok_or_else(missing)?;
    Ok((host, url.port_or_known_default().ok_or_else(missing)?))
}

fn no_address() -> HttpErrorKind {
    HttpErrorKind::Resolve(Arc::new(io::Error::new(
        io::ErrorKind::NotFound,
        "no address",
    )))
}

/// Both families by turns, beginning with the one the system prefers.
fn in_turn(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let is_first_kind = addresses.first().map(SocketAddr::is_ipv4);
    let (first, other): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|address| Some(address.is_ipv4()) == is_first_kind);
    let mut other = other.into_iter();
    let mut turns = Vec::new();
    for address in first {
        turns.push(address);
        turns.extend(other.next());
    }
    turns.extend(other);
    turns
}

/// The status of a proxy's answer to CONNECT. It is read byte by byte: what follows it belongs
/// to the server.
async fn read_proxy_status(transport: &mut Box<dyn Transport>) -> io::Result<u16> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == PROXY_HEAD_MAX_BYTES {
            return Err(io::Error::other("the proxy's answer is too long"));
        }
        head.push(transport.read_u8().await?);
    }
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut answer = httparse::Response::new(&mut fields);
    answer.parse(&head).map_err(io::Error::other)?;
    Ok(answer.code.unwrap_or_default())
}

/// The head start of one address before the next (RFC 8305, section 5).
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);

const PROXY_HEAD_MAX_BYTES: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns() {
        let parse = |text: &str| -> SocketAddr { text.parse().unwrap() };
        let (a, b, c) = (parse("[::1]:1"), parse("[::2]:1"), parse("[::3]:1"));
        let (x, y) = (parse("1.1.1.1:1"), parse("2.2.2.2:1"));
        assert_eq!(in_turn(vec![a, b, c, x, y]), [a, x, b, y, c]);
        assert_eq!(in_turn(vec![x, a]), [x, a]);
        assert_eq!(in_turn(vec![]), []);
    }
}
