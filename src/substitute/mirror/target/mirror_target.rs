//! A mirror, whatever holds its files.
//!
//! Files appear in it whole, or not at all. What was published lasts after
//! [`MirrorTarget::sync_names`].

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::Mode;

use super::bucket::MirrorBucket;
use super::directory::MirrorDirectory;
use super::error::TargetError;
use super::incoming_nar::IncomingNar;
use super::spool::UploadSpool;
use crate::format::hash::FileHash;
use crate::http::{Bucket, Client};
use crate::substitute::mirror::incoming::IncomingNarName;
use crate::substitute::mirror::key::MirrorKey;
use crate::substitute::mirror::walk::ListedFile;

/// Bytes of a file of the mirror that are read at a time.
const BUFFER_BYTES: usize = 128 << 10;

/// Nars that are sent to an object store at the same time.
const UPLOADS: usize = 16;

/// Where a mirror is, of which this process may be the writer.
pub(crate) enum MirrorTarget {
    /// A directory.
    Directory(MirrorDirectory),
    /// A bucket of an object store.
    Bucket(MirrorBucket),
}

impl MirrorTarget {
    /// Opens the directory `path` to write to it, after creating it if need be, and removes what a process that was
    /// killed has left there, except nars. New files get `file_mode`.
    ///
    /// # Errors
    /// Another process writes to it, or it cannot be written to.
    pub(crate) fn open(path: &Path, file_mode: Mode) -> Result<Self, TargetError> {
        MirrorDirectory::open(path, file_mode).map(Self::Directory)
    }

    /// Opens the directory `path` to read it; `None` if it does not exist.
    ///
    /// # Errors
    /// It cannot be opened.
    pub(crate) fn open_to_read(path: &Path) -> Result<Option<Self>, TargetError> {
        let opened = MirrorDirectory::open_to_read(path)?;
        Ok(opened.map(Self::Directory))
    }

    /// Opens `bucket`, which `client` is for; with a `spool`, to write to it.
    ///
    /// # Errors
    /// It cannot be listed.
    pub(crate) fn open_bucket(
        client: Arc<Client>,
        bucket: Bucket,
        spool: Option<UploadSpool>,
    ) -> Result<Self, TargetError> {
        MirrorBucket::open(client, bucket, spool).map(Self::Bucket)
    }

    /// How many nars are worth being copied at the same time if `jobs` of them are downloaded.
    #[must_use]
    pub(crate) fn copies(&self, jobs: usize) -> usize {
        match self {
            Self::Directory(_) => jobs,
            Self::Bucket(_) => jobs.max(UPLOADS),
        }
    }

    /// Bytes that were sent to an object store, also those that were sent again.
    #[must_use]
    pub(crate) fn sent_bytes(&self) -> u64 {
        match self {
            Self::Directory(_) => 0,
            Self::Bucket(bucket) => bucket.sent_bytes(),
        }
    }

    /// The size of the file `key`; `None` if there is none.
    ///
    /// # Errors
    /// Something else has its name, or the mirror cannot be read.
    pub(crate) fn size(&self, key: &MirrorKey) -> Result<Option<u64>, TargetError> {
        match self {
            Self::Directory(directory) => directory.size(key),
            Self::Bucket(bucket) => Ok(bucket.size(key)),
        }
    }

    /// The same, also if another process has written or removed it since the mirror was opened.
    ///
    /// # Errors
    /// As for [`MirrorTarget::size`].
    pub(crate) fn current_size(&self, key: &MirrorKey) -> Result<Option<u64>, TargetError> {
        match self {
            Self::Directory(directory) => directory.size(key),
            Self::Bucket(bucket) => bucket.current_size(key),
        }
    }

    /// Opens the file `key` to read it; `None` if there is none.
    ///
    /// # Errors
    /// The mirror cannot be read.
    pub(crate) fn file(
        &self,
        key: &MirrorKey,
    ) -> Result<Option<Box<dyn BufRead + Send>>, TargetError> {
        match self {
            Self::Directory(directory) => {
                let file = directory.file(key)?;
                Ok(file
                    .map(|file| Box::new(BufReader::with_capacity(BUFFER_BYTES, file)) as Box<_>))
            }
            Self::Bucket(bucket) => bucket.file(key),
        }
    }

    /// The text of the file `key`, if there is one of at most `bytes_max` bytes of UTF-8.
    ///
    /// # Errors
    /// The mirror cannot be read.
    pub(crate) fn text(
        &self,
        key: &MirrorKey,
        bytes_max: usize,
    ) -> Result<Option<String>, TargetError> {
        match self {
            Self::Directory(directory) => directory.text(key, bytes_max),
            Self::Bucket(bucket) => bucket.text(key, bytes_max),
        }
    }

