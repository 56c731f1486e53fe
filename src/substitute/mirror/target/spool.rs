//! Where the nars for a bucket are until they are sent: a directory of this machine, for one process at a time.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use data_encoding::HEXLOWER;
use rustix::fs::{FlockOperation, Mode, flock};
use rustix::io::Errno;

use super::error::TargetError;
use super::upload_records::UploadRecords;
use crate::format::server_url::ServerUrl;
use crate::format::sha256::Sha256;
use crate::no_follow;
use crate::substitute::mirror::incoming::IncomingDirectory;

/// The directory of all spools, below that of the lookup cache.
const DIRECTORY: &str = "mirror";

/// The files that are sent to one bucket. Only their user may read them.
pub(crate) struct UploadSpool {
    pub(super) incoming: IncomingDirectory,
    /// What is sent in parts.
    pub(super) uploads: UploadRecords,
    /// The identity of the writer: the same for all processes that have used this directory.
    pub(super) writer: String,
    _lock: File,
}

impl UploadSpool {
    /// The spool for `server` in `cache`, symbolic links in which are followed up to `base`. What a process that was
    /// killed has left there is removed.
    ///
    /// # Errors
    /// Another process uses it, or it cannot be created.
    pub(crate) fn open(base: &Path, cache: &Path, server: &ServerUrl) -> Result<Self, TargetError> {
        let mut digest = Sha256::new();
        digest.update(server.as_str().as_bytes());
        let path = cache
            .join(DIRECTORY)
            .join(HEXLOWER.encode(&digest.finish()));
        let own =
            no_follow::create_directory(base, &path).map_err(spool_failure("create", &path))?;
        let lock = no_follow::open_or_create_file(own.as_fd(), "lock")
            .map_err(spool_failure("lock", &path))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => {
                return Err(TargetError::Locked(server.as_str().to_owned()));
            }
            locked => {
                locked.map_err(|error| spool_failure("lock", &path)(io::Error::from(error)))?
            }
        }
        let incoming = no_follow::create_directory(base, &path.join("incoming"));
        let uploads = no_follow::create_directory(base, &path.join("uploads"));
        let uploads = uploads.map_err(spool_failure("create", &path))?;
        let writer = writer_id(&own).map_err(spool_failure("read", &path))?;
        let private = Mode::RUSR | Mode::WUSR;
        let incoming = incoming.and_then(|incoming| IncomingDirectory::new(incoming, private));
        Ok(Self {
            incoming: incoming.map_err(spool_failure("clear", &path))?,
            uploads: UploadRecords::new(uploads),
            writer,
            _lock: lock,
        })
    }
}

/// The identity in `directory`, made if there is none.
fn writer_id(directory: &OwnedFd) -> io::Result<String> {
    const LENGTH: u64 = 32;
    let mut file = no_follow::open_or_create_file(directory.as_fd(), "writer")?;
    let mut id = String::new();
    let read = (&mut file).take(LENGTH + 1).read_to_string(&mut id);
    let is_valid = id.len() as u64 == LENGTH && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if read.is_ok() && is_valid {
        return Ok(id);
    }
    let id = format!("{:032x}", fastrand::u128(..));
    file.set_len(0)?;
    file.write_all_at(id.as_bytes(), 0)?;
    Ok(id)
}

fn spool_failure(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> TargetError {
    let path = path.display().to_string();
    move |source| TargetError::Spool {
        action,
        path,
        source,
    }
}
