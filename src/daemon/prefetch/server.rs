//! The server side of the prefetch socket: hands over the nars that are being downloaded.

use std::io::{self, BufRead as _, BufReader, Read as _, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::time::Duration;

use crate::format::compression::Compression;
use crate::format::store_path::StorePath;

use super::prefetcher::Prefetcher;
use super::socket::{FRAME_MAX_BYTES, PrefetchSocket};

/// Serves the prefetch socket until it is dropped.
#[derive(Debug)]
pub(crate) struct PrefetchServer {
    socket: PrefetchSocket,
}

impl PrefetchServer {
    /// Serves the nars of `prefetcher` at `socket`, on threads of their own.
    ///
    /// # Errors
    /// The socket cannot be created.
    pub(crate) fn start(socket: PrefetchSocket, prefetcher: Arc<Prefetcher>) -> io::Result<Self> {
        match std::fs::remove_file(socket.path()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(socket.path())?;
        let server = Self { socket };
        std::thread::Builder::new()
            .name("prefetch".to_owned())
            .spawn(move || accept_all(&listener, &prefetcher))?;

        Ok(server)
    }
}

impl Drop for PrefetchServer {
    fn drop(&mut self) {
        // If it cannot be removed, the next helper removes it.
        let _ = std::fs::remove_file(self.socket.path());
    }
}

/// Serves every connection on a thread of its own, until the process ends.
fn accept_all(listener: &UnixListener, prefetcher: &Arc<Prefetcher>) {
    for connection in listener.incoming() {
        let Ok(connection) = connection else {
            // The client has gone away, or there are too few file descriptors: that passes.
            std::thread::sleep(ACCEPT_PAUSE);
            continue;
        };
        let prefetcher = Arc::clone(prefetcher);
        // Without a thread the connection closes, and the client downloads the nar itself.
        let _ = std::thread::Builder::new()
            .name("prefetch".to_owned())
            .spawn(move || serve_connection(connection, &prefetcher));
    }
}

/// Serves one request. When something fails, the client notices and downloads the nar itself.
fn serve_connection(mut connection: UnixStream, prefetcher: &Prefetcher) {
    let Ok((item, method)) = read_request(&connection) else {
        return;
    };
    let Some((candidate, mut body)) = prefetcher.take(&item, method) else {
        let _ = connection.write_all(b"-\n");
        return;
    };

    let size = body
        .content_length()
        .map_or_else(|| "-".to_owned(), |size| size.to_string());
    let validator = body.validator().unwrap_or("-");
    let response = format!("{} {size} {validator}\n", candidate.url);
    let mut sent = connection.write_all(response.as_bytes());

    while sent.is_ok() {
        match body.next_chunk() {
            Ok(Some(chunk)) => sent = write_frames(&mut connection, &chunk),
            Ok(None) => {
                let _ = connection.write_all(&0u32.to_be_bytes());
                return;
            }
            Err(_) => return,
        }
    }
}

fn read_request(connection: &UnixStream) -> io::Result<(StorePath, Option<Compression>)> {
    connection.set_read_timeout(Some(REQUEST_TIMEOUT))?;
    let mut line = String::new();
    BufReader::new(connection.take(REQUEST_MAX_BYTES)).read_line(&mut line)?;
    let (base, method) = line
        .trim_end()
        .split_once(' ')
        .ok_or(io::ErrorKind::InvalidData)?;
    let item = StorePath::parse(base).map_err(io::Error::other)?;

    Ok((item, Compression::parse(method).ok()))
}

fn write_frames(connection: &mut UnixStream, chunk: &[u8]) -> io::Result<()> {
    for part in chunk.chunks(FRAME_MAX_BYTES) {
        let length = u32::try_from(part.len()).map_err(io::Error::other)?;
        connection.write_all(&length.to_be_bytes())?;
        connection.write_all(part)?;
    }
    Ok(())
}

/// A request is a store path's base name and a compression method.
const REQUEST_MAX_BYTES: u64 = 1024;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause after a connection that could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use crate::format::server_list::PerServer;
    use crate::format::server_url::ServerUrl;
    use crate::http::Options;
    use crate::substitute::network::{Network, NetworkReach};

    use super::*;

    #[test]
    fn a_connection_that_cannot_be_accepted_does_not_end_the_server() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        // Each attempt without a client fails.
        listener.set_nonblocking(true).unwrap();
        assert!(listener.accept().is_err());
        let servers = std::iter::empty::<ServerUrl>()
            .collect::<PerServer<_>>()
            .into();
        let network = Network::new(Options::default(), NetworkReach::AllServers, servers);
        let prefetcher = Arc::new(Prefetcher::new(Arc::new(network), None, 1));
        std::thread::spawn(move || accept_all(&listener, &prefetcher));
        // Enough for a first attempt: a server that has not begun passes as well.
        std::thread::sleep(ACCEPT_PAUSE * 2);

        let mut client = UnixStream::connect(&path).unwrap();
        client
            .write_all(b"0f9qzp1g3jy45al4zspzqah9f8d5bisp-a -\n")
            .unwrap();
        let mut reply = String::new();
        client.read_to_string(&mut reply).unwrap();

        assert_eq!(reply, "-\n");
    }
}
