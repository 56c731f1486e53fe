//! What a URL says about a connection: host, port, user name and password; and the socket
//! addresses of the host.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64;
use http::header::{HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;
use url::{Host, Url};

use super::blocking;
use super::timeout::timeout;
use crate::http::error::HttpErrorKind;

/// Host and port as they are written in a request.
pub(super) fn host_and_port(url: &Url) -> io::Result<(&str, u16)> {
    match (url.host_str(), port(url)) {
        (Some(host), Some(port)) => Ok((host, port)),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the URL has no host or no port",
        )),
    }
}

/// The port of `url`. The URL library does not know the default of SOCKS proxies.
pub(super) fn port(url: &Url) -> Option<u16> {
    url.port_or_known_default().or(match url.scheme() {
        "socks5" | "socks5h" => Some(1080),
        _ => None,
    })
}

/// The value of an `Authorization` field from the user name and password in `url`.
pub(in crate::http) fn basic_credentials(url: &Url) -> Option<HeaderValue> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let [user, password] =
        [url.username(), url.password().unwrap_or_default()].map(percent_decoded);
    Some(basic(&user, &password))
}

/// The value of an `Authorization` field with a user name and a password. `Debug` does not show it.
pub(in crate::http) fn basic(user: &[u8], password: &[u8]) -> HeaderValue {
    let pair = [user, b":", password].concat();
    let text = format!("Basic {}", BASE64.encode(&pair));
    let mut value = HeaderValue::from_str(&text).expect("base64 is allowed in a header field");
    value.set_sensitive(true);
    value
}

/// The bytes of a header field as a request has it.
pub(in crate::http) fn field_line(name: &HeaderName, value: &HeaderValue) -> Vec<u8> {
    let mut line = Vec::new();
    for (index, word) in name.as_str().split('-').enumerate() {
        line.extend((index > 0).then_some(b'-'));
        line.extend(word.bytes().take(1).map(|byte| byte.to_ascii_uppercase()));
        line.extend(word.bytes().skip(1));
    }
    line.extend(b": ");
    line.extend(value.as_bytes());
    line.extend(b"\r\n");
    line
}

/// `text` with its `%XX` turned into bytes.
pub(super) fn percent_decoded(text: &str) -> Vec<u8> {
    percent_decode_str(text).collect()
}

/// The socket addresses of the host of `url`, in the order in which to try them.
pub(super) async fn resolve(url: &Url, limit: Duration) -> Result<Vec<SocketAddr>, HttpErrorKind> {
    let port = port(url).unwrap_or_default();
    let name = match url.host() {
        Some(Host::Ipv4(address)) => return Ok(vec![(address, port).into()]),
        Some(Host::Ipv6(address)) => return Ok(vec![(address, port).into()]),
        Some(Host::Domain(name)) => name,
        None => return Err(no_address(url)),
    };
    let found = timeout(limit, blocking::resolve(name.to_owned(), port))
        .await
        .unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()));
    match found {
        Ok(addresses) => Ok(alternate_families(addresses)),
        Err(error) => Err(resolve_failure(name, error)),
    }
}

/// The failure to resolve `host`.
pub(super) fn resolve_failure(host: &str, cause: io::Error) -> HttpErrorKind {
    // The texts of the system differ, and do not say that the network may be missing.
    let is_unknown = cause
        .to_string()
        .starts_with("failed to lookup address information: ");
    let cause = match is_unknown {
        true => io::Error::new(io::ErrorKind::NotFound, "no such host, or no network"),
        false => cause,
    };
    HttpErrorKind::Resolve {
        host: host.into(),
        cause: Arc::new(cause),
    }
}

/// The host of `url` has no address.
pub(super) fn no_address(url: &Url) -> HttpErrorKind {
    let cause = io::Error::new(io::ErrorKind::NotFound, "no address");
    resolve_failure(url.host_str().unwrap_or_default(), cause)
}

/// IPv4 and IPv6 addresses in turn, beginning with the family that the system prefers.
fn alternate_families(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let prefers_ipv4 = addresses.first().map(SocketAddr::is_ipv4);
    let (preferred, other): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|address| Some(address.is_ipv4()) == prefers_ipv4);

    let mut other = other.into_iter();
    let mut alternating = Vec::new();
    for address in preferred {
        alternating.push(address);
        alternating.extend(other.next());
    }
    alternating.extend(other);
    alternating
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn address_families_alternate() {
        let (a, b, c) = (parse("[::1]:1"), parse("[::2]:1"), parse("[::3]:1"));
        let (x, y) = (parse("1.1.1.1:1"), parse("2.2.2.2:1"));
        assert_eq!(alternate_families(vec![a, b, c, x, y]), [a, x, b, y, c]);
        assert_eq!(alternate_families(vec![x, a]), [x, a]);
        assert_eq!(alternate_families(vec![]), []);
    }

    #[test]
    fn percent_decoding() {
        for (text, expected) in [
            ("a%20b", "a b"),
            ("%", "%"),
            ("%4", "%4"),
            ("%zz%41", "%zzA"),
            ("%+1", "%+1"),
        ] {
            assert_eq!(percent_decoded(text), expected.as_bytes(), "{text}");
        }
    }
}
