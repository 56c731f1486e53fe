//! TLS: certificates, HTTP/1.1 behind it, and HTTP/2.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use h2::server::SendResponse;
use rcgen::{Certificate, CertificateParams, DnType, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use url::Url;

use crate::format::server_url::ServerUrl;
use crate::http::error::HttpErrorKind;
use crate::http::options::Protocol;
use crate::http::testing::*;
use crate::http::*;

/// A listener with a certificate of its own.
pub(super) struct TlsServer {
    _runtime: Runtime,
    address: SocketAddr,
    certificate_pem: String,
    connections: Arc<AtomicUsize>,
}

impl TlsServer {
    /// Serves each connection, once TLS is agreed on, with `serve`, which gets its number.
    pub(super) fn start(
        protocols: &[&str],
        serve: impl Fn(usize, TlsStream<TcpStream>) -> BoxFuture<'static, ()> + Send + 'static,
    ) -> Self {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        Self::start_with(&made.cert, &made.signing_key, protocols, serve)
    }

    /// The same with this certificate.
    pub(super) fn start_with(
        certificate: &Certificate,
        key: &KeyPair,
        protocols: &[&str],
        serve: impl Fn(usize, TlsStream<TcpStream>) -> BoxFuture<'static, ()> + Send + 'static,
    ) -> Self {
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        config.alpn_protocols = protocols
            .iter()
            .map(|name| name.as_bytes().to_vec())
            .collect();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let runtime = Runtime::new().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&connections);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let number = counter.fetch_add(1, Ordering::SeqCst) + 1;
                // A client that does not like the certificate goes away.
                if let Ok(stream) = acceptor.accept(stream).await {
                    tokio::spawn(serve(number, stream));
                }
            }
        });
        Self {
            _runtime: runtime,
            address,
            certificate_pem: certificate.pem(),
            connections,
        }
    }

    /// TLS in front of `backend`.
    pub(super) fn before(backend: &TestServer) -> Self {
        Self::start(&["http/1.1"], forward(backend.address))
    }

    pub(super) fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    pub(super) fn spec(&self) -> ServerSpec {
        ServerSpec::new(ServerUrl::parse(&self.url()).unwrap())
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// Serves a connection by copying between it and the server at `address`.
pub(super) fn forward(
    address: SocketAddr,
) -> impl Fn(usize, TlsStream<TcpStream>) -> BoxFuture<'static, ()> + Send + 'static {
    move |_, mut stream| {
        Box::pin(async move {
            let mut plain = TcpStream::connect(address).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut stream, &mut plain).await;
        })
    }
}

/// The settings that trust the certificates in the file `path`.
pub(super) fn named_file(path: &Path) -> Vec<CertificatePath> {
    vec![CertificatePath {
        path: path.to_owned(),
        is_directory: false,
        named_by: "SSL_CERT_FILE".to_owned(),
    }]
}

pub(super) fn insecure(options: Options) -> Options {
    Options {
        verify_tls: TlsVerification::Insecure,
        ..options
    }
}

/// An HTTP/2 server: what to do with each request, given its path and the numbers of its
/// connection and of the request on it.
pub(super) struct Http2Server {
    pub(super) tls: TlsServer,
    paths: Arc<Mutex<Vec<String>>>,
    /// What answers over HTTP/1.1.
    http1: TestServer,
}

pub(super) enum Reaction {
    Answer,
    /// Answer after this time, while others may be answered.
    AnswerAfter(Duration),
    Reset,
    /// Reset the stream, because HTTP/1.1 is required.
    RequireHttp1,
    /// End the connection, because HTTP/1.1 is required.
    EndRequiringHttp1,
    /// Answer with a `Content-Length` that is too small.
    WrongLength,
    Ignore,
    /// Answer, and take no further requests on this connection.
    GoAway,
    /// Break the connection off.
    Abort,
    /// Answer, after this many interim responses.
    AnswerAfterInterim(u32),
    /// Answer with a header field of this many bytes.
    LongHead(usize),
    /// Send this many bytes, and no end.
    Unfinished(usize),
    /// Send frames without end, with this many bytes each.
    Trickle(usize),
}

impl Http2Server {
    pub(super) fn start(
        react: impl Fn(&str, usize, usize) -> Reaction + Send + Sync + 'static,
    ) -> Self {
        Self::with(h2::server::Builder::new(), react)
    }

    pub(super) fn with(
        settings: h2::server::Builder,
        react: impl Fn(&str, usize, usize) -> Reaction + Send + Sync + 'static,
    ) -> Self {
        Self::configured(TestServer::start(drop), settings, react)
    }

