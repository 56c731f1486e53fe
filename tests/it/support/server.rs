//! An HTTP/1.1 server with programmable responses, on a free port.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::wait_until;

/// What was asked for.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// Such as `GET`.
    pub(crate) method: String,
    /// Such as `/nix-cache-info`.
    pub(crate) path: String,
    /// The first byte asked for with `Range`.
    pub(crate) from: Option<usize>,
    /// The header fields: their names in lower case, and their values.
    pub(crate) fields: Vec<(String, String)>,
    /// The body, if its length was given.
    pub(crate) content: Vec<u8>,
    /// The body as text.
    pub(crate) body: String,
    /// How often the server was restarted before.
    pub(crate) restarts: usize,
}

impl Request {
    /// The value of the header field `name`, in lower case.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.fields.iter();
        let found = fields.find(|(field, _)| field == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Whether the header field `name`, in lower case, has this value.
    pub(crate) fn has(&self, name: &str, value: &str) -> bool {
        let mut fields = self.fields.iter();
        fields.any(|(field, its)| field == name && its == value)
    }
}

/// What is answered.
#[derive(Clone)]
pub(crate) struct Reply {
    status: &'static str,
    headers: String,
    pub(crate) body: Vec<u8>,
    /// Do not say how long the body is: the end of the connection ends it.
    pub(crate) has_no_length: bool,
    /// Break the connection when so much of the body is sent.
    pub(crate) cut_at: Option<usize>,
    /// Send so many bytes at a time, and wait so long in between.
    pub(crate) drip: Option<(usize, Duration)>,
    /// Stop in the middle of the body until the server ends.
    pub(crate) stall_at: Option<usize>,
    /// Send the body again and again, and never say how long it is.
    pub(crate) is_endless: bool,
    /// Send nothing at all until the server ends.
    pub(crate) is_silent: bool,
    /// What a silent server sends all the same, again and again.
    pub(crate) meanwhile: &'static str,
}

impl Reply {
    pub(crate) fn new(status: &'static str, body: impl Into<Vec<u8>>) -> Self {
        let (headers, body) = (String::new(), body.into());
        let (cut_at, drip, stall_at) = (None, None, None);
        let (is_silent, is_endless) = (false, false);
        Self {
            status,
            headers,
            body,
            cut_at,
            drip,
            stall_at,
            has_no_length: false,
            is_silent,
            is_endless,
            meanwhile: "",
        }
    }

    pub(crate) fn not_found() -> Self {
        Self::new("404 Not Found", "no")
    }

    pub(crate) fn is_ok(&self) -> bool {
        self.status == "200 OK"
    }

    /// Whether it is a file, or a part of one.
    pub(crate) fn is_found(&self) -> bool {
        self.status.starts_with('2')
    }

    pub(crate) fn header(mut self, line: &str) -> Self {
        self.headers.push_str(&format!("{line}\r\n"));
        self
    }

    pub(crate) fn endless(mut self) -> Self {
        self.is_endless = true;
        self
    }

    pub(crate) fn cut_at(mut self, offset: usize) -> Self {
        self.cut_at = Some(offset);
        self
    }

    /// The file that `request` names, or the rest of it; no ranges.
    pub(crate) fn file(directory: &Path, request: &Request) -> Self {
        match std::fs::read(directory.join(request.path.trim_start_matches('/'))) {
            Ok(body) => Self::new("200 OK", body),
            Err(_) => Self::not_found(),
        }
    }

    /// The same from a server that can resume.
    pub(crate) fn file_or_range(directory: &Path, request: &Request) -> Self {
        Self::version_or_range(directory, request, "\"one\"")
    }

    /// The same of a file whose version is `etag`.
    pub(crate) fn version_or_range(directory: &Path, request: &Request, etag: &str) -> Self {
        let whole = Self::file(directory, request);
        let headers = format!("Accept-Ranges: bytes\r\nETag: {etag}\r\n");
        let total = whole.body.len();
        let mut versions = request.fields.iter().filter(|(name, _)| name == "if-range");
        let is_version = versions.all(|(_, version)| version == etag);
        match request.from.filter(|_| is_version) {
            Some(from) if whole.status == "200 OK" && from < total => Self {
                status: "206 Partial Content",
                headers: format!(
                    "{headers}Content-Range: bytes {from}-{}/{total}\r\n",
                    total.saturating_sub(1)
                ),
                body: whole.body[from..].to_vec(),
                ..whole
            },
            _ => Self { headers, ..whole },
        }
    }

