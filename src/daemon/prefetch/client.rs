//! Taking over nars that are on their way.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use bytes::Bytes;

use crate::format::store_path::StorePath;
use crate::substitute::download::choice::DownloadCandidate;
use crate::substitute::download::prefetch::{NarPrefetcher, PrefetchedNar};

use super::socket::{FRAME_MAX_BYTES, PrefetchSocket};

/// Asks at the meeting point of our siblings.
#[derive(Debug)]
pub(crate) struct PrefetchClient {
    point: PrefetchSocket,
}

impl PrefetchClient {
    /// Will ask at `point`, where there may be nobody.
    #[must_use]
    pub(crate) fn new(point: PrefetchSocket) -> Self {
        Self { point }
    }

    fn ask(
        &self,
        item: &StorePath,
        candidates: &[DownloadCandidate],
    ) -> io::Result<Option<(usize, Handed)>> {
        let mut connection = UnixStream::connect(self.point.path())?;
        connection.set_read_timeout(Some(SILENCE_MAX))?;
        let method = candidates
            .first()
            .map_or("-", |candidate| candidate.compression.name());
        connection.write_all(format!("{} {method}\n", item.base()).as_bytes())?;
        let mut connection = BufReader::with_capacity(BUFFER_BYTES, connection);
        let mut line = String::new();
        connection
            .by_ref()
            .take(ANSWER_MAX_BYTES)
            .read_line(&mut line)?;
        // A validator may be a date, with blanks in it.
        let mut words = line.trim_end().splitn(3, ' ');
        let (Some(url), Some(size), Some(validator)) = (words.next(), words.next(), words.next())
        else {
            return Ok(None);
        };
        let index = candidates
            .iter()
            .position(|candidate| candidate.url.as_str() == url);
        let handed = Handed {
            connection,
            content_length: size.parse().ok(),
            validator: (validator != "-").then(|| validator.to_owned()),
            is_ended: false,
        };
        Ok(index.map(|index| (index, handed)))
    }
}

impl NarPrefetcher for PrefetchClient {
    fn take(
        &self,
        item: &StorePath,
        candidates: &[DownloadCandidate],
    ) -> Option<(usize, Box<dyn PrefetchedNar>)> {
        // Nobody there, or nothing to be had: both mean that it has to be fetched now.
        let (index, handed) = self.ask(item, candidates).ok()??;
        Some((index, Box::new(handed)))
    }
}

/// A nar that comes through the socket.
struct Handed {
    connection: BufReader<UnixStream>,
    content_length: Option<u64>,
    validator: Option<String>,
    /// The last frame has been read; decoders may look for more.
    is_ended: bool,
}

impl PrefetchedNar for Handed {
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

/// Whoever hands over gives up on a silent server sooner.
const SILENCE_MAX: Duration = Duration::from_secs(60);
const ANSWER_MAX_BYTES: u64 = 64 << 10;
const BUFFER_BYTES: usize = 128 << 10;
