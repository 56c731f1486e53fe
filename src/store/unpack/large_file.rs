//! A file too large to gather in memory: written while its bytes stream by.
//!
//! Runs of zeros become holes, as the stock client makes them. The deduplication hash is
//! taken on the way; when `.links` turns out to hold the file already, the copy just written
//! is replaced by a link.

use rustix::fd::OwnedFd;

use crate::format::nar::{EntryName, NarError};
use crate::store::fingerprint::Fingerprint;

use super::batch::create_file;
use super::directory::Directory;
use super::error::UnpackError;
use super::hashed::{Chunks, FileContents};
use super::pool::WriterPool;
use super::tree::Tree;

/// Zeros are left out in blocks of this size, aligned within the file.
const HOLE_BLOCK_BYTES: usize = 4096;

pub(super) struct LargeFile<'a> {
    pub(super) parent: &'a Directory,
    pub(super) name: &'a EntryName,
    pub(super) executable: bool,
    pub(super) size: u64,
    pub(super) pool: &'a WriterPool,
}

impl LargeFile<'_> {
    /// Writes the file from `contents`, and deduplicates it when they have a hash.
    pub(super) fn write<R: Chunks>(
        &self,
        tree: &Tree,
        mut contents: FileContents<'_, R>,
    ) -> Result<(), UnpackError> {
        let file = create_file(self.parent, self.name, self.executable)?;

        let mut offset = 0u64;
        loop {
            let bytes = contents.next_bytes().map_err(NarError::from)?;
            if bytes.is_empty() {
                break;
            }
            write_sparse(&file, offset, &bytes)
                .map_err(|source| self.parent.error("writing", self.name, source))?;
            offset += bytes.len() as u64;
            self.pool.count_written(bytes.len());
        }
        // A hole at the end has no byte that would give the file its length.
        rustix::fs::ftruncate(&file, self.size)
            .map_err(|source| self.parent.error("writing", self.name, source))?;
        tree.created_modes
            .settle_file(file, self.executable)
            .map_err(|source| self.parent.error("closing", self.name, source))?;

        if let (Some(deduplication), Some(hash)) = (&tree.deduplication, contents.digest()) {
            let file = Fingerprint {
                hash,
                size: self.size,
                executable: self.executable,
            };
            deduplication.link_to_entry_or_note(&file, self.parent, self.name)?;
        }
        Ok(())
    }
}

/// Writes `bytes` at `offset`, leaving out aligned blocks of zeros.
fn write_sparse(file: &OwnedFd, mut offset: u64, mut bytes: &[u8]) -> rustix::io::Result<()> {
    while !bytes.is_empty() {
        let (length, is_hole) = next_run(offset, bytes);
        let (run, rest) = bytes.split_at(length);
        let mut unwritten = if is_hole { &[] } else { run };
        offset += length as u64;
        while !unwritten.is_empty() {
            let at = offset - unwritten.len() as u64;
            unwritten = &unwritten[rustix::io::pwrite(file, unwritten, at)?..];
        }
        bytes = rest;
    }
    Ok(())
}

/// The longest run of blocks at the start of `bytes` that are all zero, or all not.
fn next_run(offset: u64, bytes: &[u8]) -> (usize, bool) {
    let block_bytes = HOLE_BLOCK_BYTES as u64;
    let (mut length, mut run_is_hole) = (0, None);
    while length < bytes.len() {
        let until_aligned = block_bytes - (offset + length as u64) % block_bytes;
        let rest = &bytes[length..];
        let block = &rest[..rest
            .len()
            .min(usize::try_from(until_aligned).unwrap_or(rest.len()))];
        let is_hole = block.len() == HOLE_BLOCK_BYTES && block.iter().all(|&byte| byte == 0);
        if *run_is_hole.get_or_insert(is_hole) != is_hole {
            break;
        }
        length += block.len();
    }
    (length, run_is_hole.unwrap_or(false))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn sparse_writing_keeps_every_byte(
            runs in proptest::collection::vec((any::<bool>(), 1usize..20_000), 1..8),
            cuts in proptest::collection::vec(1usize..9000, 1..20),
        ) {
            let bytes: Vec<u8> = runs
                .iter()
                .flat_map(|&(zero, length)| std::iter::repeat_n(if zero { 0 } else { 7 }, length))
                .collect();
            let file = tempfile::NamedTempFile::new().unwrap();
            let fd = OwnedFd::from(file.reopen().unwrap());
            let (mut offset, mut cut) = (0, cuts.iter().cycle());
            while offset < bytes.len() {
                let end = bytes.len().min(offset + cut.next().unwrap());
                write_sparse(&fd, offset as u64, &bytes[offset..end]).unwrap();
                offset = end;
            }
            rustix::fs::ftruncate(&fd, bytes.len() as u64).unwrap();
            prop_assert_eq!(std::fs::read(file.path()).unwrap(), bytes);
        }
    }
}
