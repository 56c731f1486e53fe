//! Modes, times and owners of files: what of them is not in canonical form.

use std::fmt;
use std::path::PathBuf;

use rustix::fs::{FileType, Mode, Stat, fstat};
use rustix::process::geteuid;

use crate::store::canonical;
use crate::store::error::{StoreError, on};
use crate::store::handle::Store;

/// Faults of one item that are kept; all are counted.
const KEPT_MAX: usize = 20;

/// An attribute that is not as in every store item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WrongAttribute {
    /// Its mode; the hash covers only whether the owner may execute it.
    Mode {
        /// What it is.
        found: u32,
        /// What it should be.
        expected: u32,
    },
    /// When it was last modified.
    ModificationTime,
    /// It belongs to this user, who could change it.
    Owner(u32),
}

impl fmt::Display for WrongAttribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mode { found, expected } => {
                write!(f, "its mode is {found:04o} instead of {expected:04o}")
            }
            Self::ModificationTime => {
                f.write_str("its modification time is not 1970-01-01 00:00:01 UTC")
            }
            Self::Owner(user) => write!(f, "it belongs to the user with the id {user}"),
        }
    }
}

/// What is wrong with the attributes of one item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AttributeFaults {
    /// The first ones: the name below the item, which is empty for the item itself, and the attribute.
    pub(crate) first: Vec<(PathBuf, WrongAttribute)>,
    /// How many there are.
    pub(crate) count: u64,
    /// Whether all can be corrected in place: nothing belongs to another user.
    pub(crate) is_correctable: bool,
}

impl Default for AttributeFaults {
    fn default() -> Self {
        Self {
            first: Vec::new(),
            count: 0,
            is_correctable: true,
        }
    }
}

impl AttributeFaults {
    /// Adds what is wrong with the file at `path`, which is only asked for when it is needed.
    pub(super) fn add(&mut self, wrong: &[WrongAttribute], path: impl Fn() -> PathBuf) {
        self.count += wrong.len() as u64;
        for &attribute in wrong {
            self.is_correctable &= !matches!(attribute, WrongAttribute::Owner(_));
            if self.first.len() < KEPT_MAX {
                self.first.push((path(), attribute));
            }
        }
    }

    /// Whether all are as they should be.
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// The users to whom files of a store may belong.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) struct StoreOwners([u32; 3]);

impl StoreOwners {
    /// The owner of the directory of `store`, root, and this process's user: as for entries of `.links`.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub(in crate::store) fn of(store: &Store) -> Result<Self, StoreError> {
        let path = store.layout().store();
        let stat = fstat(store.links().store())
            .map_err(on(path, |path, source| StoreError::Read { path, source }))?;
        Ok(Self([stat.st_uid, 0, geteuid().as_raw()]))
    }

    /// What is wrong with a file, directory or symlink.
    pub(super) fn wrong_attributes(self, stat: &Stat) -> Vec<WrongAttribute> {
        let mut wrong = Vec::new();
        let (found, expected) = (Mode::from_raw_mode(stat.st_mode), expected_mode(stat));
        if let Some(expected) = expected.filter(|&expected| expected != found) {
            wrong.push(WrongAttribute::Mode {
                found: found.as_raw_mode(),
                expected: expected.as_raw_mode(),
            });
        }
        if stat.st_mtime != canonical::MTIME_SECS {
            wrong.push(WrongAttribute::ModificationTime);
        }
        if !self.0.contains(&stat.st_uid) {
            wrong.push(WrongAttribute::Owner(stat.st_uid));
        }
        wrong
    }
}

/// The canonical mode; symlinks have none of their own.
pub(super) fn expected_mode(stat: &Stat) -> Option<Mode> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Symlink => None,
        FileType::Directory => Some(canonical::DIRECTORY_MODE),
        _ => Some(canonical::file_mode(is_executable(stat))),
    }
}

/// Whether a nar has the file as an executable one: its owner may execute it.
pub(super) fn is_executable(stat: &Stat) -> bool {
    Mode::from_raw_mode(stat.st_mode).contains(Mode::XUSR)
}
