//! Temp roots: the store paths that this process is working on, announced to the collector.
//!
//! Each process has one file, STATE/temproots/PID, with NUL-terminated full names. The file is
//! locked for as long as the process lives: that is how a collector tells a live one from one
//! left behind. It is unlinked when the [`TempRoots`] are dropped.
//!
//! A collector of Guix holds each file locked shared while it works, so adding a root (which
//! takes an exclusive lock) waits for its end. A collector of Nix goes on, and takes new
//! roots through a socket instead.
//!
//! A program that takes the place of this process can keep an item too ([`keep_for_program`]): it and
//! its children inherit a descriptor of a file, named PID-run, that stays locked until all of them have
//! ended. The next such process removes the file.

use std::collections::HashSet;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{AtFlags, Dir, unlinkat};
use rustix::process::Uid;
use tracing::debug;

use super::directory::open_directory;
use super::error::StoreError;
use super::layout::Layout;
use super::lock_file::LockFile;
use super::lock_kind::{LockKind, LockMode, Tried};
use super::owner_rights::OwnerRights;
use super::wait::StoreObserver;
use crate::format::store_path::StorePath;

/// The temp roots of this process; dropping them gives them up.
#[derive(Debug)]
pub(super) struct TempRoots {
    kind: LockKind,
    directory: OwnedFd,
    gc_lock: LockFile,
    observer: Arc<dyn StoreObserver>,
    /// What follows the process id in the name of the file.
    suffix: &'static str,
    /// This process's file, made for the first root.
    file: Option<LockFile>,
    added: HashSet<StorePath>,
}

impl TempRoots {
    /// Opens what is needed to add roots later, when the process may be confined.
    pub(super) fn open(
        layout: &Layout,
        kind: LockKind,
        observer: &Arc<dyn StoreObserver>,
    ) -> Result<Self, StoreError> {
        let state = open_directory(layout, layout.state())?;
        Ok(Self {
            kind,
            directory: open_directory(layout, &layout.temp_roots_dir())?,
            gc_lock: LockFile::open(kind, state.as_fd(), layout.gc_lock())?,
            observer: Arc::clone(observer),
            suffix: "",
            file: None,
            added: HashSet::new(),
        })
    }

    /// The directory of all files of temp roots.
    pub(super) fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Makes this process's file. Waits while a collector of Guix is running.
    fn create_file(&self, layout: &Layout) -> Result<LockFile, StoreError> {
        loop {
            // While this is held no collector starts, so none deletes the file before it is locked.
            // A collector of Nix finds out by this lock whether another one runs, and need not be
            // waited for.
            if self.kind == LockKind::Record {
                self.gc_lock.lock(LockMode::Shared, &*self.observer)?;
            }
            let file = create_unused(layout, &self.directory, self.kind, self.suffix)?;
            self.gc_lock.unlock()?;

            file.lock(resting_mode(self.kind), &*self.observer)?;
            if !file.is_stale()? {
                return Ok(file);
            }
        }
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
        let mut file = match self.file.take() {
            Some(file) => file,
            None => self.create_file(layout)?,
        };
        let added = match self.kind {
            LockKind::Record => self.append_locked(&mut file, &names),
            LockKind::Flock => self.append_or_tell_collector(&mut file, layout, &names),
        };
        self.file = Some(file);
        added?;
        self.added.extend(new.into_iter().cloned());
        Ok(())
    }

    fn append_locked(&self, file: &mut LockFile, names: &[u8]) -> Result<(), StoreError> {
        file.lock(LockMode::Exclusive, &*self.observer)?;
        let written = append(file, names);
        file.lock(LockMode::Shared, &*self.observer)?;
        written
    }

    fn append_or_tell_collector(
        &self,
        file: &mut LockFile,
        layout: &Layout,
        names: &[u8],
    ) -> Result<(), StoreError> {
        loop {
            if self.gc_lock.try_lock(LockMode::Shared)? == Tried::Acquired {
                let written = append(file, names);
                self.gc_lock.unlock()?;
                return written;
            }

            // The roots are in the file too, for the collector that comes next.
            match tell_collector(&layout.gc_socket(), names) {
                Ok(()) => return append(file, names),
                Err(error) if collector_is_gone(&error) && !self.observer.is_canceled() => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err(source) => return Err(failure(file, source)),
            }
        }
    }
}

