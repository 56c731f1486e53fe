//! Servers that misbehave in one chosen way each, for tests. Plain threads and sockets on port 0;
//! requests are kept in a log.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use super::{
    AccessKey, AccessKeySource, AccessKeys, Bucket, BucketSigner, Client, HttpError, LookupEvent,
    LookupEvents, NarInfoAnswer, Options, RetryObserver, RetryPolicy, ServerCredentials,
    ServerProperty, ServerSpec,
};
use crate::format::secret::Secret;
use crate::format::server_list::ServerIndex;
use crate::format::server_url::ServerUrl;
use crate::format::store_path::HashPart;

/// A server whose every connection is handled by one function on a thread of its own.
pub(super) struct TestServer {
    pub(super) address: SocketAddr,
    log: Arc<Log>,
}

#[derive(Default)]
pub(super) struct Log {
    requests: Mutex<Vec<String>>,
    connections: Mutex<usize>,
    connected: Condvar,
}

impl TestServer {
    pub(super) fn start(handle: impl Fn(Peer) + Send + Sync + 'static) -> Self {
        Self::with(TcpListener::bind("127.0.0.1:0").unwrap(), handle)
    }

    pub(super) fn with(
        listener: TcpListener,
        handle: impl Fn(Peer) + Send + Sync + 'static,
    ) -> Self {
        let address = listener.local_addr().unwrap();
        let log = Arc::new(Log::default());
        let (handle, server_log) = (Arc::new(handle), Arc::clone(&log));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                let number = server_log.count_connection();
                let (handle, log) = (Arc::clone(&handle), Arc::clone(&server_log));
                std::thread::spawn(move || handle(Peer::new(stream, number, log)));
            }
        });
        Self { address, log }
    }

    /// A server that answers every request with what `answer` makes of its path.
    pub(super) fn answering(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::start(move |mut peer| {
            while let Some(path) = peer.request() {
                if !peer.send(&answer(&path)) {
                    break;
                }
            }
        })
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn spec(&self) -> ServerSpec {
        ServerSpec::new(ServerUrl::parse(&self.url()).unwrap())
    }

    /// The requested paths, in the order of arrival.
    pub(super) fn requests(&self) -> Vec<String> {
        self.log.requests.lock().unwrap().clone()
    }

    pub(super) fn connections(&self) -> usize {
        *self.log.connections.lock().unwrap()
    }
}

impl Log {
    fn count_connection(&self) -> usize {
        let mut connections = self.connections.lock().unwrap();
        *connections += 1;
        self.connected.notify_all();
        *connections
    }
}

/// One connection, seen by the server.
pub(super) struct Peer {
    reader: BufReader<TcpStream>,
    /// The connection's number, from 1.
    pub(super) number: usize,
    log: Arc<Log>,
    /// The head of the last request.
    pub(super) head: String,
}

impl Peer {
    fn new(stream: TcpStream, number: usize, log: Arc<Log>) -> Self {
        stream.set_nodelay(true).unwrap();
        Self {
            reader: BufReader::with_capacity(64 << 10, stream),
            number,
            log,
            head: String::new(),
        }
    }

    /// Reads a request; its path.
    pub(super) fn request(&mut self) -> Option<String> {
        self.head.clear();
        while !self.head.ends_with("\r\n\r\n") {
            if self.reader.read_line(&mut self.head).ok()? == 0 {
                return None;
            }
        }
        let path = self.head.split(' ').nth(1).unwrap().to_owned();
        self.log.requests.lock().unwrap().push(path.clone());
        Some(path)
    }

    /// Waits until the server has had `count` connections.
    pub(super) fn wait_for_connections(&self, count: usize) {
        let connections = self.log.connections.lock().unwrap();
        let waited =
            self.log
                .connected
                .wait_timeout_while(connections, TEST_TIMEOUT, |connections| {
                    *connections < count
                });
        assert!(
            !waited.unwrap().1.timed_out(),
            "fewer than {count} connections"
        );
    }

    /// Whether further requests have arrived already.
    pub(super) fn has_more(&self) -> bool {
        !self.reader.buffer().is_empty()
    }

    /// Writes; false when the client is gone.
    pub(super) fn send(&mut self, bytes: &[u8]) -> bool {
        self.reader.get_mut().write_all(bytes).is_ok()
    }

    /// Closes in good order: nothing that was sent is lost.
    pub(super) fn close(mut self) {
        let _ = self.reader.get_mut().shutdown(Shutdown::Write);
        let _ = std::io::copy(&mut self.reader, &mut std::io::sink());
    }

    /// Throws away everything on the way and makes the client's next read fail.
    pub(super) fn reset(self) {
        let linger = Some(Duration::ZERO);
        rustix::net::sockopt::set_socket_linger(self.reader.get_ref(), linger).unwrap();
    }

    /// Waits for the client to hang up, reading nothing.
    pub(super) fn stall(mut self) {
        let mut rest = Vec::new();
        let _ = self.reader.read_to_end(&mut rest);
    }

    pub(super) fn into_stream(self) -> TcpStream {
        self.reader.into_inner()
    }
}

/// Item number `n`.
pub(super) fn item(n: usize) -> HashPart {
    HashPart::parse(&format!("{n:032}")).unwrap()
}

pub(super) fn items(count: usize) -> Vec<HashPart> {
    (0..count).map(item).collect()
}

/// An answer with status, fields and body.
pub(super) fn response(status: &str, fields: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\n{fields}Content-Length: {length}\r\n\r\n{body}").into_bytes()
}

pub(super) fn narinfo_text(path: &str) -> String {
    let hash = path.trim_start_matches('/').trim_end_matches(".narinfo");
    format!("StorePath: /gnu/store/{hash}-item\nURL: nar/{hash}\n")
}

