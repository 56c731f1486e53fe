//! The parts of a large nar, several of which are sent at the same time.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, Builder};

use super::error::TargetError;
use super::lease::WriterLease;
use crate::format::sha256::Sha256;
use crate::http::{BodyHash, Bucket, FilePart, UploadedPart};
use crate::sync::lock;

/// Parts of one nar that are sent at the same time. The bucket limits the requests for all nars, and halves
/// that limit when the store is overloaded.
const PARTS_AT_A_TIME: usize = 8;
/// Bytes that are hashed at a time.
const BUFFER_BYTES: usize = 128 << 10;

/// An upload whose parts are to be sent.
pub(super) struct PartsUpload<'a> {
    pub(super) bucket: &'a Bucket,
    pub(super) lease: &'a WriterLease,
    pub(super) key: &'a str,
    pub(super) id: &'a str,
    pub(super) file: &'a Arc<File>,
    pub(super) size: u64,
    pub(super) part_bytes: u64,
}

/// Where a part is in its file.
struct PartRange {
    number: u32,
    start: u64,
    size: u64,
}

impl PartRange {
    fn is_of(&self, part: &UploadedPart) -> bool {
        part.number == self.number && part.size == self.size
    }
}

/// The parts that are being sent, by several threads.
struct PartsWork {
    missing: Vec<PartRange>,
    next: AtomicUsize,
    /// The parts that the store has.
    stored: Mutex<Vec<UploadedPart>>,
    /// Why the upload cannot be completed.
    failure: Mutex<Option<TargetError>>,
}

impl PartsUpload<'_> {
    /// Sends all parts but those of them that are `uploaded` already: all, in their order.
    ///
    /// # Errors
    /// One of them cannot be read or sent; the store keeps the others.
    pub(super) fn send(
        &self,
        uploaded: Vec<UploadedPart>,
    ) -> Result<Vec<UploadedPart>, TargetError> {
        let (mut stored, mut missing) = (Vec::new(), Vec::new());
        for range in part_ranges(self.size, self.part_bytes) {
            match uploaded.iter().find(|part| range.is_of(part)) {
                Some(part) => stored.push(part.clone()),
                None => missing.push(range),
            }
        }

        let work = PartsWork {
            missing,
            next: AtomicUsize::new(0),
            stored: Mutex::new(stored),
            failure: Mutex::default(),
        };
        thread::scope(|scope| {
            for number in 1..PARTS_AT_A_TIME.min(work.missing.len()) {
                let thread = Builder::new().name(format!("mirror-part-{number}"));
                // What no thread does is done by this one below.
                let _ = thread.spawn_scoped(scope, || self.send_next_parts(&work));
            }
            self.send_next_parts(&work);
        });
        let failure = work.failure.into_inner();
        if let Some(failure) = failure.unwrap_or_else(PoisonError::into_inner) {
            return Err(failure);
        }
        let stored = work.stored.into_inner();
        let mut stored = stored.unwrap_or_else(PoisonError::into_inner);
        stored.sort_by_key(|part| part.number);
        Ok(stored)
    }

    /// Sends parts until another thread has taken the last one, or one has failed.
    fn send_next_parts(&self, work: &PartsWork) {
        while lock(&work.failure).is_none() {
            let next = work.next.fetch_add(1, Ordering::Relaxed);
            let Some(range) = work.missing.get(next) else {
                return;
            };
            match self.send_part(range) {
                Ok(part) => lock(&work.stored).push(part),
                Err(error) => {
                    lock(&work.failure).get_or_insert(error);
                }
            }
        }
    }

    fn send_part(&self, range: &PartRange) -> Result<UploadedPart, TargetError> {
        self.lease.check()?;
        let hash = hash_of(self.file, range.start, range.size);
        let part = FilePart {
            number: range.number,
            file: self.file,
            start: range.start,
            size: range.size,
            hash: hash.map_err(TargetError::of("read", self.key))?,
        };
        let sent = self.bucket.put_part(self.key, self.id, part);
        sent.map_err(TargetError::of_bucket("write", self.key))
    }
}

/// The parts of a file of `size` bytes, all but the last of which have `part_bytes`.
fn part_ranges(size: u64, part_bytes: u64) -> impl Iterator<Item = PartRange> {
    (1..)
        .zip(0..size.div_ceil(part_bytes))
        .map(move |(number, index)| {
            let start = index * part_bytes;
            PartRange {
                number,
                start,
                size: part_bytes.min(size - start),
            }
        })
}

/// The hash of `size` bytes of `file` from `start` on.
fn hash_of(file: &File, start: u64, size: u64) -> io::Result<BodyHash> {
    let (mut digest, mut buffer) = (Sha256::new(), vec![0; BUFFER_BYTES]);
    let (mut position, end) = (start, start + size);
    while position < end {
        let length =
            usize::try_from(end - position).map_or(BUFFER_BYTES, |it| it.min(BUFFER_BYTES));
        file.read_exact_at(&mut buffer[..length], position)?;
        digest.update(&buffer[..length]);
        position += length as u64;
    }
    Ok(BodyHash::from_digest(&digest.finish()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_the_whole_file_once() {
        for (size, count) in [(1, 1), (10, 1), (11, 2), (20, 2), (25, 3)] {
            let ranges: Vec<PartRange> = part_ranges(size, 10).collect();
            assert_eq!(ranges.len(), count);
            let mut end = 0;
            for (range, number) in ranges.iter().zip(1..) {
                assert_eq!((range.number, range.start), (number, end));
                end += range.size;
            }
            assert_eq!(end, size);
        }
    }
}