    /// Whether the connection can be used again.
    fn send(
        &self,
        stream: &mut TcpStream,
        stopped: &AtomicBool,
        sent: &AtomicU64,
    ) -> std::io::Result<bool> {
        let Self {
            status,
            headers,
            body,
            ..
        } = self;
        while self.is_silent && !stopped.load(Ordering::Relaxed) {
            stream.write_all(self.meanwhile.as_bytes())?;
            std::thread::sleep(Duration::from_millis(10));
        }
        if self.is_endless {
            let head = format!("HTTP/1.1 {status}\r\n{headers}Connection: close\r\n\r\n");
            stream.write_all(head.as_bytes())?;
            let many = body.repeat(65536 / body.len() + 1);
            while !stopped.load(Ordering::Relaxed) {
                stream.write_all(&many)?;
            }
            return Ok(false);
        }
        let length = match self.has_no_length {
            true => "Connection: close".to_owned(),
            false => format!("Content-Length: {}", body.len()),
        };
        let head = format!("HTTP/1.1 {status}\r\n{headers}{length}\r\n\r\n");
        stream.write_all(head.as_bytes())?;
        let end = self
            .cut_at
            .or(self.stall_at)
            .map_or(body.len(), |end| end.min(body.len()));
        let (size, pause) = self.drip.unwrap_or((usize::MAX, Duration::ZERO));
        for chunk in body[..end].chunks(size) {
            stream.write_all(chunk)?;
            stream.flush()?;
            sent.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            std::thread::sleep(pause);
        }
        while self.stall_at.is_some() && !stopped.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(end == body.len() && !self.has_no_length)
    }
}

type Handler = dyn Fn(&Request) -> Reply + Send + Sync;

/// A server; it ends when this is dropped.
pub(crate) struct Server {
    address: SocketAddr,
    handler: Arc<Handler>,
    requests: Arc<Mutex<Vec<Request>>>,
    sent: Arc<AtomicU64>,
    running: Option<Listening>,
    restarts: usize,
}

/// A server between its start and its end.
struct Listening {
    stopped: Arc<AtomicBool>,
    connections: Arc<Mutex<Vec<TcpStream>>>,
    thread: JoinHandle<()>,
}

impl Server {
    /// A server that answers as `handler` says.
    pub(crate) fn start(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::on(Ipv4Addr::LOCALHOST, handler)
    }

    /// A server that can be killed and restarted. It has a loopback address of its own, so that
    /// no other process takes its port meanwhile.
    pub(crate) fn restartable(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let [a, b, c] = std::array::from_fn(|_| fastrand::u8(1..255));
        Self::on(Ipv4Addr::new(127, a, b, c), handler)
    }

    fn on(ip: Ipv4Addr, handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((ip, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let handler: Arc<Handler> = Arc::new(handler);
        let mut server = Self {
            address,
            handler,
            requests: Arc::default(),
            sent: Arc::default(),
            running: None,
            restarts: 0,
        };
        server.listen(listener);
        server
    }

    fn listen(&mut self, listener: TcpListener) {
        let stopped = Arc::new(AtomicBool::new(false));
        let connections: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
        let (requests, handler) = (Arc::clone(&self.requests), Arc::clone(&self.handler));
        let sent = Arc::clone(&self.sent);
        let (is_stopped, all) = (Arc::clone(&stopped), Arc::clone(&connections));
        let restarts = self.restarts;
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if is_stopped.load(Ordering::Relaxed) {
                    break;
                }
                let Ok(stream) = stream else { continue };
                all.lock().unwrap().extend(stream.try_clone());
                let (requests, stopped) = (Arc::clone(&requests), Arc::clone(&is_stopped));
                let (handler, sent) = (Arc::clone(&handler), Arc::clone(&sent));
                // A client that goes away is no failure of the server's.
                std::thread::spawn(move || {
                    drop(serve(
                        stream, restarts, &*handler, &requests, &stopped, &sent,
                    ));
                });
            }
        });
        self.running = Some(Listening {
            stopped,
            connections,
            thread,
        });
    }