/// The right answer to a request for `path`.
pub(super) fn correct(path: &str) -> Vec<u8> {
    match path {
        "/nix-cache-info" => response("200 OK", "", "StoreDir: /gnu/store\nWantMassQuery: 0\n"),
        _ => response("200 OK", "", &narinfo_text(path)),
    }
}

/// The right answer of a server that welcomes many lookups.
pub(super) fn correct_with_mass_query(path: &str) -> Vec<u8> {
    match path {
        "/nix-cache-info" => response("200 OK", "", "StoreDir: /gnu/store\nWantMassQuery: 1\n"),
        _ => correct(path),
    }
}

/// Options with short waits, and a stall that is only for tests that wait for it.
pub(super) fn quick() -> Options {
    let ms = Duration::from_millis;
    let retry_policy = RetryPolicy {
        base: ms(2),
        overload_base: ms(2),
        cap: ms(5),
        ..RetryPolicy::default()
    };
    Options {
        retry_policy,
        ..Options::default()
    }
}

/// The bucket `b` of the object store at `url`.
pub(crate) fn bucket(url: &str) -> Bucket {
    bucket_with(url, quick(), Duration::from_secs(60), None)
}

/// The same with these options, retry time and observer of retries.
pub(super) fn bucket_with(
    url: &str,
    mut options: Options,
    retry_time: Duration,
    retry_observer: Option<RetryObserver>,
) -> Bucket {
    let server = ServerUrl::parse(&format!("s3://b?endpoint={url}")).unwrap();
    let keys = AccessKeys::new(AccessKeySource::Fixed(AccessKey {
        id: "ID".into(),
        secret: Secret::new("secret"),
        session_token: None,
        expires: None,
    }));
    let location = server.bucket().unwrap().clone();
    let clock = || Duration::from_secs(1_795_780_805);
    let signer = BucketSigner::new(server.clone(), location, Arc::new(keys), clock);
    let mut credentials = ServerCredentials::new(server.clone());
    credentials.set_signer(signer);
    options.credentials.add(credentials);

    let client = Client::new(options).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    client
        .bucket(&server, retry_time, retry_observer, stop)
        .unwrap()
}

/// Options for servers that stall; the others have time enough on a busy machine too.
pub(super) fn short_stall() -> Options {
    Options {
        stall_timeout: Duration::from_secs(1),
        ..quick()
    }
}

/// Everything that one run of lookups reported.
#[derive(Default)]
pub(super) struct LookupResults {
    pub(super) answers: HashMap<HashPart, Result<NarInfoAnswer, HttpError>>,
    pub(super) cache_infos: Vec<Result<Option<super::CacheInfoText>, HttpError>>,
    pub(super) properties: Vec<ServerProperty>,
    pub(super) down: Vec<HttpError>,
    /// Why it was waited for.
    pub(super) awaited: Vec<HttpError>,
}

impl LookupResults {
    pub(super) fn take(&mut self, event: LookupEvent) {
        match event {
            LookupEvent::Answer { item, answer, .. } => {
                assert!(
                    self.answers.insert(item, answer).is_none(),
                    "{item} answered twice"
                );
            }
            LookupEvent::CacheInfo { info, .. } => self.cache_infos.push(info),
            LookupEvent::ServerProperty { property, .. } => self.properties.push(property),
            LookupEvent::ServerDown { error, .. } => self.down.push(error),
            LookupEvent::ServerAwaited { error, .. } => self.awaited.push(error),
        }
    }

    /// Asserts that every one of `items` was found, with the text of its own.
    pub(super) fn assert_all_found(&self, items: &[HashPart]) {
        assert_eq!(self.answers.len(), items.len());
        for item in items {
            self.assert_found(*item);
        }
    }

    pub(super) fn assert_found(&self, item: HashPart) {
        match &self.answers[&item] {
            Ok(NarInfoAnswer::Found { text, .. }) => {
                let text = String::from_utf8_lossy(text);
                assert!(
                    text.starts_with(&narinfo_text(item.as_str())),
                    "{item}: {text}"
                );
            }
            other => panic!("{item}: {other:?}"),
        }
    }

    pub(super) fn error(&self, item: HashPart) -> &HttpError {
        self.answers[&item].as_ref().unwrap_err()
    }
}

/// The status with which the lookup of item `n` failed.
pub(super) fn status(results: &LookupResults, n: usize) -> Option<u16> {
    results.error(item(n)).status()
}

/// Takes events until `count` items are answered.
pub(super) fn collect(events: &mut LookupEvents, results: &mut LookupResults, count: usize) {
    while results.answers.len() < count {
        let event = events.queue().recv_timeout(TEST_TIMEOUT);
        let answered = results.answers.len();
        let event = event.unwrap_or_else(|_| panic!("only {answered} of {count} items answered"));
        results.take(event.into_inner());
    }
}

/// Looks up `items` on one server, all at once, and collects until the lookups end.
pub(super) fn look_up(options: Options, spec: ServerSpec, items: &[HashPart]) -> LookupResults {
    let client = Client::new(options).unwrap();
    let (lookups, mut events) = client.lookups(vec![spec].into()).unwrap();
    items
        .iter()
        .for_each(|&item| lookups.request(ServerIndex::FIRST, item));
    let mut results = LookupResults::default();
    collect(&mut events, &mut results, items.len());
    drop(lookups);
    while let Some(event) = events.recv() {
        results.take(event);
    }
    results
}

/// Longer than any test takes, so that a bug fails instead of hanging.
const TEST_TIMEOUT: Duration = Duration::from_secs(20);
