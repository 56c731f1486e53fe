//! The directory that narinfos are written to: a substitute server without nars.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::cli::error::CliError;
use crate::cli::output_file::OutputFile;
use crate::format::cache_info::CacheInfo;
use crate::format::store_path::{Dialect, StoreDir, StorePath};
use crate::substitute::endorse::EndorsementKey;

/// The directory that narinfos are written to.
pub(super) struct EndorsementDirectory(PathBuf);

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

        let prepared = Self(directory.to_owned());
        let cache_info = directory.join("nix-cache-info");
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
            let text = format!(
                "StoreDir: {}\nWantMassQuery: 1\nPriority: 50\n",
                store_dir.as_str()
            );
            prepared.write("nix-cache-info", &text)?;
        }
        Ok(prepared)
    }

    /// Writes the public key, which comes before the narinfos and so shows whose they are.
    fn write_key(&self, dialect: Dialect, key: &EndorsementKey) -> Result<(), CliError> {
        let path = self.0.join(key_name(dialect));
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
                self.0.display(),
                key_name(dialect)
            );
            return Err(CliError::Usage(text));
        }
        self.write(key_name(dialect), &format!("{public}\n"))
    }

    fn has_narinfos(&self) -> Result<bool, CliError> {
        let entries = std::fs::read_dir(&self.0).map_err(CliError::output_file("read", &self.0))?;
        for entry in entries {
            let entry = entry.map_err(CliError::output_file("read", &self.0))?;
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
        self.write(&format!("{}.narinfo", item.hash_part()), text)
    }

    fn write(&self, name: &str, text: &str) -> Result<(), CliError> {
        OutputFile::open(&self.0.join(name))?.write(text)
    }
}

/// The name of the public key: for Guix that of `guix publish`.
fn key_name(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Guix => "signing-key.pub",
        Dialect::Nix => "public-key",
    }
}
