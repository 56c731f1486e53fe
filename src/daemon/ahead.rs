//! Read-ahead: while one item is unpacked, the nars of the next ones are on their way.
//!
//! A client's questions and its substitutions go to different processes, all children of the
//! same daemon process. The one that answers the questions knows the whole closure, lives as
//! long as the client stays, and is told of every substitution that starts: so it alone
//! fetches ahead ([`reader`]), and hands over what it has begun with ([`handover`]). Because it
//! alone decides, no nar is fetched ahead twice, however many substitutions run side by side:
//! whoever starts one asks first, and from then on the item is its own.
//!
//! They meet at a socket in the lookup cache's directory, named after their parent. Without
//! it everything works, only later. Nothing is kept on disk. What comes through the socket is
//! verified like everything that comes from a server.

pub(crate) mod handover;
pub(crate) mod reader;
pub(crate) mod taker;

use std::io;
use std::path::{Path, PathBuf};

use super::process::start_time;

/// Where the children of one process meet.
#[derive(Debug, Clone)]
pub(crate) struct MeetingPoint {
    dir: PathBuf,
    path: PathBuf,
}

impl MeetingPoint {
    /// That of the children of our parent, in `dir`; `None` without /proc.
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

    /// The socket.
    #[must_use]
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the sockets of processes that are gone.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub(crate) fn remove_abandoned(&self) -> io::Result<()> {
        for entry in std::fs::read_dir(&self.dir)? {
            let entry = entry?;
            if entry.file_name().to_str().is_some_and(is_abandoned) {
                // Somebody else may be faster.
                let _ = std::fs::remove_file(entry.path());
            }
        }
        Ok(())
    }
}

/// Whether `name` is a socket's whose process is gone. Numbers are used again, times are not.
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

const PREFIX: &str = "ahead-";
const SUFFIX: &str = ".socket";

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
