//! The directory that narinfos are written to: a substitute server without nars.

use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FlockOperation, flock, unlinkat};

use crate::cli::error::CliError;
use crate::cli::output_file::{self, OutputFile};
use crate::format::cache_info::CacheInfo;
use crate::format::store_path::{Dialect, StoreDir, StorePath};
use crate::no_follow;
use crate::substitute::endorse::EndorsementKey;

/// The file that says which store a server is for.
const CACHE_INFO: &str = "nix-cache-info";

/// The directory that narinfos are written to.
pub(super) struct EndorsementDirectory {
    path: PathBuf,
    /// The directory itself, locked so that no other process removes what this one writes.
    lock: OwnedFd,
}

impl EndorsementDirectory {
    /// Creates `directory`, if it does not exist, with what a server has besides narinfos: its
    /// `nix-cache-info`, and its public key where clients look for it.
    ///
    /// # Errors
    /// It cannot be written to, is a server for another store, or may have narinfos that another key
    /// has signed.
    pub(super) fn prepare(
        directory: &Path,
        store_dir: &StoreDir,
        key: &EndorsementKey,
    ) -> Result<Self, CliError> {
        match std::fs::create_dir(directory) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(CliError::output_file("create", directory)(error));
            }
            _ => {}
        }

        let lock = output_file::open_directory(directory)
            .map_err(CliError::output_file("read", directory))?;
        // A file system without locks has to do.
        let _ = flock(&lock, FlockOperation::NonBlockingLockShared);
        let prepared = Self {
            path: directory.to_owned(),
            lock,
        };
        let cache_info = directory.join(CACHE_INFO);
        let lacks_cache_info = match std::fs::read_to_string(&cache_info) {
            Ok(text) => {
                let theirs = CacheInfo::parse(&text).store_dir;
                if theirs.as_deref() != Some(store_dir.as_str()) {
                    let text = format!(
                        "{} is not for {}: give another directory with --to",
                        cache_info.display(),
                        store_dir.as_str()
                    );
                    return Err(CliError::Usage(text));
                }
                false
            }
            Err(error) if error.kind() == ErrorKind::NotFound => true,
            Err(error) => return Err(CliError::output_file("read", &cache_info)(error)),
        };

        prepared.write_key(store_dir.dialect(), key)?;
        if lacks_cache_info {
            prepared.write(CACHE_INFO, &CacheInfo::text_for(store_dir))?;
        }
        prepared.remove_leftovers(store_dir.dialect());
        Ok(prepared)
    }

    /// Removes the files that killed processes have left under temporary names. All others have the
    /// directory locked, so that nothing is removed while one runs; the next run does it then.
    fn remove_leftovers(&self, dialect: Dialect) {
        if flock(&self.lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            for entry in Dir::read_from(&self.lock).into_iter().flatten().flatten() {
                let name = entry.file_name();
                let original = name.to_str().ok().and_then(no_follow::name_to_replace);
                if original.is_some_and(|original| is_own_name(original, dialect)) {
                    let _ = unlinkat(&self.lock, name, AtFlags::empty());
                }
            }
        }
        let _ = flock(&self.lock, FlockOperation::NonBlockingLockShared);
    }

    /// Writes the public key, which comes before the narinfos and so shows whose they are.
    fn write_key(&self, dialect: Dialect, key: &EndorsementKey) -> Result<(), CliError> {
        let path = self.path.join(key_name(dialect));
        let public = key.public_key().to_string();
        match std::fs::read(&path) {
            Ok(text) if text.trim_ascii() == public.trim().as_bytes() => return Ok(()),
            Ok(_) => {
                let text = format!(
                    "{} is another key than that of --key: give another directory with --to",
                    path.display()
                );
                return Err(CliError::Usage(text));
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(CliError::output_file("read", &path)(error)),
        }
        if self.has_narinfos()? {
            let text = format!(
                "{} has narinfos and no {}: give another directory with --to",
                self.path.display(),
                key_name(dialect)
            );
            return Err(CliError::Usage(text));
        }
        self.write(key_name(dialect), &format!("{public}\n"))
    }

    fn has_narinfos(&self) -> Result<bool, CliError> {
        let entries =
            std::fs::read_dir(&self.path).map_err(CliError::output_file("read", &self.path))?;
        for entry in entries {
            let entry = entry.map_err(CliError::output_file("read", &self.path))?;
            if Path::new(&entry.file_name()).extension() == Some("narinfo".as_ref()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Writes the narinfo of `item`, in place of an earlier one: its readers see the old one or the
    /// new one.
    ///
    /// # Errors
    /// Those of the system calls.
    pub(super) fn write_narinfo(&self, item: &StorePath, text: &str) -> Result<(), CliError> {
        OutputFile::open(&narinfo_of(&self.path, item))?.write(text)
    }

    /// The narinfo of `item`, if there is one.
    pub(super) fn find_narinfo(&self, item: &StorePath) -> Option<PathBuf> {
        let path = narinfo_of(&self.path, item);
        path.symlink_metadata().is_ok().then_some(path)
    }

    fn write(&self, name: &str, text: &str) -> Result<(), CliError> {
        OutputFile::open(&self.path.join(name))?.write(text)
    }
}

/// The file with the narinfo of `item` in `directory`.
pub(super) fn narinfo_of(directory: &Path, item: &StorePath) -> PathBuf {
    directory.join(format!("{}.narinfo", item.hash_part()))
}

/// Whether this program writes files of that name to the directory.
fn is_own_name(name: &str, dialect: Dialect) -> bool {
    name.ends_with(".narinfo") || name == CACHE_INFO || name == key_name(dialect)
}

/// The name of the public key: for Guix that of `guix publish`.
fn key_name(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Guix => "signing-key.pub",
        Dialect::Nix => "public-key",
    }
}
