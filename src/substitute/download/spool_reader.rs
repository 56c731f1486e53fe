//! Reads what earlier runs have kept of a download.

use std::sync::Arc;

use bytes::Bytes;

use crate::substitute::download::spool_file::SpoolFile;

/// Bytes that are read at once.
const CHUNK_BYTES: usize = 256 << 10;

/// The beginning of a file, on disk.
pub(super) struct KeptBeginning {
    file: Arc<SpoolFile>,
    start: u64,
    end: u64,
}

impl KeptBeginning {
    /// What `file` has now.
    pub(super) fn new(file: Arc<SpoolFile>) -> Self {
        file.note_resumed();
        Self {
            start: 0,
            end: file.bytes(),
            file,
        }
    }

    /// The next bytes; `None` at the end, and when the disk fails.
    pub(super) fn next_chunk(&mut self) -> Option<Bytes> {
        let read = self.file.read(self.start, CHUNK_BYTES).transpose()?;
        match read {
            Ok(chunk) => {
                self.start += chunk.len() as u64;
                Some(chunk)
            }
            Err(error) => {
                tracing::debug!(%error, "a partial download cannot be read");
                None
            }
        }
    }

    /// Whether all of it was read.
    pub(super) fn is_at_end(&self) -> bool {
        self.start == self.end
    }
}
