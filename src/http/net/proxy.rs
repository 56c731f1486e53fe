//! Asking a proxy for a connection to a server: CONNECT (RFC 9110, section 9.3.6) to HTTP
//! proxies, and SOCKS version 5 (RFC 1928, RFC 1929), by host name or address, with or without a
//! password. A SOCKS proxy always resolves the name.
//!
//! `hyper-util` has connectors for both, but its CONNECT drops the status that the proxy answered
//! with and accepts no 2xx but 200, and its SOCKS offers no login-free method when there is a
//! password, which proxies that need no password refuse.

use std::io;

use http::header::PROXY_AUTHORIZATION;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use url::{Host, Url};

use super::address::{basic_credentials, field_line, host_and_port, percent_decoded};

/// Makes an HTTP proxy connect `stream` to the server of `target`.
pub(super) async fn connect_http(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    proxy: &Url,
    target: &Url,
) -> io::Result<()> {
    let (host, port) = host_and_port(target)?;
    let head = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n");
    let mut request = head.into_bytes();
    if let Some(credentials) = basic_credentials(proxy) {
        request.extend(field_line(&PROXY_AUTHORIZATION, &credentials));
    }
    request.extend(b"\r\n");
    write_flushed(stream, &request).await?;

    match read_status(stream).await? {
        200..300 => Ok(()),
        status => Err(io::Error::other(format!(
            "the proxy answered with status {status}"
        ))),
    }
}

/// The status of a proxy's response to CONNECT. It is read byte by byte: what follows it comes
/// from the server.
async fn read_status(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<u16> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == HEAD_MAX_BYTES {
            return Err(io::Error::other("the proxy's response is too long"));
        }
        head.push(stream.read_u8().await?);
    }
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut fields);
    response.parse(&head).map_err(io::Error::other)?;
    Ok(response.code.unwrap_or_default())
}

/// Makes a SOCKS proxy connect `stream` to the server of `target`.
pub(super) async fn connect_socks(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    proxy: &Url,
    target: &Url,
) -> io::Result<()> {
    let has_credentials = !proxy.username().is_empty();
    let methods: &[u8] = if has_credentials {
        &[5, 2, 0, 2]
    } else {
        &[5, 1, 0]
    };
    write_flushed(stream, methods).await?;

    match (stream.read_u8().await?, stream.read_u8().await?) {
        (5, 0) => {}
        (5, 2) if has_credentials => log_in(stream, proxy).await?,
        _ => return Err(io::Error::other("the proxy accepts no login method")),
    }
    write_flushed(stream, &connect_request(target)?).await?;
    read_reply(stream).await
}

async fn log_in(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), proxy: &Url) -> io::Result<()> {
    let mut message = vec![1];
    for field in [proxy.username(), proxy.password().unwrap_or_default()] {
        push_counted(&mut message, &percent_decoded(field))?;
    }
    write_flushed(stream, &message).await?;

    let _version = stream.read_u8().await?;
    match stream.read_u8().await? {
        0 => Ok(()),
        _ => Err(io::Error::other(
            "the proxy refused the user name or password",
        )),
    }
}

fn connect_request(target: &Url) -> io::Result<Vec<u8>> {
    let (_, port) = host_and_port(target)?;
    let mut message = vec![5, 1, 0];
    match target.host() {
        Some(Host::Ipv4(address)) => {
            message.push(1);
            message.extend(address.octets());
        }
        Some(Host::Ipv6(address)) => {
            message.push(4);
            message.extend(address.octets());
        }
        Some(Host::Domain(name)) => {
            message.push(3);
            push_counted(&mut message, name.as_bytes())?;
        }
        None => return Err(io::ErrorKind::InvalidInput.into()),
    }
    message.extend(port.to_be_bytes());
    Ok(message)
}

async fn read_reply(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
    let mut start = [0; 4];
    stream.read_exact(&mut start).await?;
    let [_version, code, _, address_kind] = start;
    if code != 0 {
        return Err(io::Error::other(format!(
            "the proxy answered with code {code}"
        )));
    }

    let address_len = match address_kind {
        1 => 4,
        4 => 16,
        3 => usize::from(stream.read_u8().await?),
        _ => return Err(io::Error::other("the proxy's reply is invalid")),
    };
    let mut address_and_port = vec![0; address_len + 2];
    stream.read_exact(&mut address_and_port).await?;
    Ok(())
}

fn push_counted(message: &mut Vec<u8>, bytes: &[u8]) -> io::Result<()> {
    let count = u8::try_from(bytes.len())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "longer than 255 bytes"))?;
    message.push(count);
    message.extend(bytes);
    Ok(())
}

async fn write_flushed(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}

/// The longest response to CONNECT.
const HEAD_MAX_BYTES: usize = 16 << 10;
