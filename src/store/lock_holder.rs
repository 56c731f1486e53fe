//! Which process holds a lock that is waited for, for messages.
//!
//! The kernel names the process itself for record locks, as guix-daemon and SQLite take them, and in
//! /proc/locks also for `flock`. The locks of another `subst` belong to an open file: for them the
//! open files of all processes are searched, of which a user sees only their own, and a confined
//! process none. So the holder, or its command, may stay unknown.

use std::fmt;
use std::fs::{File, Metadata};
use std::io::{Read as _, Seek as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::LazyLock;

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use rustix::fs::{major, minor};

use super::lock_kind::{LockKind, LockMode, whole_file};

/// A process that holds a lock.
#[derive(Debug)]
pub(super) struct LockHolder {
    process: u32,
    command: Option<String>,
}

impl fmt::Display for LockHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {}", self.process)?;
        match &self.command {
            Some(command) => write!(f, " ({command})"),
            None => Ok(()),
        }
    }
}

impl LockHolder {
    /// The process that keeps `file` from being locked in `mode`.
    pub(super) fn of_file(file: &File, kind: LockKind, mode: LockMode) -> Option<Self> {
        let by_kernel = match kind {
            LockKind::Record => record_holder(file, mode),
            LockKind::Flock => None,
        };
        by_kernel.or_else(|| Self::search(&file.metadata().ok()?, mode))
    }

    /// The process that has a write lock on the file at `path`. The file is not opened: closing it
    /// again would give up the record locks that this process has on it.
    pub(super) fn writing(path: &Path) -> Option<Self> {
        Self::search(&path.metadata().ok()?, LockMode::Shared)
    }

    fn named(process: u32) -> Self {
        let command = std::fs::read_to_string(format!("/proc/{process}/comm")).ok();
        Self {
            process,
            command: command.map(|command| command.trim_end().escape_debug().to_string()),
        }
    }

    /// Searches the kernel's table, and then the open files of all processes.
    fn search(file: &Metadata, mode: LockMode) -> Option<Self> {
        let own = std::process::id();
        let mut in_table = holders_in_table(file, mode).filter(|&process| process != own);
        if let Some(process) = in_table.next() {
            return Some(Self::named(process));
        }

        let processes = std::fs::read_dir("/proc").ok()?.filter_map(|entry| {
            let name = entry.ok()?.file_name();
            name.to_str()?.parse().ok()
        });
        processes
            .filter(|&process| process != own)
            .find(|&process| has_lock(process, file, mode).unwrap_or(false))
            .map(Self::named)
    }
}

/// The kernel's table of locks, opened before the process is confined.
static LOCK_TABLE: LazyLock<Option<File>> = LazyLock::new(|| File::open("/proc/locks").ok());

/// Opens what a confined process needs to find out who holds a lock.
pub(super) fn prepare() {
    LazyLock::force(&LOCK_TABLE);
}

/// The processes that have a lock on `file` which excludes `mode`, as far as the kernel's table names
/// them.
fn holders_in_table(file: &Metadata, mode: LockMode) -> impl Iterator<Item = u32> {
    let mut table = String::new();
    if let Some(mut opened) = LOCK_TABLE.as_ref() {
        let _ = opened
            .rewind()
            .and_then(|()| opened.take(TABLE_MAX_BYTES).read_to_string(&mut table));
    }
    let (device, inode) = (file.dev(), file.ino());
    let name = format!("{:02x}:{:02x}:{inode}", major(device), minor(device));
    let holders: Vec<u32> = table
        .lines()
        .filter_map(|line| holder_in_line(line, &name, mode))
        .collect();
    holders.into_iter()
}

/// The process of a line such as `1: POSIX  ADVISORY  WRITE 123 fe:00:4711 0 EOF`. Lines of processes
/// that wait have `->` behind the number.
fn holder_in_line(line: &str, file: &str, mode: LockMode) -> Option<u32> {
    let [_, _, _, access, process, on, ..] = line.split_whitespace().collect::<Vec<_>>()[..] else {
        return None;
    };
    let excludes = mode == LockMode::Exclusive || access == "WRITE";
    (on == file && excludes).then(|| process.parse().ok())?
}

/// More than the table has on any machine that is in order.
const TABLE_MAX_BYTES: u64 = 4 << 20;

/// The holder of a record lock that belongs to a process and not to an open file.
fn record_holder(file: &File, mode: LockMode) -> Option<LockHolder> {
    let mut found = whole_file(mode);
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut found)).ok()?;
    let is_held = i32::from(found.l_type) != libc::F_UNLCK;
    let process = u32::try_from(found.l_pid).ok().filter(|&pid| pid > 0)?;
    is_held.then(|| LockHolder::named(process))
}

/// Whether `process` has a lock on `file` that excludes `mode`.
fn has_lock(process: u32, file: &Metadata, mode: LockMode) -> Option<bool> {
    for entry in std::fs::read_dir(format!("/proc/{process}/fd")).ok()? {
        let entry = entry.ok()?;
        let Ok(opened) = std::fs::metadata(entry.path()) else {
            continue;
        };
        if (opened.dev(), opened.ino()) != (file.dev(), file.ino()) {
            continue;
        }

        let number = entry.file_name();
        let info = Path::new("/proc").join(process.to_string()).join("fdinfo");
        let info = std::fs::read_to_string(info.join(number)).ok()?;
        let mut locks = info.lines().filter(|line| line.starts_with("lock:"));
        if locks.any(|lock| mode == LockMode::Exclusive || lock.contains(" WRITE ")) {
            return Some(true);
        }
    }
    Some(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_names_holders() {
        let file = "fe:00:4711";
        let held = "1: POSIX  ADVISORY  WRITE 123 fe:00:4711 0 EOF";
        assert_eq!(holder_in_line(held, file, LockMode::Shared), Some(123));
        let shared = "2: FLOCK  ADVISORY  READ 124 fe:00:4711 0 EOF";
        assert_eq!(holder_in_line(shared, file, LockMode::Shared), None);
        assert_eq!(holder_in_line(shared, file, LockMode::Exclusive), Some(124));
        for other in [
            "1: -> POSIX  ADVISORY  WRITE 125 fe:00:4711 0 EOF",
            "3: OFDLCK ADVISORY  WRITE -1 fe:00:4711 0 EOF",
            "4: POSIX  ADVISORY  WRITE 126 fe:00:4712 0 EOF",
            "",
        ] {
            assert_eq!(holder_in_line(other, file, LockMode::Exclusive), None);
        }
    }
}