    /// A server that answers with `http1` over HTTP/1.1.
    pub(super) fn beside(
        http1: TestServer,
        react: impl Fn(&str, usize, usize) -> Reaction + Send + Sync + 'static,
    ) -> Self {
        Self::configured(http1, h2::server::Builder::new(), react)
    }

    fn configured(
        http1: TestServer,
        settings: h2::server::Builder,
        react: impl Fn(&str, usize, usize) -> Reaction + Send + Sync + 'static,
    ) -> Self {
        let address = http1.address;
        let paths = Arc::new(Mutex::new(Vec::new()));
        let (log, react) = (Arc::clone(&paths), Arc::new(react));
        let tls = TlsServer::start(&["h2", "http/1.1"], move |number, stream| {
            let (log, react) = (Arc::clone(&log), Arc::clone(&react));
            let settings = settings.clone();
            Box::pin(async move {
                match stream.get_ref().1.alpn_protocol() {
                    Some(b"h2") => serve_http2(stream, &settings, number, &log, &*react).await,
                    _ => forward(address)(number, stream).await,
                }
            })
        });
        Self { tls, paths, http1 }
    }

    /// How often items were requested over HTTP/2, and over HTTP/1.1.
    pub(super) fn item_requests(&self) -> (usize, usize) {
        let (http2, http1) = (self.paths.lock().unwrap(), self.http1.requests());
        let [http2, http1] = [&*http2, &http1].map(|paths| {
            let items = paths.iter().filter(|path| path.ends_with(".narinfo"));
            items.count()
        });
        (http2, http1)
    }

    pub(super) fn assert_requested_once(&self) {
        let paths = self.paths.lock().unwrap();
        let different: HashSet<_> = paths.iter().collect();
        assert_eq!(paths.len(), different.len());
    }
}

/// Serves the connection with this number over HTTP/2, and logs the paths.
async fn serve_http2(
    stream: TlsStream<TcpStream>,
    settings: &h2::server::Builder,
    number: usize,
    log: &Mutex<Vec<String>>,
    react: &(impl Fn(&str, usize, usize) -> Reaction + Send + Sync),
) {
    // Requests may come before the client knows that it may send none.
    let Ok(mut connection) = settings.handshake(stream).await else {
        return;
    };
    let (mut ignored, mut unfinished) = (Vec::new(), Vec::new());
    let mut count = 0;
    while let Some(Ok((request, respond))) = connection.accept().await {
        count += 1;
        let path = request.uri().path().to_owned();
        log.lock().unwrap().push(path.clone());
        match react(&path, number, count) {
            Reaction::Answer => answer_http2(&path, respond),
            Reaction::AnswerAfter(wait) => {
                tokio::spawn(async move {
                    tokio::time::sleep(wait).await;
                    answer_http2(&path, respond);
                });
            }
            Reaction::Reset => reset_http2(respond, h2::Reason::INTERNAL_ERROR),
            Reaction::RequireHttp1 => {
                reset_http2(respond, h2::Reason::HTTP_1_1_REQUIRED);
            }
            Reaction::EndRequiringHttp1 => {
                connection.abrupt_shutdown(h2::Reason::HTTP_1_1_REQUIRED);
            }
            Reaction::WrongLength => answer_with(&path, respond, ("content-length", "3")),
            Reaction::Ignore => ignored.push(respond),
            Reaction::GoAway => {
                answer_http2(&path, respond);
                connection.graceful_shutdown();
            }
            Reaction::Abort => return,
            Reaction::AnswerAfterInterim(count) => {
                answer_after_interim(&path, respond, count);
            }
            Reaction::LongHead(bytes) => {
                answer_with(&path, respond, ("x-long", &"x".repeat(bytes)));
            }
            Reaction::Unfinished(bytes) => {
                let mut respond = respond;
                let head = ::http::Response::new(());
                let mut body = respond.send_response(head, false).unwrap();
                body.send_data(vec![b'x'; bytes].into(), false).unwrap();
                unfinished.push(body);
            }
            Reaction::Trickle(bytes) => {
                tokio::spawn(trickle(respond, bytes));
            }
        }
    }
}

fn answer_http2(path: &str, respond: SendResponse<Bytes>) {
    answer_with(path, respond, ("cache-control", "max-age=3"));
}

/// Answers with this header field.
fn answer_with(path: &str, mut respond: SendResponse<Bytes>, (name, value): (&str, &str)) {
    let text = match path {
        "/nix-cache-info" => "StoreDir: /gnu/store\n".to_owned(),
        _ => narinfo_text(path),
    };
    let head = ::http::Response::builder()
        .header(name, value)
        .body(())
        .unwrap();
    let mut body = respond.send_response(head, false).unwrap();
    body.send_data(Bytes::from(text), true).unwrap();
}

