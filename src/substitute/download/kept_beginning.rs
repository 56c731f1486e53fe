//! The beginning of a download that earlier runs have left on the disk.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

/// Bytes that are read at once.
const CHUNK_BYTES: u64 = 256 << 10;

/// The first bytes of a download, in a file.
#[derive(Clone)]
pub(crate) struct KeptBeginning {
    file: Arc<File>,
    /// Where they are in the file.
    offset: u64,
    bytes: u64,
    /// What was read of them.
    read: u64,
}

impl KeptBeginning {
    /// The `bytes` bytes of `file` from `offset` on.
    pub(crate) fn new(file: Arc<File>, offset: u64, bytes: u64) -> Self {
        Self {
            file,
            offset,
            bytes,
            read: 0,
        }
    }

    /// How many bytes there are.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The next bytes; `None` at the end, and when the disk fails.
    pub(super) fn next_chunk(&mut self) -> Option<Bytes> {
        match self.read_chunk() {
            Ok(chunk) => {
                self.read += chunk.len() as u64;
                Some(chunk).filter(|chunk| !chunk.is_empty())
            }
            Err(error) => {
                tracing::debug!(%error, "a partial download cannot be read");
                None
            }
        }
    }

    fn read_chunk(&self) -> io::Result<Bytes> {
        let length = (self.bytes - self.read).min(CHUNK_BYTES);
        let mut chunk = BytesMut::zeroed(usize::try_from(length).unwrap_or(0));
        let position = self.offset + self.read;
        self.file.read_exact_at(&mut chunk, position)?;
        Ok(chunk.freeze())
    }

    /// Whether all of it was read.
    pub(super) fn is_at_end(&self) -> bool {
        self.read == self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_are_read_and_no_others() {
        let file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..=250).cycle().take(600_000).collect();
        file.write_all_at(&bytes, 0).unwrap();
        let mut beginning = KeptBeginning::new(Arc::new(file), 7, 500_000);

        let mut found = Vec::new();
        while let Some(chunk) = beginning.next_chunk() {
            found.extend_from_slice(&chunk);
        }
        assert!(beginning.is_at_end());
        assert_eq!(found, bytes[7..500_007]);
    }

    #[test]
    fn a_file_that_is_shorter_ends_before_the_end() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(300_000).unwrap();
        let mut beginning = KeptBeginning::new(Arc::new(file), 0, 500_000);
        assert_eq!(beginning.next_chunk().unwrap().len(), 256 << 10);
        assert_eq!(beginning.next_chunk(), None);
        assert!(!beginning.is_at_end());
    }
}
