//! The temp roots of all processes that are alive, held so that none is added.
//!
//! Each process has a file with NUL-terminated names, which it has locked until it ends. So a file that
//! can be locked exclusively was left behind; it is removed. Processes of Guix lock their file
//! exclusively to add to it, and wait while it is locked shared here; those of Nix wait for `gc.lock`.

use std::collections::HashMap;
use std::io::Read as _;
use std::os::fd::AsFd as _;

use rustix::fs::Dir;

use crate::format::store_path::{Dialect, StorePath};
use crate::store::directory::open_directory;
use crate::store::error::{StoreError, on};
use crate::store::layout::Layout;
use crate::store::lock_file::LockFile;
use crate::store::lock_kind::{LockKind, LockMode, Tried};
use crate::store::wait::StoreObserver;

use super::report::GcMode;

/// The temp roots of a store. No process adds one until this is dropped, if `gc.lock` is held
/// exclusively in a store of Nix.
#[derive(Debug)]
pub(super) struct TempRootFiles {
    dialect: Dialect,
    /// Locked shared in a store of Guix.
    files: Vec<LockFile>,
    /// The names in the store directory that are kept, and the process that keeps each.
    processes: HashMap<String, String>,
    /// How many files were left behind.
    pub(super) stale: usize,
}

impl TempRootFiles {
    /// Reads the files of the store at `layout`, and locks them; waits for those that add roots just now.
    pub(super) fn read(
        layout: &Layout,
        kind: LockKind,
        mode: GcMode,
        observer: &dyn StoreObserver,
    ) -> Result<Self, StoreError> {
        let mut temp_roots = Self {
            dialect: layout.store_dir().dialect(),
            files: Vec::new(),
            processes: HashMap::new(),
            stale: 0,
        };
        let path = layout.temp_roots_dir();
        let directory = open_directory(layout, &path)?;
        let entries = Dir::read_from(&directory)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(on(&path, |path, source| StoreError::Read { path, source }))?;
        for entry in entries {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with('.') {
                continue;
            }

            let place = path.join(&name);
            let Some(mut file) = LockFile::open_existing(kind, directory.as_fd(), place)? else {
                continue;
            };
            if file.try_lock(LockMode::Exclusive)? == Tried::Acquired {
                temp_roots.stale += 1;
                if mode == GcMode::Delete {
                    file.remove_if_named(directory.as_fd())?;
                }
                continue;
            }
            if kind == LockKind::Record {
                file.lock(LockMode::Shared, observer)?;
            }
            let process = name.split('-').next().unwrap_or(&name);
            temp_roots.add(layout, file, process)?;
        }
        Ok(temp_roots)
    }

    /// Adds the roots in `file`, which is that of `process`.
    fn add(
        &mut self,
        layout: &Layout,
        mut file: LockFile,
        process: &str,
    ) -> Result<(), StoreError> {
        let mut text = Vec::new();
        let path = file.path().to_owned();
        file.file()
            .read_to_end(&mut text)
            .map_err(on(&path, |path, source| StoreError::Read { path, source }))?;
        let prefix = format!("{}/", layout.store_dir().as_str());
        for name in text.split(|&byte| byte == 0) {
            if let Ok(name) = std::str::from_utf8(name)
                && let Some(base) = name.strip_prefix(&prefix)
            {
                let process = process.to_owned();
                self.processes.entry(self.key(base)).or_insert(process);
            }
        }
        self.files.push(file);
        Ok(())
    }

    /// What stands for `base`: Nix keeps everything that has the hash part of a temp root.
    fn key(&self, base: &str) -> String {
        match (self.dialect, StorePath::parse(base)) {
            (Dialect::Nix, Ok(path)) => path.hash_part().to_string(),
            _ => base.to_owned(),
        }
    }

    /// The process that keeps `base`, a name in the store directory.
    pub(super) fn process_of(&self, base: &str) -> Option<&str> {
        self.processes.get(&self.key(base)).map(String::as_str)
    }
}