fn answer_after_interim(path: &str, mut respond: SendResponse<Bytes>, count: u32) {
    for _ in 0..count {
        let head = ::http::Response::builder().status(103).body(()).unwrap();
        respond.send_informational(head).unwrap();
    }
    answer_http2(path, respond);
}

async fn trickle(mut respond: SendResponse<Bytes>, bytes: usize) {
    let head = ::http::Response::new(());
    let mut body = respond.send_response(head, false).unwrap();
    while body
        .send_data(Bytes::from(vec![b'x'; bytes]), false)
        .is_ok()
    {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn reset_http2(mut respond: SendResponse<Bytes>, reason: h2::Reason) {
    respond.send_reset(reason);
}

#[test]
fn a_certificate_from_an_unknown_authority_is_refused() {
    let backend = TestServer::answering(correct);
    let server = TlsServer::before(&backend);
    let mut another = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    another
        .distinguished_name
        .push(DnType::CommonName, "another");
    let another = another.self_signed(&KeyPair::generate().unwrap()).unwrap();
    let other_file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(other_file.path(), another.pem()).unwrap();
    let without = Options {
        certificate_paths: named_file(other_file.path()),
        ..quick()
    };
    // A build environment may have no certificates of its own.
    let of_system = ["UnknownIssuer", "NoneOnSystem"];
    for (options, causes) in [(quick(), &of_system[..]), (without, &of_system[..1])] {
        let results = look_up(options.clone(), server.spec(), &items(3));
        assert!(
            matches!(results.down[0].kind(), HttpErrorKind::Tls(_)),
            "{:?}",
            results.down
        );
        assert_eq!(results.answers.len(), 3);
        let nar = NarRequest::new(Url::parse(&server.url()).unwrap());
        let error = Client::new(options).unwrap().nar(nar).unwrap_err();
        assert!(matches!(error.kind(), HttpErrorKind::Tls(_)), "{error:?}");
        let text = format!("{error:?}");
        assert!(causes.iter().any(|cause| text.contains(cause)), "{text}");
    }
    assert!(backend.requests().is_empty());
}

#[test]
fn certificates_are_not_read_for_http() {
    let server = TestServer::answering(correct);
    let dir = tempfile::tempdir().unwrap();
    let roots = dir.path().join("roots.pem");
    nix::unistd::mkfifo(&roots, nix::sys::stat::Mode::S_IRWXU).unwrap();
    // Opening a pipe waits for the other side.
    let pipe = roots.clone();
    let reader_seen = std::thread::spawn(move || std::fs::File::create(pipe).map(drop));
    let options = Options {
        certificate_paths: named_file(&roots),
        ..quick()
    };
    look_up(options.clone(), server.spec(), &items(3)).assert_all_found(&items(3));
    let nar = NarRequest::new(Url::parse(&format!("{}/nar", server.url())).unwrap());
    assert!(
        Client::new(options)
            .unwrap()
            .nar(nar)
            .unwrap()
            .next_chunk()
            .unwrap()
            .is_some()
    );
    assert!(!reader_seen.is_finished());
    drop(std::fs::File::open(roots).unwrap());
    reader_seen.join().unwrap().unwrap();
}

#[test]
fn certificates_are_accepted_when_configured() {
    let backend = TestServer::answering(correct);
    let server = TlsServer::before(&backend);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &server.certificate_pem).unwrap();
    let with_file = Options {
        certificate_paths: named_file(file.path()),
        ..quick()
    };
    for options in [insecure(quick()), with_file] {
        let results = look_up(options.clone(), server.spec(), &items(2000));
        results.assert_all_found(&items(2000));
        assert!(
            results
                .properties
                .contains(&ServerProperty::Protocol(Protocol::Http1))
        );
        let nar = Url::parse(&format!("{}/nar", server.url())).unwrap();
        let mut body = Client::new(options)
            .unwrap()
            .nar(NarRequest::new(nar))
            .unwrap();
        assert!(body.next_chunk().unwrap().is_some());
    }
}

#[test]
fn plain_http_on_a_tls_port_is_down() {
    let backend = TestServer::answering(correct);
    let url = backend.url().replace("http:", "https:");
    let spec = ServerSpec::new(ServerUrl::parse(&url).unwrap());
    let options = Options {
        connect_timeout: Duration::from_millis(200),
        ..insecure(quick())
    };
    let results = look_up(options, spec, &items(1));
    assert_eq!(results.down.len(), 1);
}

/// Only where nothing tells the length, an end that TLS was not told of may be the right one.
#[test]
fn a_body_without_a_length_may_end_without_a_word_in_tls() {
    for (fields, expected) in [
        ("", true),
        ("Transfer-Encoding: identity\r\n", true),
        ("Content-Encoding: gzip\r\n", false),
        ("Transfer-Encoding: chunked\r\n", false),
        ("Content-Length: 100\r\n", false),
    ] {
        let server = TlsServer::start(&["http/1.1"], move |_, mut stream| {
            let response = format!("HTTP/1.1 200 OK\r\n{fields}\r\n5\r\nhello\r\n");
            Box::pin(async move {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(response.as_bytes()).await;
                let _ = stream.flush().await;
            })
        });
        let nar = Url::parse(&format!("{}/nar", server.url())).unwrap();
        let client = Client::new(insecure(quick())).unwrap();
        let mut body = client.nar(NarRequest::new(nar)).unwrap();
        assert!(!body.may_be_complete());
        while body.next_chunk().is_ok() {}
        assert_eq!(body.may_be_complete(), expected, "{fields}");
    }
}

#[test]
fn http2_is_multiplexed() {
    let server = Http2Server::start(|_, _, _| Reaction::Answer);
    let results = look_up(insecure(quick()), server.tls.spec(), &items(3000));
    results.assert_all_found(&items(3000));
    server.assert_requested_once();
    assert_eq!(server.tls.connections(), 1);
    assert!(
        results
            .properties
            .contains(&ServerProperty::Protocol(Protocol::Http2))
    );
    assert_eq!(results.cache_infos.len(), 1);
    let said = Client::new(insecure(quick()))
        .unwrap()
        .cache_info(&server.tls.spec().url)
        .unwrap();
    assert_eq!((said.protocol, said.max_age), (Protocol::Http2, Some(3)));
}

#[test]
fn http2_servers_may_end_a_connection() {
    let server = Http2Server::start(|_, _, count| match count {
        100 => Reaction::GoAway,
        _ => Reaction::Answer,
    });
    let results = look_up(insecure(quick()), server.tls.spec(), &items(1000));
    results.assert_all_found(&items(1000));
    assert!(results.down.is_empty());
}

#[test]
fn http2_connections_that_break() {
    let server = Http2Server::start(|_, number, count| match (number, count) {
        (1, 50) => Reaction::Abort,
        _ => Reaction::Answer,
    });
    let results = look_up(insecure(quick()), server.tls.spec(), &items(300));
    results.assert_all_found(&items(300));
    assert!(results.down.is_empty());
}

#[test]
fn http2_streams_that_are_reset_fail_alone() {
    let server = Http2Server::start(|path, _, _| match path.ends_with("7.narinfo") {
        true => Reaction::Reset,
        false => Reaction::Answer,
    });
    let results = look_up(insecure(quick()), server.tls.spec(), &items(10));
    assert_eq!(results.error(item(7)).attempts, 4);
    (0..10)
        .filter(|&n| n != 7)
        .for_each(|n| results.assert_found(item(n)));
    assert!(results.down.is_empty());
}

#[test]
fn servers_may_require_http1() {
    for (by_reset, of_all) in [(true, false), (true, true), (false, false), (false, true)] {
        let http1 = TestServer::answering(correct);
        let server = Http2Server::beside(http1, move |path, _, _| {
            match (of_all || path.ends_with("7.narinfo"), by_reset) {
                (false, _) => Reaction::Answer,
                (true, true) => Reaction::RequireHttp1,
                (true, false) => Reaction::EndRequiringHttp1,
            }
        });
        let results = look_up(insecure(quick()), server.tls.spec(), &items(100));
        results.assert_all_found(&items(100));
        assert!(results.down.is_empty());
        // A server that ends a connection may not say so of every request on it.
        let tries = if by_reset { 1 } else { 3 };
        let (http2, http1) = server.item_requests();
        assert!(http2 <= 100 * tries && http1 > 0, "{http2} and {http1}");
        let connections = server.tls.connections();
        assert!(
            connections <= 1 + tries,
            "{connections}: {by_reset}, {of_all}"
        );
    }
}

#[test]
fn responses_that_http2_does_not_allow_are_requested_over_http1() {
    for is_long in [false, true] {
        let http1 = TestServer::answering(correct);
        let server =
            Http2Server::beside(http1, move |path, _, _| match path.ends_with("7.narinfo") {
                true if is_long => Reaction::LongHead(70 << 10),
                true => Reaction::WrongLength,
                false => Reaction::Answer,
            });
        let results = look_up(insecure(quick()), server.tls.spec(), &items(100));
        results.assert_all_found(&items(100));
        assert!(results.down.is_empty());
        let (http2, http1) = server.item_requests();
        assert!(http2 <= 100 && http1 <= 100, "{http2} and {http1}");
        let limits = results.properties.iter();
        let mut limits = limits.filter(|it| matches!(it, ServerProperty::RequestsPerConnection(_)));
        assert_eq!(limits.next(), None);
    }
}

#[test]
fn http2_servers_that_stall() {
    let server = Http2Server::start(|_, _, _| Reaction::Ignore);
    let results = look_up(insecure(short_stall()), server.tls.spec(), &items(10));
    assert!(
        matches!(results.down[0].kind(), HttpErrorKind::Stalled(_)),
        "{:?}",
        results.down
    );
    assert_eq!(server.tls.connections(), 1);
}

#[test]
fn http2_servers_that_accept_no_streams() {
    let mut settings = h2::server::Builder::new();
    settings.max_concurrent_streams(0);
    let server = Http2Server::with(settings, |_, _, _| Reaction::Answer);
    let results = look_up(insecure(short_stall()), server.tls.spec(), &items(10));
    assert_eq!(results.down.len(), 1);
    assert!(results.answers.values().all(|answer| answer.is_err()));
}

#[test]
fn http2_failures_lead_back_to_http1() {
    let backend = TestServer::answering(correct);
    let address = backend.address;
    let server = TlsServer::start(&["h2", "http/1.1"], move |_, mut stream| {
        Box::pin(async move {
            // Agrees to HTTP/2 and cannot do it.
            if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                return;
            }
            let mut plain = TcpStream::connect(address).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut stream, &mut plain).await;
        })
    });
    let results = look_up(insecure(quick()), server.spec(), &items(50));
    results.assert_all_found(&items(50));
    assert!(
        results
            .properties
            .contains(&ServerProperty::Protocol(Protocol::Http1))
    );
    assert!(results.down.is_empty());
}

