//! A large nar is sent to a bucket in parts, while it still arrives.
//!
//! Each part is hashed as the nar is written to its file, before it is sent: the store refuses other bytes than those. The
//! object appears when the upload is completed, which is done after the nar was verified; otherwise it is aborted.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use super::error::TargetError;
use super::lease::WriterLease;
use super::upload_records::{BegunUpload, UploadRecords};
use crate::format::sha256::Sha256;
use crate::http::{BodyHash, Bucket, FilePart, ObjectPut, PartSender, UploadedPart};

/// Larger nars are sent in parts.
pub(super) const WHOLE_BYTES_MAX: u64 = 64 << 20;
/// The smallest part, and the most parts of an object.
const PART_BYTES_MIN: u64 = 8 << 20;
const PARTS_MAX: u64 = 10_000;
/// Bytes of a file that are read at a time.
const BUFFER_BYTES: usize = 128 << 10;

/// What sends large nars to a bucket.
#[derive(Clone, Copy)]
pub(super) struct LargeNarSender<'a> {
    pub(super) bucket: &'a Arc<Bucket>,
    pub(super) lease: &'a WriterLease,
    pub(super) records: &'a UploadRecords,
}

/// A nar that is being sent in parts. Dropped, its upload is aborted.
pub(super) struct LargeUpload<'a> {
    sender: LargeNarSender<'a>,
    key: String,
    /// How the object is described.
    put: ObjectPut,
    file: Arc<File>,
    size: u64,
    part_bytes: u64,
    /// Bytes that were written so far, and the hash of those of the part that is not complete.
    position: u64,
    hash: Sha256,
    state: UploadState,
}

enum UploadState {
    /// No part is complete yet.
    Empty,
    Begun {
        id: String,
        /// Parts that earlier runs have sent, with the hash of each.
        known: Vec<(UploadedPart, String)>,
        /// Those of them that are parts of this nar.
        reused: Vec<UploadedPart>,
        parts: PartSender,
    },
    Failed(TargetError),
    /// The upload is complete, or a later run goes on with it.
    Ended,
}

impl<'a> LargeUpload<'a> {
    /// Sends the `size` bytes that will be written to `file` as the object `put`, whose key is `key`.
    pub(super) fn new(
        sender: LargeNarSender<'a>,
        key: &str,
        put: ObjectPut,
        file: Arc<File>,
        size: u64,
    ) -> Self {
        Self {
            sender,
            key: key.to_owned(),
            put,
            file,
            size,
            part_bytes: part_bytes(size),
            position: 0,
            hash: Sha256::new(),
            state: UploadState::Empty,
        }
    }

    /// Whether this is the object `key` with all `size` bytes.
    pub(super) fn is_whole(&self, key: &str, size: u64) -> bool {
        self.key == key && self.size == size && self.position == size
    }

    /// Notes that `bytes` were written to the file.
    pub(super) fn note_written(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.position < self.size {
            let start = self.position - self.position % self.part_bytes;
            let end = self.size.min(start + self.part_bytes);
            let count = usize::try_from(end - self.position).unwrap_or(usize::MAX);
            let (of_part, rest) = bytes.split_at(count.min(bytes.len()));
            self.hash.update(of_part);
            self.position += of_part.len() as u64;
            bytes = rest;
            if self.position == end {
                self.send_part(start, end - start);
            }
        }
    }

    /// Whether [`LargeUpload::complete`] will fail, however much more is written.
    pub(super) fn has_failed(&self) -> bool {
        match &self.state {
            UploadState::Failed(_) => true,
            UploadState::Begun { parts, .. } => parts.has_failed(),
            UploadState::Empty | UploadState::Ended => false,
        }
    }

    /// Notes that all bytes were written to the file, by reading them.
    ///
    /// # Errors
    /// They cannot be read.
    pub(super) fn note_file(&mut self) -> io::Result<()> {
        let (file, mut buffer) = (Arc::clone(&self.file), vec![0; BUFFER_BYTES]);
        while self.position < self.size {
            let rest = usize::try_from(self.size - self.position).unwrap_or(usize::MAX);
            let chunk = &mut buffer[..rest.min(BUFFER_BYTES)];
            file.read_exact_at(chunk, self.position)?;
            self.note_written(chunk);
        }
        Ok(())
    }

    fn send_part(&mut self, start: u64, size: u64) {
        let digest = std::mem::take(&mut self.hash).finish();
        let part = FilePart {
            number: u32::try_from(start / self.part_bytes + 1).unwrap_or(u32::MAX),
            file: Arc::clone(&self.file),
            start,
            size,
            hash: BodyHash::from_digest(&digest),
        };
        if matches!(self.state, UploadState::Empty) {
            self.state = self.begin().unwrap_or_else(UploadState::Failed);
        }
        if let UploadState::Begun {
            known,
            reused,
            parts,
            ..
        } = &mut self.state
        {
            let same = known.iter().find(|(stored, sha256)| {
                stored.number == part.number
                    && stored.size == part.size
                    && sha256 == part.hash.as_str()
            });
            match same {
                Some((stored, _)) => reused.push(stored.clone()),
                None => parts.send(part),
            }
        }
    }

    fn begin(&self) -> Result<UploadState, TargetError> {
        let LargeNarSender {
            bucket,
            lease,
            records,
        } = self.sender;
        lease.check()?;
        let begun = records.begin(bucket, &self.key, &self.put, self.part_bytes)?;
        let BegunUpload {
            id,
            parts: known,
            mut record,
        } = begun;
        let on_stored = Box::new(move |part: &_, hash: &_| record.note_stored(part, hash));
        let parts = bucket.part_sender(&self.key, &id, lease.permit(), on_stored);
        Ok(UploadState::Begun {
            id,
            known,
            reused: Vec::new(),
            parts,
        })
    }

