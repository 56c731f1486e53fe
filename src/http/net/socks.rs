//! SOCKS version 5 (RFC 1928, RFC 1929), as far as a client needs it: CONNECT by host name or
//! address, with or without a password. Names are always resolved by the proxy.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use url::{Host, Url};

use super::connect::{Transport, host_and_port};
use crate::http::lookup::request::percent_decoded;

/// Has the proxy connect `transport` to the server of `target`.
pub(in crate::http) async fn connect(
    transport: &mut Box<dyn Transport>,
    proxy: &Url,
    target: &Url,
) -> io::Result<()> {
    let has_credentials = !proxy.username().is_empty();
    let greeting: &[u8] = if has_credentials {
        &[5, 2, 0, 2]
    } else {
        &[5, 1, 0]
    };
    transport.write_all(greeting).await?;
    transport.flush().await?;
    match (transport.read_u8().await?, transport.read_u8().await?) {
        (5, 0) => {}
        (5, 2) if has_credentials => log_in(transport, proxy).await?,
        _ => return Err(io::Error::other("the proxy accepts no way to log in")),
    }
    transport.write_all(&connect_request(target)?).await?;
    transport.flush().await?;
    read_reply(transport).await
}

/// The port of a proxy that names none; the URL library does not know these schemes.
pub(in crate::http) fn default_port(url: &Url) -> Option<u16> {
    matches!(url.scheme(), "socks5" | "socks5h").then_some(1080)
}

async fn log_in(transport: &mut Box<dyn Transport>, proxy: &Url) -> io::Result<()> {
    let mut message = vec![1];
    for word in [proxy.username(), proxy.password().unwrap_or_default()] {
        push_counted(&mut message, &percent_decoded(word))?;
    }
    transport.write_all(&message).await?;
    transport.flush().await?;
    let _version = transport.read_u8().await?;
    match transport.read_u8().await? {
        0 => Ok(()),
        _ => Err(io::Error::other("the proxy refused user name or password")),
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

async fn read_reply(transport: &mut Box<dyn Transport>) -> io::Result<()> {
    let mut start = [0; 4];
    transport.read_exact(&mut start).await?;
    if start[1] != 0 {
        return Err(io::Error::other(format!(
            "the proxy answered with code {}",
            start[1]
        )));
    }
    let address_len = match start[3] {
        1 => 4,
        4 => 16,
        3 => usize::from(transport.read_u8().await?),
        _ => return Err(io::Error::other("the proxy's answer makes no sense")),
    };
    let mut address_and_port = vec![0; address_len + 2];
    transport.read_exact(&mut address_and_port).await?;
    Ok(())
}

fn push_counted(message: &mut Vec<u8>, bytes: &[u8]) -> io::Result<()> {
    let count = u8::try_from(bytes.len())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "longer than 255 bytes"))?;
    message.push(count);
    message.extend(bytes);
    Ok(())
}