/// Answers the first request of an HTTP/2 connection with 404, and says that it takes no others, as
/// nginx with `keepalive_requests 1`. Counts what it receives.
async fn answer_one_over_http2(
    stream: &mut TlsStream<TcpStream>,
    requests: &AtomicUsize,
) -> std::io::Result<()> {
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).await?;
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    stream.write_all(&settings).await?;
    let mut is_first = true;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        stream.read_exact(&mut payload).await?;
        // Other frames than those with the header of a request.
        if head[3] != 1 {
            continue;
        }

        requests.fetch_add(1, Ordering::SeqCst);
        if std::mem::take(&mut is_first) {
            let id = &head[5..];
            let acknowledgment = &[0, 0, 0, 4, 1, 0, 0, 0, 0][..];
            // The whole response: `:status: 404` of the static table.
            let response = [&[0, 0, 1, 1, 5], id, &[0x8d]].concat();
            let go_away = [&[0, 0, 8, 7, 0, 0, 0, 0, 0], id, &[0; 4]].concat();
            let frames = [acknowledgment, &response, &go_away].concat();
            stream.write_all(&frames).await?;
        }
    }
}

#[test]
fn one_request_per_connection_does_not_multiply_requests() {
    let backend = TestServer::start(|mut peer| {
        while let Some(path) = peer.request() {
            let mut answer = correct(&path);
            answer.splice(15..15, *b"\r\nConnection: close");
            peer.send(&answer);
        }
    });
    let address = backend.address;
    let over_http2 = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&over_http2);
    let server = TlsServer::start(&["h2", "http/1.1"], move |_, mut stream| {
        let counter = Arc::clone(&counter);
        Box::pin(async move {
            if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                let _ = answer_one_over_http2(&mut stream, &counter).await;
                return;
            }
            let mut plain = TcpStream::connect(address).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut stream, &mut plain).await;
        })
    });
    let results = look_up(insecure(quick()), server.spec(), &items(200));
    results.assert_all_found(&items(200));
    assert!(results.down.is_empty());

    let counts = (
        over_http2.load(Ordering::SeqCst),
        backend.requests().len(),
        server.connections(),
    );
    // One connection over HTTP/2, with a hundred requests at most; then one request for each.
    assert!(
        counts.0 <= 100 && counts.1 <= 210 && counts.2 <= 220,
        "{counts:?}"
    );
    let limit = ServerProperty::RequestsPerConnection(1);
    assert!(
        results.properties.contains(&limit),
        "{:?}",
        results.properties
    );
}
