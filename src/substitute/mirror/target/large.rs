//! Large nars are sent to a bucket in parts, and a run that was killed goes on with the parts that the store has.
//!
//! What is under way is recorded beside the nars that are to be sent: the name of the upload, the hash of the file and the
//! size of the parts. Only parts of the very same file are used again. Uploads that were not continued for a
//! week are aborted.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use data_encoding::HEXLOWER;
use rustix::fs::{AtFlags, Dir, unlinkat};
use serde::{Deserialize, Serialize};
use tracing::debug;

use super::error::TargetError;
use super::lease::WriterLease;
use super::parts::PartsUpload;
use crate::format::sha256::Sha256;
use crate::http::{Bucket, ObjectPut, UploadedPart};
use crate::no_follow;

/// Larger nars are sent in parts.
pub(super) const WHOLE_BYTES_MAX: u64 = 64 << 20;
/// The smallest part, and the most parts of an object.
const PART_BYTES_MIN: u64 = 8 << 20;
const PARTS_MAX: u64 = 10_000;
/// After this time an upload is not continued.
const AGE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// The longest record.
const RECORD_BYTES_MAX: u64 = 16 << 10;

/// The uploads that are under way to one bucket.
pub(super) struct UploadRecords {
    directory: OwnedFd,
}

/// An upload that is under way.
#[derive(Debug, Serialize, Deserialize)]
struct UploadRecord {
    key: String,
    id: String,
    /// The SHA-256 of the whole file, in hexadecimal digits.
    sha256: String,
    part_bytes: u64,
}

/// A nar to be sent in parts.
pub(super) struct LargeNar<'a> {
    pub(super) key: &'a str,
    pub(super) file: Arc<File>,
    pub(super) size: u64,
    pub(super) sha256: [u8; 32],
    /// How the object is described.
    pub(super) put: ObjectPut,
}

impl UploadRecords {
    pub(super) fn new(directory: OwnedFd) -> Self {
        Self { directory }
    }

    /// Sends `nar`: the `ETag` of the object, if the store says so.
    ///
    /// # Errors
    /// It cannot be read or sent; a later run goes on.
    pub(super) fn send(
        &self,
        bucket: &Bucket,
        lease: &WriterLease,
        nar: &LargeNar<'_>,
    ) -> Result<Option<String>, TargetError> {
        let (record, uploaded) = self.begin(bucket, nar)?;
        let upload = PartsUpload {
            bucket,
            lease,
            key: nar.key,
            id: &record.id,
            file: &nar.file,
            size: nar.size,
            part_bytes: record.part_bytes,
        };
        let parts = upload.send(uploaded)?;

        lease.check()?;
        let completed = bucket.complete_upload(nar.key, &record.id, &parts);
        let etag = completed.map_err(TargetError::of_bucket("complete", nar.key))?;
        self.remove(&file_name(nar.key));
        Ok(etag)
    }

    /// The upload to send `nar` with, and the parts of it that the store has: one that was begun for the very same file,
    /// or a new one.
    fn begin(
        &self,
        bucket: &Bucket,
        nar: &LargeNar<'_>,
    ) -> Result<(UploadRecord, Vec<UploadedPart>), TargetError> {
        let name = file_name(nar.key);
        let sha256 = HEXLOWER.encode(&nar.sha256);
        let part_bytes = part_bytes(nar.size);
        if let Some(record) = self.read(&name).filter(|record| record.key == nar.key) {
            let is_same = record.sha256 == sha256 && record.part_bytes == part_bytes;
            if is_same {
                let parts = bucket.uploaded_parts(nar.key, &record.id);
                let parts = parts.map_err(TargetError::of_bucket("list the parts of", nar.key))?;
                if let Some(parts) = parts {
                    return Ok((record, parts));
                }
            } else {
                abort(bucket, &record);
            }
        }

        let created = bucket.create_upload(&nar.put);
        let record = UploadRecord {
            key: nar.key.to_owned(),
            id: created.map_err(TargetError::of_bucket("begin to write", nar.key))?,
            sha256,
            part_bytes,
        };
        if let Err(error) = self.write(&name, &record) {
            debug!(%error, key = nar.key, "a later run cannot continue this upload");
        }
        Ok((record, Vec::new()))
    }

    /// Aborts the uploads that were left behind too long ago.
    pub(super) fn abort_old(&self, bucket: &Bucket) {
        let Ok(entries) = Dir::read_from(&self.directory) else {
            return;
        };
        for entry in entries.flatten() {
            let Ok(name) = entry.file_name().to_str() else {
                continue;
            };
            if matches!(name, "." | "..") {
                continue;
            }
            let modified = no_follow::open_file(self.directory.as_fd(), name)
                .and_then(|file| file.metadata()?.modified());
            let age = modified.ok().and_then(|modified| modified.elapsed().ok());
            if age.is_some_and(|age| age > AGE_MAX) {
                if let Some(record) = self.read(name) {
                    abort(bucket, &record);
                }
                self.remove(name);
            }
        }
    }

    fn read(&self, name: &str) -> Option<UploadRecord> {
        let file = no_follow::open_file(self.directory.as_fd(), name).ok()?;
        let mut text = String::new();
        file.take(RECORD_BYTES_MAX).read_to_string(&mut text).ok()?;
        serde_json::from_str(&text).ok()
    }

    fn write(&self, name: &str, record: &UploadRecord) -> io::Result<()> {
        self.remove(name);
        let text = serde_json::to_string(record)?;
        no_follow::create_file(self.directory.as_fd(), name.as_ref(), text.as_bytes())
    }

    fn remove(&self, name: &str) {
        // One that is left is read again, and found to be of no use.
        let _ = unlinkat(&self.directory, name, AtFlags::empty());
    }
}

fn abort(bucket: &Bucket, record: &UploadRecord) {
    if let Err(error) = bucket.abort_upload(&record.key, &record.id) {
        debug!(%error, key = record.key, "an upload is not aborted");
    }
}

/// The name of the record for the object `key`.
fn file_name(key: &str) -> String {
    let mut digest = Sha256::new();
    digest.update(key.as_bytes());
    HEXLOWER.encode(&digest.finish())
}

/// The size of the parts of a file of `size` bytes.
fn part_bytes(size: u64) -> u64 {
    PART_BYTES_MIN.max(size.div_ceil(PARTS_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_large_enough_and_not_too_many() {
        for size in [WHOLE_BYTES_MAX + 1, 80 << 30, (80 << 30) + 1, 5 << 40] {
            let part = part_bytes(size);
            assert!(part >= PART_BYTES_MIN && size.div_ceil(part) <= PARTS_MAX);
        }
        assert_eq!(part_bytes(65 << 20), 8 << 20);
    }

    #[test]
    fn a_record_is_found_again_and_a_damaged_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let opened = no_follow::open_directory(directory.path(), directory.path()).unwrap();
        let records = UploadRecords::new(opened);
        let record = UploadRecord {
            key: "nar/x".to_owned(),
            id: "2~a".to_owned(),
            sha256: "00".to_owned(),
            part_bytes: 8 << 20,
        };
        records.write("name", &record).unwrap();
        records.write("name", &record).unwrap();
        assert_eq!(records.read("name").unwrap().id, "2~a");
        std::fs::write(directory.path().join("name"), "{").unwrap();
        assert!(records.read("name").is_none());
        records.remove("name");
        assert_eq!(directory.path().read_dir().unwrap().count(), 0);
    }
}
