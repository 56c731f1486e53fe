//! Keeps what arrives of one download on disk, if the download takes long.
//!
//! How long is estimated from the rate known of the server, and measured at the beginning: until
//! then the bytes stay in memory, or on disk if the download is large or expected to be slow. Fast downloads
//! are not kept.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use data_encoding::HEXLOWER;
use url::Url;

use crate::format::hash::NarHash;
use crate::format::sha256::Sha256;
use crate::format::store_path::StorePath;
use crate::substitute::download::candidate::DownloadCandidate;
use crate::substitute::download::input::compressed_bytes_max;
use crate::substitute::download::spool::SpoolDirectory;
use crate::substitute::download::spool_file::{SpoolFile, SpoolHeader};

/// Downloads that take longer are kept.
const SPOOLED_SECONDS: f64 = 5.0;
/// Smaller ones are not.
const SPOOLED_BYTES_MIN: u64 = 1 << 20;
/// Larger ones are kept until they are measured.
const LARGE_BYTES: u64 = 64 << 20;
/// What is in memory until the rate is known.
const MEMORY_BYTES_MAX: u64 = 1 << 20;
/// What a download that is kept has to bring before it is measured.
const TRIAL_BYTES: u64 = 8 << 20;
/// The shortest time in which a rate is measured.
const MEASURED_MIN: Duration = Duration::from_millis(500);
/// What is written at a time,
const PIECE_BYTES: usize = 256 << 10;
/// or after this time.
const PIECE_TIME: Duration = Duration::from_secs(1);
/// How often the free space is looked at.
const SPACE_INTERVAL_BYTES: u64 = 8 << 20;

/// A download that may be kept, or was.
#[derive(Debug, Clone)]
pub(crate) struct SpoolRequest {
    /// Where partial downloads are.
    pub(crate) spools: Arc<SpoolDirectory>,
    /// The name of this one there.
    pub(crate) name: String,
    /// The item.
    pub(crate) item: StorePath,
    /// Bytes of its nar.
    pub(crate) nar_size: u64,
    /// Bytes per second that are expected from the server.
    pub(crate) expected_rate: f64,
}

/// The name of a partial download: that of the nar and of its compression. Files of several servers
/// have the same one.
#[must_use]
pub(crate) fn spool_name(nar_hash: &NarHash, candidate: &DownloadCandidate) -> String {
    let mut digest = Sha256::new();
    digest.update(nar_hash.as_bytes());
    digest.update(candidate.compression.name().as_bytes());
    HEXLOWER.encode(&digest.finish())
}

/// What a header has in place of `url`.
pub(super) fn url_digest(url: &Url) -> String {
    let mut digest = Sha256::new();
    digest.update(url.as_str().as_bytes());
    HEXLOWER.encode(&digest.finish())
}

/// Keeps what arrives of a download, or not.
pub(super) struct SpoolWriter {
    request: Option<SpoolRequest>,
    state: WriterState,
}

enum WriterState {
    /// It is not kept.
    Off,
    /// Whether it is slow is not known yet.
    Waiting {
        version: SpoolHeader,
        chunks: Vec<Bytes>,
        measured: MeasuredStart,
    },
    Writing {
        output: PieceWriter,
        /// Until it is known that it is slow.
        trial: Option<MeasuredStart>,
    },
}

/// The beginning of a download.
#[derive(Debug, Clone, Copy)]
struct MeasuredStart {
    since: Instant,
    bytes: u64,
}

/// Writes large pieces, and smaller ones after a while.
struct PieceWriter {
    file: Arc<SpoolFile>,
    pending: Vec<u8>,
    written_at: Instant,
    /// Where the free space is looked at next.
    next_check: u64,
}

impl SpoolWriter {
    /// Keeps nothing.
    pub(super) fn off() -> Self {
        Self {
            request: None,
            state: WriterState::Off,
        }
    }