    /// Reads the texts of the files `keys`, as far as they exist, for [`MirrorTarget::text`], if each would take a
    /// round trip.
    ///
    /// # Errors
    /// The mirror cannot be read.
    pub(crate) fn read_ahead(
        &self,
        keys: &[MirrorKey],
        bytes_max: usize,
    ) -> Result<(), TargetError> {
        match self {
            Self::Directory(_) => Ok(()),
            Self::Bucket(bucket) => bucket.read_ahead(keys, bytes_max),
        }
    }

    /// A file to write a nar to, which has no name that others read before [`MirrorTarget::publish`].
    ///
    /// # Errors
    /// It cannot be created.
    pub(crate) fn new_nar(&self) -> Result<IncomingNar<'_>, TargetError> {
        match self {
            Self::Directory(directory) => directory.new_file().map(IncomingNar::new),
            Self::Bucket(bucket) => bucket.new_nar(),
        }
    }

    /// The file to write the nar `name` to, with what an earlier run has written of it, if that is not more
    /// than `bytes`. If it has so many and becomes the file `key`, it may be sent while it is written.
    ///
    /// # Errors
    /// It cannot be opened or created.
    pub(crate) fn incoming_nar(
        &self,
        name: &IncomingNarName,
        bytes: u64,
        key: Option<&MirrorKey>,
    ) -> Result<IncomingNar<'_>, TargetError> {
        match self {
            Self::Directory(directory) => directory.incoming_nar(name, bytes).map(IncomingNar::new),
            Self::Bucket(bucket) => bucket.incoming_nar(name, bytes, key),
        }
    }

    /// Removes the beginnings of nars that are not `wanted`, before the first of them is opened.
    ///
    /// # Errors
    /// They cannot be removed.
    pub(crate) fn remove_unwanted(
        &self,
        wanted: &HashSet<IncomingNarName>,
    ) -> Result<(), TargetError> {
        match self {
            Self::Directory(directory) => directory.remove_unwanted(wanted),
            Self::Bucket(bucket) => bucket.remove_unwanted(wanted),
        }
    }

    /// Bytes of nars that the next run continues.
    #[must_use]
    pub(crate) fn kept_bytes(&self) -> u64 {
        match self {
            Self::Directory(directory) => directory.kept_bytes(),
            Self::Bucket(bucket) => bucket.kept_bytes(),
        }
    }

    /// Makes the contents of `nar`, whose hash is `hash`, last and gives it the name `key`, in place of an earlier file.
    /// The name lasts after [`MirrorTarget::sync_names`].
    ///
    /// # Errors
    /// It cannot be written; an earlier file is as it was.
    pub(crate) fn publish(
        &self,
        nar: IncomingNar<'_>,
        key: &MirrorKey,
        hash: &FileHash,
    ) -> Result<(), TargetError> {
        match self {
            Self::Directory(directory) => directory.publish(nar.into_parts().0, key),
            Self::Bucket(bucket) => bucket.publish(nar, key, hash),
        }
    }

    /// Writes the whole files `texts`, in place of earlier ones.
    ///
    /// # Errors
    /// One of them cannot be written; its earlier file is as it was.
    pub(crate) fn replace(&self, texts: &[(MirrorKey, &str)]) -> Result<(), TargetError> {
        match self {
            Self::Directory(directory) => {
                let mut texts = texts.iter();
                texts.try_for_each(|(key, text)| directory.replace(key, text))
            }
            Self::Bucket(bucket) => bucket.replace(texts),
        }
    }

    /// Calls `visit` for all files of the mirror, without those of its own directory, in no particular order.
    ///
    /// # Errors
    /// The mirror cannot be read.
    pub(crate) fn list(&self, visit: &mut dyn FnMut(ListedFile)) -> Result<(), TargetError> {
        match self {
            Self::Directory(directory) => directory.list(visit),
            Self::Bucket(bucket) => {
                bucket.list(visit);
                Ok(())
            }
        }
    }

    /// Removes those of the files `keys` that are there. The removal lasts after [`MirrorTarget::sync_names`].
    ///
    /// # Errors
    /// One of them cannot be removed, or the mirror is open for reading.
    pub(crate) fn remove(&self, keys: &[MirrorKey]) -> Result<(), TargetError> {
        match self {
            Self::Directory(directory) => keys.iter().try_for_each(|key| directory.remove(key)),
            Self::Bucket(bucket) => bucket.remove(keys),
        }
    }

    /// Makes the name of the file `key`, which is there, last after [`MirrorTarget::sync_names`]: the
    /// process that published it may have been killed before that.
    pub(crate) fn keep_name(&self, key: &MirrorKey) {
        match self {
            Self::Directory(directory) => directory.keep_name(key),
            Self::Bucket(_) => {}
        }
    }

    /// Makes all names that were published last.
    ///
    /// # Errors
    /// The mirror cannot be written.
    pub(crate) fn sync_names(&self) -> Result<(), TargetError> {
        match self {
            Self::Directory(directory) => directory.sync_names(),
            Self::Bucket(_) => Ok(()),
        }
    }
}
