//! The socket at which the helpers of one client meet, and the protocol spoken there.
//!
//! It lies in the lookup cache's directory and is named after the helpers' common parent
//! process. One connection serves one item:
//!
//! ```text
//! request:  BASE METHOD            the item, and the preferred compression method
//! response: URL SIZE VALIDATOR     `-` for what is unknown; frames follow
//!           -                      no download of the item has begun
//! frame:    a length of four bytes, big-endian, and that many bytes; length 0 ends the nar
//! ```
//!
//! A connection that closes before the last frame means that the download broke off.

use std::io;
use std::path::{Path, PathBuf};

use crate::daemon::process::start_time;

/// The longest frame, in bytes.
pub(super) const FRAME_MAX_BYTES: usize = 1 << 20;

const PREFIX: &str = "ahead-";
const SUFFIX: &str = ".socket";

/// The name of the socket that the children of one process share.
#[derive(Debug, Clone)]
pub(crate) struct PrefetchSocket {
    dir: PathBuf,
    path: PathBuf,
}

impl PrefetchSocket {
    /// The socket of the children of our parent process, in `dir`; `None` without /proc.
    #[must_use]
    pub(crate) fn of_siblings(dir: &Path) -> Option<Self> {
        let parent = rustix::process::getppid()?.as_raw_nonzero().get();
        let started = start_time(parent)?;
        let path = dir.join(format!("{PREFIX}{parent}-{started}{SUFFIX}"));

        Some(Self {
            dir: dir.to_owned(),
            path,
        })
    }

    /// The socket's path.
    #[must_use]
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the sockets whose parent process has ended.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub(crate) fn remove_abandoned(&self) -> io::Result<()> {
        for entry in std::fs::read_dir(&self.dir)? {
            let entry = entry?;
            if entry.file_name().to_str().is_some_and(is_abandoned) {
                // Another process may have removed it first.
                let _ = std::fs::remove_file(entry.path());
            }
        }
        Ok(())
    }
}

/// Whether `name` is that of a socket whose parent process has ended. Process numbers are
/// reused, start times are not.
fn is_abandoned(name: &str) -> bool {
    let numbers = name
        .strip_prefix(PREFIX)
        .and_then(|name| name.strip_suffix(SUFFIX));
    let Some((parent, started)) = numbers.and_then(|numbers| numbers.split_once('-')) else {
        return false;
    };
    let Ok(parent) = parent.parse() else {
        return false;
    };

    start_time(parent).as_deref() != Some(started)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sockets_of_dead_processes_are_abandoned() {
        let own = i32::try_from(std::process::id()).unwrap();
        let started = start_time(own).unwrap();
        assert!(!is_abandoned(&format!("ahead-{own}-{started}.socket")));
        assert!(is_abandoned(&format!("ahead-{own}-1{started}.socket")));
        assert!(is_abandoned("ahead-2147483647-1.socket"));
        assert!(!is_abandoned("lookups-v1.sqlite"));
        assert!(!is_abandoned("ahead-x.socket"));
    }
}
