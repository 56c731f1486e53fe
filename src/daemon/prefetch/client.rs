//! The client side of the prefetch socket: takes over a nar that is being downloaded.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use bytes::Bytes;

use crate::format::store_path::StorePath;
use crate::substitute::download::candidate::DownloadCandidate;
use crate::substitute::download::prefetch::{EarlyDownload, NarPrefetcher, PrefetchedNar};

use super::socket::{FRAME_MAX_BYTES, PrefetchSocket};

/// Requests nars from the query helper of the same client.
#[derive(Debug)]
pub(crate) struct PrefetchClient {
    socket: PrefetchSocket,
}

impl PrefetchClient {
    /// Connects to `socket` for each nar; no process may be listening there.
    #[must_use]
    pub(crate) fn new(socket: PrefetchSocket) -> Self {
        Self { socket }
    }

    fn request(
        &self,
        item: &StorePath,
        candidates: &[DownloadCandidate],
    ) -> io::Result<Option<(usize, SocketNar)>> {
        let mut connection = UnixStream::connect(self.socket.path())?;
        connection.set_read_timeout(Some(SILENCE_MAX))?;
        let method = candidates
            .first()
            .map_or("-", |candidate| candidate.compression.name());
        connection.write_all(format!("{} {method}\n", item.base()).as_bytes())?;
        let mut connection = BufReader::with_capacity(BUFFER_BYTES, connection);
        let mut line = String::new();
        connection
            .by_ref()
            .take(RESPONSE_MAX_BYTES)
            .read_line(&mut line)?;

        // A validator may be a date, with blanks in it.
        let mut fields = line.trim_end().splitn(3, ' ');
        let (Some(url), Some(size), Some(validator)) =
            (fields.next(), fields.next(), fields.next())
        else {
            return Ok(None);
        };
        let index = candidates
            .iter()
            .position(|candidate| candidate.url.as_str() == url);
        let nar = SocketNar {
            connection,
            content_length: size.parse().ok(),
            validator: (validator != "-").then(|| validator.to_owned()),
            is_ended: false,
        };

        Ok(index.map(|index| (index, nar)))
    }
}

impl NarPrefetcher for PrefetchClient {
    fn take(
        &self,
        item: &StorePath,
        candidates: &[DownloadCandidate],
    ) -> Option<(usize, EarlyDownload)> {
        // No server, or no download of this nar: both mean that it has to be downloaded now.
        let (index, nar) = self.request(item, candidates).ok()??;
        Some((index, EarlyDownload::Relayed(Box::new(nar))))
    }
}

/// A nar that arrives through the socket.
struct SocketNar {
    connection: BufReader<UnixStream>,
    content_length: Option<u64>,
    validator: Option<String>,
    /// The last frame has been read; decoders may read again.
    is_ended: bool,
}

impl PrefetchedNar for SocketNar {
    fn content_length(&self) -> Option<u64> {
        self.content_length
    }

    fn validator(&self) -> Option<&str> {
        self.validator.as_deref()
    }

    fn next_chunk(&mut self) -> io::Result<Option<Bytes>> {
        if self.is_ended {
            return Ok(None);
        }

        let mut length = [0; 4];
        self.connection.read_exact(&mut length)?;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > FRAME_MAX_BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }

        self.is_ended = length == 0;
        if self.is_ended {
            return Ok(None);
        }

        let mut bytes = vec![0; length];
        self.connection.read_exact(&mut bytes)?;
        Ok(Some(bytes.into()))
    }
}

/// The other side gives up on a silent server sooner.
const SILENCE_MAX: Duration = Duration::from_secs(60);
const RESPONSE_MAX_BYTES: u64 = 64 << 10;
const BUFFER_BYTES: usize = 128 << 10;