    /// Keeps the download of `size` bytes from its first byte on.
    pub(super) fn first(
        request: SpoolRequest,
        url: &Url,
        validator: Option<String>,
        size: u64,
    ) -> Self {
        // A server that claims a size beyond what the nar can take would have others removed for it.
        if !(SPOOLED_BYTES_MIN..=compressed_bytes_max(request.nar_size)).contains(&size) {
            return Self::off();
        }

        let version = SpoolHeader {
            item: request.item.clone(),
            url_digest: url_digest(url),
            validator: validator.unwrap_or_default(),
            size,
        };
        let mut writer = Self {
            request: Some(request),
            state: WriterState::Off,
        };
        let measured = MeasuredStart {
            since: Instant::now(),
            bytes: 0,
        };
        if size >= LARGE_BYTES || size as f64 / writer.expected_rate() > SPOOLED_SECONDS {
            writer.start(version, &[], measured);
        } else {
            writer.state = WriterState::Waiting {
                version,
                chunks: Vec::new(),
                measured,
            };
        }
        writer
    }

    /// Goes on with a download that `file` has the beginning of.
    pub(super) fn resumed(request: SpoolRequest, file: Arc<SpoolFile>) -> Self {
        Self {
            request: Some(request),
            state: WriterState::Writing {
                output: PieceWriter::new(file),
                trial: None,
            },
        }
    }

    fn expected_rate(&self) -> f64 {
        self.request
            .as_ref()
            .map_or(f64::INFINITY, |request| request.expected_rate)
    }

    /// The next bytes of the file have arrived.
    pub(super) fn append(&mut self, chunk: &Bytes) {
        match &mut self.state {
            WriterState::Off => {}
            WriterState::Waiting {
                version,
                chunks,
                measured,
            } => {
                chunks.push(chunk.clone());
                measured.add(chunk);
                let is_full = measured.bytes > MEMORY_BYTES_MAX;
                if (is_full || measured.is_reliable()) && measured.is_slow(version.size) {
                    let (version, chunks, measured) =
                        (version.clone(), std::mem::take(chunks), *measured);
                    self.start(version, &chunks, measured);
                } else if is_full {
                    self.state = WriterState::Off;
                }
            }
            WriterState::Writing { .. } => self.write(chunk),
        }
    }

    /// The download begins anew, with this version of the file: bytes of two versions are not mixed.
    pub(super) fn restarted(&mut self, validator: Option<&str>, size: Option<u64>) {
        let version = match &self.state {
            WriterState::Off => return,
            WriterState::Waiting { version, .. } => version,
            WriterState::Writing { output, .. } => output.file.header(),
        };
        if validator.unwrap_or_default() != version.validator || size != Some(version.size) {
            self.give_up();
        }
    }

    /// Removes what was kept, and keeps nothing more.
    pub(super) fn give_up(&mut self) {
        let state = std::mem::replace(&mut self.state, WriterState::Off);
        if let WriterState::Writing { mut output, .. } = state {
            output.pending.clear();
            output.file.remove();
        }
    }

    /// Begins to write, with what has arrived.
    fn start(&mut self, version: SpoolHeader, chunks: &[Bytes], measured: MeasuredStart) {
        self.state = WriterState::Off;
        let Some(request) = &self.request else { return };
        let Some(file) = request.spools.create(&request.name, version) else {
            return;
        };

        tracing::debug!(item = %request.item, "keeping the download on disk");
        self.state = WriterState::Writing {
            output: PieceWriter::new(file),
            trial: Some(measured),
        };
        for chunk in chunks {
            self.write(chunk);
        }
    }

    fn write(&mut self, chunk: &Bytes) {
        let WriterState::Writing { output, trial } = &mut self.state else {
            return;
        };
        let nar_size = self.request.as_ref().map_or(0, |request| request.nar_size);
        match output.write(chunk, nar_size) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::QuotaExceeded && output.is_at_limit() => {
                // The beginning is worth something.
                self.state = WriterState::Off;
                return;
            }
            Err(error) => {
                tracing::debug!(%error, "the download is not kept any more");
                self.give_up();
                return;
            }
        }

        let Some(measured) = trial else { return };
        measured.add(chunk);
        if measured.bytes < TRIAL_BYTES {
            return;
        }
        if measured.is_slow(output.file.header().size) {
            *trial = None;
        } else {
            self.give_up();
        }
    }
}