    /// Breaks all connections, and refuses new ones.
    pub(crate) fn kill(&mut self) {
        let Some(Listening {
            stopped,
            connections,
            thread,
        }) = self.running.take()
        else {
            return;
        };
        stopped.store(true, Ordering::Relaxed);
        // Wakes the thread that waits for connections.
        let _ = TcpStream::connect(self.address);
        thread.join().unwrap();
        for connection in connections.lock().unwrap().drain(..) {
            // The client may have closed it.
            let _ = connection.shutdown(std::net::Shutdown::Both);
        }
    }

    /// Starts a killed server again, on the same port.
    pub(crate) fn restart(&mut self) {
        let mut listener = None;
        wait_until(|| {
            listener = TcpListener::bind(self.address).ok();
            listener.is_some()
        });
        self.restarts += 1;
        self.listen(listener.unwrap());
    }

    /// A well-behaved server of a directory.
    pub(crate) fn of(directory: PathBuf) -> Self {
        Self::start(move |request| Reply::file_or_range(&directory, request))
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Bytes of all bodies.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// The paths that were asked for, in order.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.requests
            .lock()
            .unwrap()
            .iter()
            .map(|request| request.path.clone())
            .collect()
    }

    /// All requests, in order.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// How many of the paths asked for contain `part`.
    pub(crate) fn requests_for(&self, part: &str) -> usize {
        self.asked()
            .iter()
            .filter(|path| path.contains(part))
            .count()
    }

    /// Where requests for `part` began.
    pub(crate) fn ranges_of(&self, part: &str) -> Vec<Option<usize>> {
        let requests = self.requests.lock().unwrap();
        requests
            .iter()
            .filter(|r| r.path.contains(part))
            .map(|r| r.from)
            .collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let Some(Listening { stopped, .. }) = self.running.take() else {
            return;
        };
        stopped.store(true, Ordering::Relaxed);
        // Wakes the thread that waits for connections.
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(
    mut stream: TcpStream,
    restarts: usize,
    handler: &Handler,
    requests: &Mutex<Vec<Request>>,
    stopped: &AtomicBool,
    sent: &AtomicU64,
) -> std::io::Result<()> {
    // As servers do. Otherwise each body waits for the acknowledgment of its head, up to 40 ms.
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    while let Some(mut request) = read_request(&mut reader)? {
        request.restarts = restarts;
        requests.lock().unwrap().push(request.clone());
        if !handler(&request).send(&mut stream, stopped, sent)? {
            break;
        }
    }
    stream.shutdown(std::net::Shutdown::Both)
}

fn read_request(reader: &mut BufReader<TcpStream>) -> std::io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split(' ').map(str::to_owned);
    let method = words.next().unwrap_or_default();
    let path = words.next().unwrap_or_default();
    let mut request = Request {
        method,
        path,
        content: Vec::new(),
        body: String::new(),
        from: None,
        fields: Vec::new(),
        restarts: 0,
    };
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? <= 2 {
            let length = request.field("content-length").map(str::parse);
            let length: usize = length.and_then(Result::ok).unwrap_or_default();
            let mut body = vec![0; length];
            reader.read_exact(&mut body)?;
            request.body = String::from_utf8_lossy(&body).into_owned();
            request.content = body;
            return Ok(Some(request));
        }
        if let Some((name, value)) = line.split_once(':') {
            let field = (name.to_ascii_lowercase(), value.trim().to_owned());
            request.fields.push(field);
        }
        let line = line.to_ascii_lowercase();
        if let Some(range) = line.strip_prefix("range: bytes=") {
            request.from = range.split('-').next().and_then(|from| from.parse().ok());
        }
    }
}
