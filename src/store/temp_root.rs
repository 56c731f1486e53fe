//! Temp roots: the store paths that this process is working on, announced to the collector.
//!
//! Each process has one file, STATE/temproots/PID, with NUL-terminated full names. The file is
//! locked for as long as the process lives: that is how a collector tells a live one from one
//! left behind. It is unlinked when the [`TempRoots`] are dropped.
//!
//! A collector of Guix holds each file locked shared while it works, so adding a root (which
//! takes an exclusive lock) waits for its end. A collector of Nix goes on, and takes new
//! roots through a socket instead.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::debug;

use super::error::{StoreError, on};
use super::layout::Layout;
use super::lock::{LockKind, LockMode, Tried, is_stale, open_lock_file};
use crate::format::store_path::StorePath;

/// The temp roots of this process; dropping them gives them up.
#[derive(Debug)]
pub(super) struct TempRoots {
    kind: LockKind,
    file: File,
    path: PathBuf,
    gc_lock: File,
    added: HashSet<StorePath>,
}

impl TempRoots {
    /// Makes this process's file. Waits while a collector of Guix is running.
    pub(super) fn create(layout: &Layout, kind: LockKind) -> Result<Self, StoreError> {
        let gc_lock_path = layout.gc_lock();
        let gc_lock = open_lock_file(&gc_lock_path)?;
        let locking = || {
            on(&gc_lock_path, |path, source| StoreError::Lock {
                path,
                source,
            })
        };
        let (file, path) = loop {
            // While this is held no collector starts, so none deletes the file before it is locked.
            // Nix's tells a running one from none by this lock, and need not be waited for.
            if kind == LockKind::Record {
                debug!(path = %gc_lock_path.display(), "waiting for the lock");
                kind.lock(&gc_lock, LockMode::Shared).map_err(locking())?;
            }
            let (file, path) = create_unused(layout, kind)?;
            kind.unlock(&gc_lock).map_err(locking())?;
            let failed = || on(&path, |path, source| StoreError::TempRoots { path, source });
            kind.lock(&file, resting_mode(kind)).map_err(failed())?;
            if !is_stale(&file).map_err(failed())? {
                break (file, path);
            }
        };
        Ok(Self {
            kind,
            file,
            path,
            gc_lock,
            added: HashSet::new(),
        })
    }

    /// Announces `paths`. Afterward they may still be found deleted, but not be deleted any
    /// more: check their validity only now.
    pub(super) fn add(&mut self, layout: &Layout, paths: &[StorePath]) -> Result<(), StoreError> {
        let new: Vec<&StorePath> = paths
            .iter()
            .filter(|&path| !self.added.contains(path))
            .collect();
        if new.is_empty() {
            return Ok(());
        }
        debug!(items = new.len(), "adding temp roots");

        let mut names = Vec::new();
        for path in &new {
            let store_dir = layout.store_dir().as_str();
            // The temporary name is a root of its own: Guix's collector spares the `.lock` and
            // `.chroot` neighbors of roots, but takes everything else that is not valid.
            let temporary = Layout::temporary_name(path);
            for name in [path.base(), &temporary] {
                names.extend_from_slice(format!("{store_dir}/{name}\0").as_bytes());
            }
        }
        let added = match self.kind {
            LockKind::Record => self.append_locked(&names),
            LockKind::Flock => self.append_or_tell_collector(&layout.gc_socket(), &names),
        };
        added.map_err(on(&self.path, |path, source| StoreError::TempRoots {
            path,
            source,
        }))?;
        self.added.extend(new.into_iter().cloned());
        Ok(())
    }

    fn append_locked(&mut self, names: &[u8]) -> io::Result<()> {
        self.kind.lock(&self.file, LockMode::Exclusive)?;
        let written = self.file.write_all(names);
        self.kind.lock(&self.file, LockMode::Shared)?;
        written
    }

    fn append_or_tell_collector(&mut self, socket: &Path, names: &[u8]) -> io::Result<()> {
        loop {
            match self.kind.try_lock(&self.gc_lock, LockMode::Shared)? {
                Tried::Acquired => {
                    let written = self.file.write_all(names);
                    self.kind.unlock(&self.gc_lock)?;
                    return written;
                }
                // The roots are in the file too, for the collector that comes next.
                Tried::Busy => match tell_collector(socket, names) {
                    Ok(()) => return self.file.write_all(names),
                    Err(error) if collector_is_gone(&error) => {
                        std::thread::sleep(Duration::from_millis(10));
                    }
                    Err(error) => return Err(error),
                },
            }
        }
    }
}

impl Drop for TempRoots {
    /// A file left behind is harmless: without a lock on it, the next collector removes it.
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// A file of our own that nobody has locked. Its name is the process id, which a collector
/// reads up to the first other character; a second store in this process, or a process of
/// another namespace with the same id, makes the plain name taken.
fn create_unused(layout: &Layout, kind: LockKind) -> Result<(File, PathBuf), StoreError> {
    let pid = std::process::id();
    let names = std::iter::once(pid.to_string()).chain((2u32..).map(|n| format!("{pid}-{n}")));
    for name in names {
        let path = layout.temp_roots_dir().join(name);
        let file = open_lock_file(&path)?;
        let failed = || on(&path, |path, source| StoreError::TempRoots { path, source });
        if kind
            .try_lock(&file, LockMode::Exclusive)
            .map_err(failed())?
            == Tried::Busy
        {
            continue;
        }
        if !is_stale(&file).map_err(failed())? {
            return Ok((file, path));
        }
        // Left behind by a process that had our id.
        std::fs::remove_file(&path).map_err(failed())?;
        let file = open_lock_file(&path)?;
        return Ok((file, path));
    }
    unreachable!("the names do not run out")
}

/// How the file stays locked between additions. Nix's collector reads files that it cannot
/// lock without asking for a lock, so an exclusive one does not hinder it.
fn resting_mode(kind: LockKind) -> LockMode {
    match kind {
        LockKind::Record => LockMode::Shared,
        LockKind::Flock => LockMode::Exclusive,
    }
}

/// Sends each name to the collector, which answers each with a `1` once it counts.
fn tell_collector(socket: &Path, names: &[u8]) -> io::Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    for name in names
        .split(|&byte| byte == 0)
        .filter(|name| !name.is_empty())
    {
        stream.write_all(name)?;
        stream.write_all(b"\n")?;
        let mut answer = [0];
        stream.read_exact(&mut answer)?;
        if answer != *b"1" {
            return Err(io::Error::other("the collector gave an unknown answer"));
        }
    }
    Ok(())
}

/// Whether the collector ended while we talked to it, or has not begun to listen.
fn collector_is_gone(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::NotFound
            | Kind::ConnectionRefused
            | Kind::ConnectionReset
            | Kind::BrokenPipe
            | Kind::UnexpectedEof
    )
}