impl MeasuredStart {
    fn add(&mut self, chunk: &Bytes) {
        if self.bytes == 0 {
            // The time that the server took to answer does not count.
            self.since = Instant::now();
        }
        self.bytes += chunk.len() as u64;
    }

    /// Whether a file of `size` bytes takes long at this rate.
    fn is_slow(&self, size: u64) -> bool {
        let elapsed = self.since.elapsed().as_secs_f64();
        size as f64 * elapsed / self.bytes.max(1) as f64 > SPOOLED_SECONDS
    }

    /// Whether it took long enough to be measured.
    fn is_reliable(&self) -> bool {
        self.since.elapsed() >= MEASURED_MIN
    }
}

impl PieceWriter {
    fn new(file: Arc<SpoolFile>) -> Self {
        Self {
            next_check: file.bytes(),
            file,
            pending: Vec::new(),
            written_at: Instant::now(),
        }
    }

    fn write(&mut self, chunk: &[u8], nar_size: u64) -> io::Result<()> {
        self.pending.extend_from_slice(chunk);
        if self.pending.len() < PIECE_BYTES && self.written_at.elapsed() < PIECE_TIME {
            return Ok(());
        }
        if self.file.bytes() >= self.next_check {
            self.check_space(nar_size)?;
        }
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.append(&self.pending)?;
        self.pending.clear();
        self.written_at = Instant::now();
        Ok(())
    }

    /// An error if the free space is needed for the rest of the item, of which the nar has `nar_size`
    /// bytes.
    fn check_space(&mut self, nar_size: u64) -> io::Result<()> {
        let (bytes, size) = (self.file.bytes(), self.file.header().size);
        let left = size.saturating_sub(bytes) as f64 / size.max(1) as f64;
        let needed = left * nar_size as f64 + SPACE_INTERVAL_BYTES as f64;
        if (self.file.free_bytes()? as f64) < needed {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.next_check = bytes + SPACE_INTERVAL_BYTES;
        Ok(())
    }

    /// Whether there is no room for the next piece, by the limit of partial downloads.
    fn is_at_limit(&self) -> bool {
        self.file.bytes() + self.pending.len() as u64 > self.file.reserved_bytes()
    }
}

impl Drop for PieceWriter {
    fn drop(&mut self) {
        let is_complete = self.pending.is_empty() || self.is_at_limit();
        if !is_complete && self.flush().is_err() {
            self.file.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_that_the_nar_cannot_take_is_not_kept() {
        let base = tempfile::tempdir().unwrap();
        let spools = SpoolDirectory::new(base.path(), base.path().join("partial"), u64::MAX);
        let request = SpoolRequest {
            spools: Arc::new(spools),
            name: "0".repeat(64),
            item: StorePath::parse("0f9qzp1g3jy45al4zspzqah9f8d5bisp-a").unwrap(),
            nar_size: 100 << 20,
            expected_rate: 1.0,
        };
        let url = Url::parse("http://h/x").unwrap();
        for (size, is_kept) in [(1 << 50, false), (1000, false), (100 << 20, true)] {
            let writer = SpoolWriter::first(request.clone(), &url, None, size);
            assert_eq!(!matches!(writer.state, WriterState::Off), is_kept, "{size}");
        }
    }

    #[test]
    fn a_removed_download_is_not_kept_any_more() {
        let base = tempfile::tempdir().unwrap();
        let spools = SpoolDirectory::new(base.path(), base.path().join("partial"), u64::MAX);
        let spools = Arc::new(spools);
        let item = StorePath::parse("0f9qzp1g3jy45al4zspzqah9f8d5bisp-a").unwrap();
        let request = SpoolRequest {
            spools: Arc::clone(&spools),
            name: "0".repeat(64),
            item: item.clone(),
            nar_size: 100 << 20,
            expected_rate: 1.0,
        };
        let url = Url::parse("http://h/x").unwrap();
        let mut writer = SpoolWriter::first(request, &url, None, 100 << 20);
        let piece = Bytes::from(vec![0; PIECE_BYTES]);
        writer.append(&piece);
        assert!(matches!(writer.state, WriterState::Writing { .. }));

        spools.item_is_valid(&item);
        writer.append(&piece);

        assert!(matches!(writer.state, WriterState::Off));
    }
}
