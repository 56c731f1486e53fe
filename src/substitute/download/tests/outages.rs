//! Servers that are slow per connection and go away in the middle of a file: after the outage the
//! download is as fast as before, over several connections.

use std::io::{BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use url::Url;

use super::{ONE, PIECE_BYTES, PIECE_WAIT, Part, file, read_patiently, read_request};

/// When the server goes away.
#[derive(Debug, Clone, Copy)]
enum OutageStart {
    /// While the first connection is the only one.
    InSingleStream,
    /// When segments are requested for the first time.
    AtFirstSegment,
    /// When several segments have been requested.
    InSegments,
}

impl OutageStart {
    /// How many segments have been requested by then.
    fn segment_requests(self) -> usize {
        match self {
            Self::InSingleStream => 0,
            Self::AtFirstSegment => 1,
            Self::InSegments => 3,
        }
    }
}

/// For how long no connection is accepted.
const OUTAGE: Duration = Duration::from_millis(700);

/// What a single connection has sent when the server may go away.
const SENT_BEFORE_OUTAGE: usize = 100_000;

struct FailingServer {
    file: Vec<u8>,
    start: OutageStart,
    state: Mutex<FailingServerState>,
}

#[derive(Default)]
struct FailingServerState {
    is_down: bool,
    was_down: bool,
    /// Connections that end with the server.
    connections: Vec<TcpStream>,
    /// Bytes of the file.
    sent: usize,
    whole_requests: usize,
    segment_requests_before: usize,
    segment_requests_after: usize,
}

impl FailingServer {
    fn start(start: OutageStart) -> (Arc<Self>, Url, JoinHandle<()>) {
        // A loopback address of its own, so that nothing else takes its port meanwhile.
        let [a, b, c] = std::array::from_fn(|_| fastrand::u8(1..255));
        let listener = TcpListener::bind((Ipv4Addr::new(127, a, b, c), 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let server = Arc::new(Self {
            file: [&file()[..], &file()[..]].concat(),
            start,
            state: Mutex::default(),
        });
        let url = Url::parse(&format!("http://{address}/nar")).unwrap();
        let shared = Arc::clone(&server);
        let thread = std::thread::spawn(move || shared.accept(listener, address));
        (server, url, thread)
    }

    /// Serves until the outage, accepts nothing during it, and serves again.
    fn accept(self: Arc<Self>, mut listener: TcpListener, address: SocketAddr) {
        while let Ok((stream, _)) = listener.accept() {
            let mut state = self.state.lock().unwrap();
            if state.is_down {
                (state.is_down, state.was_down) = (false, true);
                drop((stream, state, listener));
                std::thread::sleep(OUTAGE);
                listener = std::iter::repeat_with(|| TcpListener::bind(address))
                    .inspect(|_| std::thread::sleep(Duration::from_millis(10)))
                    .find_map(Result::ok)
                    .unwrap();
                continue;
            }
            state.connections.push(stream.try_clone().unwrap());
            drop(state);

            let server = Arc::clone(&self);
            // A client that goes away is no failure of the server's.
            std::thread::spawn(move || drop(server.serve(stream)));
        }
    }

    fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        while let Some(range) = read_request(&mut reader)? {
            self.note_request(range);
            let total = self.file.len();
            let (first, end) =
                range.map_or((0, total), |(first, end)| (first, end.unwrap_or(total)));
            let (status, fields) = match range {
                Some(_) => (
                    "206 Partial Content",
                    format!("Content-Range: bytes {first}-{}/{total}\r\n", end - 1),
                ),
                None => ("200 OK", String::new()),
            };
            let head = ONE.replace("200 OK", status);
            let length = end - first;
            stream
                .write_all(format!("{head}{fields}Content-Length: {length}\r\n\r\n").as_bytes())?;

            let mut sent = 0;
            for piece in self.file[first..end].chunks(PIECE_BYTES) {
                stream.write_all(piece)?;
                sent += piece.len();
                self.state.lock().unwrap().sent += piece.len();
                std::thread::sleep(PIECE_WAIT);
                if sent >= SENT_BEFORE_OUTAGE || range.is_some() {
                    self.go_down_if_due(stream.local_addr()?);
                }
            }
        }
        Ok(())
    }

    fn note_request(&self, range: Option<Part>) {
        let mut state = self.state.lock().unwrap();
        match range {
            None => state.whole_requests += 1,
            // The rest of the file is no segment.
            Some((_, None)) => {}
            Some((_, Some(_))) if state.was_down => state.segment_requests_after += 1,
            Some((_, Some(_))) => state.segment_requests_before += 1,
        }
    }

    /// Ends every connection when the outage begins.
    fn go_down_if_due(&self, address: SocketAddr) {
        let mut state = self.state.lock().unwrap();
        let is_due = state.segment_requests_before >= self.start.segment_requests();
        if state.is_down || state.was_down || !is_due {
            return;
        }
        state.is_down = true;
        for connection in state.connections.drain(..) {
            // Fails when the client was faster.
            let _ = connection.shutdown(std::net::Shutdown::Both);
        }
        drop(state);
        // Wakes the listener, which then closes.
        let _ = TcpStream::connect(address);
    }
}

#[test]
fn segments_come_back_after_an_outage() {
    let starts = [
        OutageStart::InSingleStream,
        OutageStart::AtFirstSegment,
        OutageStart::InSegments,
    ];
    std::thread::scope(|scope| {
        for start in starts {
            scope.spawn(move || {
                let (server, url, _thread) = FailingServer::start(start);
                let bytes = read_patiently(url).unwrap();
                assert!(bytes == server.file, "{start:?}: {} bytes", bytes.len());

                let state = server.state.lock().unwrap();
                assert!(state.was_down, "{start:?}: no outage");
                assert_eq!(state.whole_requests, 1, "{start:?}: nothing is lost");
                let segments = state.segment_requests_after;
                assert!(segments >= 3, "{start:?}: {segments} segments");
                let (sent, length) = (state.sent, server.file.len());
                assert!(
                    sent < length + length / 20,
                    "{start:?}: {sent} bytes of {length}"
                );
            });
        }
    });
}