    /// Sends what is left, and makes the object appear: its `ETag`, if the store says so.
    ///
    /// # Errors
    /// It cannot be sent; a later run goes on.
    pub(super) fn complete(mut self) -> Result<Option<String>, TargetError> {
        match std::mem::replace(&mut self.state, UploadState::Ended) {
            UploadState::Failed(error) => Err(error),
            UploadState::Begun {
                id, reused, parts, ..
            } => self.complete_upload(&id, reused, parts),
            UploadState::Empty | UploadState::Ended => Ok(None),
        }
    }

    fn complete_upload(
        &self,
        id: &str,
        reused: Vec<UploadedPart>,
        parts: PartSender,
    ) -> Result<Option<String>, TargetError> {
        let LargeNarSender {
            bucket,
            lease,
            records,
        } = self.sender;
        let sent = parts.finish();
        // No part is sent without the lease: then its loss is the cause.
        lease.check()?;
        let mut parts = sent.map_err(TargetError::of_bucket("write", &self.key))?;
        parts.extend(reused);
        parts.sort_unstable_by_key(|part| part.number);

        let completed = bucket.complete_upload(&self.key, id, &parts, Some(&lease.permit()));
        if completed.is_err() {
            lease.check()?;
        }
        let etag = completed.map_err(TargetError::of_bucket("complete", &self.key))?;
        records.remove(&self.key);
        Ok(etag)
    }

    /// Leaves the parts that the store has for a later run.
    pub(super) fn keep(mut self) {
        self.state = UploadState::Ended;
    }
}

impl Drop for LargeUpload<'_> {
    fn drop(&mut self) {
        if let UploadState::Begun { id, parts, .. } =
            std::mem::replace(&mut self.state, UploadState::Ended)
        {
            drop(parts);
            let LargeNarSender {
                bucket, records, ..
            } = self.sender;
            records.abort(bucket, &self.key, &id);
        }
    }
}

/// The size of the parts of a file of `size` bytes.
fn part_bytes(size: u64) -> u64 {
    PART_BYTES_MIN.max(size.div_ceil(PARTS_MAX))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Read as _, Write as _};
    use std::net::TcpListener;
    use std::sync::mpsc::{self, Receiver};
    use std::time::Duration;

    use super::*;
    use crate::http::testing::bucket;
    use crate::no_follow;

    /// A store that takes everything: its URL, and the requests that it has answered.
    fn store() -> (String, Receiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (answered, requests) = mpsc::channel();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut reader = BufReader::new(stream.unwrap());
                let (mut head, mut length) = (String::new(), 0);
                while !head.ends_with("\r\n\r\n") {
                    let start = head.len();
                    reader.read_line(&mut head).unwrap();
                    let line = head[start..].to_ascii_lowercase();
                    let value = line.strip_prefix("content-length: ");
                    length = value.map_or(length, |value| value.trim().parse().unwrap());
                }
                let mut body = (&mut reader).take(length);
                assert_eq!(io::copy(&mut body, &mut io::sink()).unwrap(), length);
                let body = "<X><UploadId>id</UploadId></X>";
                let size = body.len();
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nETag: \"1\"\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n{body}"
                );
                reader.get_mut().write_all(answer.as_bytes()).unwrap();
                let line = head.lines().next().unwrap().to_owned();
                answered.send(line).unwrap();
            }
        });
        (url, requests)
    }

    #[test]
    fn without_the_claim_no_further_part_is_sent_and_its_loss_is_the_cause() {
        let (url, requests) = store();
        let bucket = Arc::new(bucket(&url));
        let lease = WriterLease::unrenewed(&bucket);
        let directory = tempfile::tempdir().unwrap();
        let opened = no_follow::open_directory(directory.path(), directory.path()).unwrap();
        let sender = LargeNarSender {
            bucket: &bucket,
            lease: &lease,
            records: &UploadRecords::new(opened),
        };
        let part = vec![0; usize::try_from(PART_BYTES_MIN).unwrap()];
        let file = tempfile::tempfile().unwrap();
        file.set_len(2 * PART_BYTES_MIN).unwrap();
        let put = ObjectPut::bytes("key", Vec::new(), "text/plain");
        let mut upload = LargeUpload::new(sender, "key", put, Arc::new(file), 2 * PART_BYTES_MIN);

        upload.note_written(&part);
        let next = || requests.recv_timeout(Duration::from_secs(60)).unwrap();
        assert!(next().contains("uploads="));
        assert!(next().contains("partNumber=1&"));
        lease.set_lost(true);
        upload.note_written(&part);
        let failure = upload.complete().unwrap_err();
        assert!(matches!(failure, TargetError::LeaseLost(_)), "{failure}");
        assert_eq!(requests.try_iter().next(), None);
        // A later run continues with the first part.
        let record = std::fs::read_dir(directory.path()).unwrap().next();
        let record = std::fs::read_to_string(record.unwrap().unwrap().path()).unwrap();
        assert!(record.contains("\"number\":1"), "{record}");
    }

    #[test]
    fn parts_are_large_enough_and_not_too_many() {
        for size in [WHOLE_BYTES_MAX + 1, 80 << 30, (80 << 30) + 1, 5 << 40] {
            let part = part_bytes(size);
            assert!(part >= PART_BYTES_MIN && size.div_ceil(part) <= PARTS_MAX);
        }
        assert_eq!(part_bytes(65 << 20), 8 << 20);
    }
}
