//! Handing over nars that are on their way, on a socket. One connection for each item.
//!
//! ```text
//! question: BASE METHOD            the item, and the compression method preferred
//! answer:   URL SIZE VALIDATOR     `-` for what is unknown; frames follow
//!           -                      there is nothing
//! frame:    a length of four bytes, big-endian, and so many bytes; length 0 is the end
//! ```
//!
//! A connection that closes before the end means that the nar broke off.

use std::io::{self, BufRead as _, BufReader, Read as _, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::time::Duration;

use crate::format::compression::Compression;
use crate::format::store_path::StorePath;

use super::prefetcher::Prefetcher;
use super::socket::{FRAME_MAX_BYTES, PrefetchSocket};

/// For as long as this lives, siblings find a [`Prefetcher`] at their meeting point.
#[derive(Debug)]
pub(crate) struct PrefetchServer {
    point: PrefetchSocket,
}

impl PrefetchServer {
    /// Has `reader` asked at `point`.
    ///
    /// # Errors
    /// No socket can be made there.
    pub(crate) fn start(point: PrefetchSocket, reader: Arc<Prefetcher>) -> io::Result<Self> {
        point.remove_abandoned()?;
        match std::fs::remove_file(point.path()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(point.path())?;
        let listening = Self { point };
        std::thread::Builder::new()
            .name("handover".to_owned())
            .spawn(move || {
                for connection in listener.incoming().map_while(Result::ok) {
                    let reader = Arc::clone(&reader);
                    // Without a thread the connection closes, and who asked fetches for itself.
                    let _ = std::thread::Builder::new()
                        .name("handover".to_owned())
                        .spawn(move || hand_over(connection, &reader));
                }
            })?;
        Ok(listening)
    }
}

impl Drop for PrefetchServer {
    fn drop(&mut self) {
        // If it cannot be removed, the next helper will do it.
        let _ = std::fs::remove_file(self.point.path());
    }
}

/// Answers one question. Whatever fails here, who asked notices and fetches for itself.
fn hand_over(mut connection: UnixStream, reader: &Prefetcher) {
    let Ok((item, method)) = read_question(&connection) else {
        return;
    };
    let Some((candidate, mut body)) = reader.take(&item, method) else {
        let _ = connection.write_all(b"-\n");
        return;
    };
    let size = body
        .content_length()
        .map_or_else(|| "-".to_owned(), |size| size.to_string());
    let validator = body.validator().unwrap_or("-");
    let answer = format!("{} {size} {validator}\n", candidate.url);
    let mut sent = connection.write_all(answer.as_bytes());
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

fn read_question(connection: &UnixStream) -> io::Result<(StorePath, Option<Compression>)> {
    connection.set_read_timeout(Some(QUESTION_TIMEOUT))?;
    let mut line = String::new();
    BufReader::new(connection.take(QUESTION_MAX_BYTES)).read_line(&mut line)?;
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

/// A question is a store path's name and a word.
const QUESTION_MAX_BYTES: u64 = 1024;
const QUESTION_TIMEOUT: Duration = Duration::from_secs(5);
