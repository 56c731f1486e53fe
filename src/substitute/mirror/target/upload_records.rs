//! What is known of the uploads in parts to one bucket, so that a run that was killed goes on with the parts that the store has.
//!
//! A record is a file beside the nars that are to be sent: a line with the name of the upload, then one for each part
//! that the store has taken, with its hash and its `ETag`. Only parts with the very same content are used again. Uploads that
//! were not continued for a week are aborted.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use data_encoding::HEXLOWER;
use rustix::fs::{AtFlags, Dir, unlinkat};
use serde::{Deserialize, Serialize};
use tracing::debug;

use super::error::TargetError;
use crate::format::sha256::Sha256;
use crate::http::{BodyHash, Bucket, ObjectPut, UploadedPart};
use crate::no_follow;

/// After this time an upload is not continued.
const AGE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// The longest record: some hundred bytes for each of 10,000 parts.
const RECORD_BYTES_MAX: u64 = 4 << 20;

/// The uploads that are under way to one bucket.
pub(super) struct UploadRecords {
    directory: OwnedFd,
}

/// An upload that is under way.
#[derive(Debug, Serialize, Deserialize)]
struct UploadRecord {
    key: String,
    id: String,
    part_bytes: u64,
    #[serde(skip)]
    parts: Vec<PartRecord>,
}

/// A part that the store has taken.
#[derive(Debug, Serialize, Deserialize)]
struct PartRecord {
    number: u32,
    /// The SHA-256 of its content, in hexadecimal digits.
    sha256: String,
    etag: String,
}

/// An upload to which parts are sent.
pub(super) struct BegunUpload {
    /// Its name.
    pub(super) id: String,
    /// The parts that the store has, with the SHA-256 of each in hexadecimal digits.
    pub(super) parts: Vec<(UploadedPart, String)>,
    /// Where further ones are recorded.
    pub(super) record: RecordFile,
}

/// The record of one upload. Without a file, which could not be written, a later run cannot continue the upload.
pub(super) struct RecordFile(Option<File>);

impl UploadRecords {
    pub(super) fn new(directory: OwnedFd) -> Self {
        Self { directory }
    }

    /// The upload to send the object `put` with, whose key is `key`, and the parts of `part_bytes` that the store has: one that
    /// was begun earlier, or a new one.
    ///
    /// # Errors
    /// The object store does not say what it has, or create an upload.
    pub(super) fn begin(
        &self,
        bucket: &Bucket,
        key: &str,
        put: &ObjectPut,
        part_bytes: u64,
    ) -> Result<BegunUpload, TargetError> {
        let name = file_name(key);
        if let Some(record) = self.read(&name).filter(|record| record.key == key) {
            if record.part_bytes == part_bytes {
                let stored = bucket.uploaded_parts(key, &record.id);
                let stored = stored.map_err(TargetError::of_bucket("list the parts of", key))?;
                if let Some(stored) = stored {
                    return Ok(BegunUpload {
                        parts: record.known_parts(stored),
                        id: record.id,
                        record: self.open(&name),
                    });
                }
            } else {
                abort(bucket, key, &record.id);
            }
        }

        let created = bucket.create_upload(put);
        let record = UploadRecord {
            key: key.to_owned(),
            id: created.map_err(TargetError::of_bucket("begin to write", key))?,
            part_bytes,
            parts: Vec::new(),
        };
        Ok(BegunUpload {
            record: self.create(&name, &record),
            id: record.id,
            parts: Vec::new(),
        })
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
                let record = self.read(name);
                if record.is_none_or(|record| abort(bucket, &record.key, &record.id)) {
                    self.remove_file(name);
                }
            }
        }
    }

    /// Aborts the upload `id` of the object `key`, and forgets it; a later run does if the object store does not.
    pub(super) fn abort(&self, bucket: &Bucket, key: &str, id: &str) {
        if abort(bucket, key, id) {
            self.remove(key);
        }
    }

    /// Removes the record for the object `key`.
    pub(super) fn remove(&self, key: &str) {
        self.remove_file(&file_name(key));
    }

    fn read(&self, name: &str) -> Option<UploadRecord> {
        let file = no_follow::open_file(self.directory.as_fd(), name).ok()?;
        let mut text = String::new();
        file.take(RECORD_BYTES_MAX).read_to_string(&mut text).ok()?;
        let mut lines = text.lines();
        let mut record: UploadRecord = serde_json::from_str(lines.next()?).ok()?;
        // A process that was killed may have written a part of a line.
        record.parts = lines
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        Some(record)
    }

    fn create(&self, name: &str, record: &UploadRecord) -> RecordFile {
        let created = no_follow::open_or_create_file(self.directory.as_fd(), name);
        let created = created.and_then(|mut file| {
            file.set_len(0)?;
            file.write_all(serde_json::to_string(record)?.as_bytes())?;
            Ok(file)
        });
        RecordFile::of(created)
    }

    fn open(&self, name: &str) -> RecordFile {
        let opened = no_follow::open_file_to_write(self.directory.as_fd(), name);
        RecordFile::of(opened.and_then(|mut file| {
            file.seek(SeekFrom::End(0))?;
            Ok(file)
        }))
    }

    fn remove_file(&self, name: &str) {
        // One that is left is read again, and found to be of no use.
        let _ = unlinkat(&self.directory, name, AtFlags::empty());
    }
}

