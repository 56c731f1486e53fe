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
            .spawn(move || {
                for connection in listener.incoming().map_while(Result::ok) {
                    let prefetcher = Arc::clone(&prefetcher);
                    // Without a thread the connection closes, and the client downloads the nar itself.
                    let _ = std::thread::Builder::new()
                        .name("prefetch".to_owned())
                        .spawn(move || serve_connection(connection, &prefetcher));
                }
            })?;

        Ok(server)
    }
}

impl Drop for PrefetchServer {
    fn drop(&mut self) {
        // If it cannot be removed, the next helper removes it.
        let _ = std::fs::remove_file(self.socket.path());
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
