//! Proxies: HTTP with absolute addresses, HTTP with CONNECT, SOCKS.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use url::Url;

use crate::format::server_url::ServerUrl;
use crate::http::error::HttpErrorKind;
use crate::http::testing::*;
use crate::http::*;

fn proxied(proxy: &str, no_proxy: &str) -> Options {
    let proxy = Some(Url::parse(proxy).unwrap());
    let no_proxy = NoProxy::parse(no_proxy);
    Options {
        proxies: Proxies {
            http: proxy.clone(),
            https: proxy,
            no_proxy,
        },
        ..quick()
    }
}

/// Copies both ways until one side ends.
fn splice(client: TcpStream, server: TcpStream) {
    let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    let there = std::thread::spawn(move || copy_to_end(from, to));
    copy_to_end(server, client);
    let _ = there.join();
}

fn copy_to_end(mut from: TcpStream, mut to: TcpStream) {
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(std::net::Shutdown::Write);
}

fn fetch(options: Options, url: &str) -> Result<Vec<u8>, HttpError> {
    let mut body = Client::new(options)?.nar(NarRequest::new(Url::parse(url).unwrap()))?;
    let mut bytes = Vec::new();
    while let Some(chunk) = body.next_chunk()? {
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

#[test]
fn plain_http_goes_through_as_absolute_addresses() {
    let proxy = TestServer::start(|mut peer| {
        while let Some(path) = peer.request() {
            let head = peer.head.to_ascii_lowercase();
            let is_known = head.contains("proxy-authorization: basic bwu6c2vjcmv0");
            let path = path.strip_prefix("http://server.invalid:8080").unwrap();
            assert!(peer.send(&if is_known {
                correct(path)
            } else {
                response("407 No", "", "")
            }));
        }
    });
    let spec = ServerSpec::new(ServerUrl::parse("http://server.invalid:8080").unwrap());
    let options = proxied(&proxy.url().replace("://", "://me:secret@"), "");
    look_up(options.clone(), spec.clone(), &items(20)).assert_all_found(&items(20));
    assert!(fetch(options, "http://server.invalid:8080/nar").is_ok());
    let error = fetch(proxied(&proxy.url(), ""), "http://server.invalid:8080/nar").unwrap_err();
    assert_eq!(error.status(), Some(407));
    let unknown = look_up(proxied(&proxy.url(), ""), spec.clone(), &items(1));
    for error in [&error, unknown.error(item(0))] {
        let text = error.without_url().to_string();
        let expected = format!("proxy {}: a user name and password", proxy.url());
        assert!(text.contains(&expected), "{text}");
    }

    // Without the proxy the name leads nowhere.
    let results = look_up(proxied(&proxy.url(), "server.invalid"), spec, &items(1));
    assert!(matches!(
        results.down[0].kind(),
        HttpErrorKind::Resolve { .. }
    ));
}

#[test]
fn https_goes_through_a_tunnel() {
    let proxy = TestServer::start(|mut peer| {
        let target = peer.request().unwrap();
        assert!(peer.head.starts_with("CONNECT "));
        if !peer
            .head
            .to_ascii_lowercase()
            .contains("proxy-authorization: basic bwu6c2vjcmv0")
        {
            peer.send(&response("407 Who", "", ""));
            return;
        }
        let server = TcpStream::connect(target).unwrap();
        peer.send(b"HTTP/1.1 200 Connected\r\nVia: x\r\n\r\n");
        splice(peer.into_stream(), server);
    });
    let backend = TestServer::answering(correct);
    let server = super::tls::TlsServer::before(&backend);
    let options = Options {
        verify_tls: TlsVerification::Insecure,
        ..proxied(&proxy.url().replace("://", "://me:secret@"), "")
    };
    look_up(options.clone(), server.spec(), &items(200)).assert_all_found(&items(200));
    assert!(fetch(options, &format!("{}/nar", server.url())).is_ok());
    assert_eq!(proxy.connections(), 2);

    let results = look_up(proxied(&proxy.url(), ""), server.spec(), &items(1));
    let error = &results.down[0];
    assert!(matches!(error.kind().innermost(), HttpErrorKind::Proxy(_)));
    let expected = format!(
        "proxy {}: it did not connect to the server: the proxy answered with status 407",
        proxy.url()
    );
    assert_eq!(error.without_url().to_string(), expected);
}

#[test]
fn socks() {
    let backend = TestServer::answering(correct);
    let target = backend.address;
    let proxy = TestServer::start(move |peer| {
        let mut stream = peer.into_stream();
        let mut greeting = [0; 2];
        stream.read_exact(&mut greeting).unwrap();
        let mut methods = vec![0; greeting[1].into()];
        stream.read_exact(&mut methods).unwrap();
        assert!(greeting[0] == 5 && methods.contains(&2));
        stream.write_all(&[5, 2]).unwrap();
        let mut login = [0; 11];
        stream.read_exact(&mut login).unwrap();
        assert_eq!(&login, b"\x01\x02me\x06secret");
        stream.write_all(&[1, 0]).unwrap();
        let mut request = [0; 21];
        stream.read_exact(&mut request).unwrap();
        assert_eq!(&request, b"\x05\x01\x00\x03\x0eserver.invalids\x20");
        stream.write_all(&[5, 0, 0, 1, 127, 0, 0, 1, 0, 0]).unwrap();
        splice(stream, TcpStream::connect(target).unwrap());
    });
    let address = proxy.address;
    // The proxy resolves names with either scheme, for lookups and for nars.
    for scheme in ["socks5", "socks5h"] {
        let options = proxied(&format!("{scheme}://me:secret@{address}"), "");
        let spec = ServerSpec::new(ServerUrl::parse("http://server.invalid:29472").unwrap());
        look_up(options.clone(), spec, &items(20)).assert_all_found(&items(20));
        assert!(fetch(options, "http://server.invalid:29472/nar").is_ok());
    }
}

#[test]
fn a_proxy_that_is_not_there() {
    let address = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let spec = ServerSpec::new(ServerUrl::parse("http://server.invalid").unwrap());
    let options = proxied(&format!("http://user:secret@{address}"), "");
    let results = look_up(options.clone(), spec, &items(1));
    let nar_error = fetch(options, "http://server.invalid/nar").unwrap_err();
    for error in [&results.down[0], &nar_error] {
        assert!(matches!(
            error.kind().innermost(),
            HttpErrorKind::Connect(_)
        ));
        let text = error.without_url().to_string();
        let expected = format!("proxy http://{address}: cannot connect: Connection refused");
        assert!(text.contains(&expected), "{text}");
    }
}