impl UploadRecord {
    /// Those of the `stored` parts whose content is recorded.
    fn known_parts(&self, stored: Vec<UploadedPart>) -> Vec<(UploadedPart, String)> {
        let known = stored.into_iter().filter_map(|part| {
            // The last one counts: what was sent again is in place of what was there.
            let mut recorded = self.parts.iter().rev();
            let recorded = recorded.find(|it| it.number == part.number)?;
            // Some stores list them without quotes.
            let is_same = recorded.etag.trim_matches('"') == part.etag.trim_matches('"');
            is_same.then(|| (part, recorded.sha256.clone()))
        });
        known.collect()
    }
}

impl RecordFile {
    fn of(opened: io::Result<File>) -> Self {
        if let Err(error) = &opened {
            debug!(%error, "a later run cannot continue this upload");
        }
        Self(opened.ok())
    }

    /// Notes that the store has `part`, whose content has this `hash`.
    pub(super) fn note_stored(&mut self, part: &UploadedPart, hash: &BodyHash) {
        let line = serde_json::to_string(&PartRecord {
            number: part.number,
            sha256: hash.as_str().to_owned(),
            etag: part.etag.clone(),
        });
        if let (Some(file), Ok(line)) = (&mut self.0, line)
            && let Err(error) = file.write_all(format!("\n{line}").as_bytes())
        {
            debug!(%error, "a later run sends this part again");
        }
    }
}

/// Aborts an upload; whether the object store has done so.
fn abort(bucket: &Bucket, key: &str, id: &str) -> bool {
    let aborted = bucket.abort_upload(key, id);
    if let Err(error) = &aborted {
        debug!(%error, key, "an upload is not aborted");
    }
    aborted.is_ok()
}

/// The name of the record for the object `key`.
fn file_name(key: &str) -> String {
    let mut digest = Sha256::new();
    digest.update(key.as_bytes());
    HEXLOWER.encode(&digest.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(number: u32, etag: &str) -> UploadedPart {
        UploadedPart {
            number,
            size: 8 << 20,
            etag: etag.to_owned(),
        }
    }

    #[test]
    fn a_record_is_found_again_with_its_parts_and_a_damaged_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let opened = no_follow::open_directory(directory.path(), directory.path()).unwrap();
        let records = UploadRecords::new(opened);
        let record = UploadRecord {
            key: "nar/x".to_owned(),
            id: "2~a".to_owned(),
            part_bytes: 8 << 20,
            parts: Vec::new(),
        };
        drop(records.create("name", &record));
        let mut file = records.create("name", &record);
        let (first, second) = (BodyHash::of(b"1"), BodyHash::of(b"2"));
        file.note_stored(&part(1, "\"a\""), &first);
        file.note_stored(&part(2, "\"b\""), &first);
        drop(file);
        // A line that was not written whole.
        let path = directory.path().join("name");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{text}\n{{\"number\":3,")).unwrap();
        records.open("name").note_stored(&part(2, "\"c\""), &second);

        let record = records.read("name").unwrap();
        assert_eq!(record.id, "2~a");
        let stored = vec![part(1, "\"other\""), part(2, "c"), part(3, "\"d\"")];
        let known = record.known_parts(stored);
        assert_eq!(known, [(part(2, "c"), second.as_str().to_owned())]);

        std::fs::write(&path, "{").unwrap();
        assert!(records.read("name").is_none());
        records.remove_file("name");
        assert_eq!(directory.path().read_dir().unwrap().count(), 0);
    }
}