impl Drop for TempRoots {
    /// A file left behind is harmless: without a lock on it, the next collector removes it.
    fn drop(&mut self) {
        if let Some(file) = &self.file {
            let name = file.path().file_name().unwrap_or_default();
            let _ = unlinkat(&self.directory, name, AtFlags::empty());
        }
    }
}

/// How the names of files end that programs inherit.
const PROGRAM_SUFFIX: &str = "-run";

/// Keeps the collector off `item` until this process has ended, and the program that it executes, and
/// the children of that which have the descriptors of their parents. Waits while a collector of Guix is
/// running. Root does it in a store of another user with the rights of that user, whose collector has to be
/// able to lock and remove the file.
///
/// # Errors
/// The root cannot be announced, as in a store that this user may only read.
pub(crate) fn keep_for_program(
    layout: &Layout,
    item: &StorePath,
    observer: &Arc<dyn StoreObserver>,
) -> Result<(), StoreError> {
    let kind = LockKind::of(layout.store_dir().dialect());
    let directory = layout.temp_roots_dir();
    let found = directory.symlink_metadata();
    let rights = found.and_then(|found| Ok(OwnerRights::take(Uid::from_raw(found.uid()))?));
    let _rights = rights.map_err(|source| StoreError::TempRoots {
        path: directory,
        source,
    })?;

    let mut roots = TempRoots::open(layout, kind, observer)?;
    roots.suffix = PROGRAM_SUFFIX;
    roots.remove_those_of_ended_programs(layout)?;
    roots.add(layout, std::slice::from_ref(item))?;
    match roots.file.take() {
        Some(file) => file.leave_to_programs(),
        None => Ok(()),
    }
}

impl TempRoots {
    fn remove_those_of_ended_programs(&self, layout: &Layout) -> Result<(), StoreError> {
        let entries = Dir::read_from(&self.directory).into_iter().flatten();
        let names = entries.filter_map(|entry| {
            let name = entry.ok()?.file_name().to_str().ok()?.to_owned();
            name.contains(PROGRAM_SUFFIX).then_some(name)
        });
        for name in names {
            let (directory, path) = (self.directory.as_fd(), layout.temp_roots_dir().join(name));
            if let Some(mut file) = LockFile::open_existing(self.kind, directory, path)?
                && file.try_lock(LockMode::Exclusive)? == Tried::Acquired
            {
                file.remove_if_named(directory)?;
            }
        }
        Ok(())
    }
}

fn append(file: &mut LockFile, names: &[u8]) -> Result<(), StoreError> {
    let written = file.file().write_all(names);
    written.map_err(|source| failure(file, source))
}

fn failure(file: &LockFile, source: io::Error) -> StoreError {
    StoreError::TempRoots {
        path: file.path().to_owned(),
        source,
    }
}

/// A file of our own that no process has locked. Its name is the process id, which a collector
/// reads up to the first other character; a second store in this process, or a process of
/// another namespace with the same id, makes the plain name taken.
fn create_unused(
    layout: &Layout,
    directory: &OwnedFd,
    kind: LockKind,
    suffix: &str,
) -> Result<LockFile, StoreError> {
    let name = format!("{}{suffix}", std::process::id());
    let others = (2u32..).map(|number| format!("{name}-{number}"));
    let names = std::iter::once(name.clone()).chain(others);
    for name in names {
        let path = layout.temp_roots_dir().join(name);
        let mut file = LockFile::open(kind, directory.as_fd(), path.clone())?;
        if file.try_lock(LockMode::Exclusive)? == Tried::Busy {
            continue;
        }
        if !file.is_stale()? {
            return Ok(file);
        }

        // Left behind by a process that had our id.
        file.remove_if_named(directory.as_fd())?;
        return LockFile::open(kind, directory.as_fd(), path);
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
