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
    /// It cannot be written to, or is a server for another store.
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
        match std::fs::read_to_string(&cache_info) {
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
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let text = format!(
                    "StoreDir: {}\nWantMassQuery: 1\nPriority: 50\n",
                    store_dir.as_str()
                );
                prepared.write("nix-cache-info", &text)?;
            }
            Err(error) => return Err(CliError::output_file("read", &cache_info)(error)),
        }

        let public = format!("{}\n", key.public_key());
        prepared.write(key_name(store_dir.dialect()), &public)?;
        Ok(prepared)
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
