//! The ACL file, to change it: complete or not at all, and nowhere that a link of another user leads.

use std::ffi::OsString;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::file_trust::{self, FileSelection};
use crate::cli::output_file::directory_of;
use crate::cli::settings::StoreKind;
use crate::no_follow;
use crate::trust::acl::Acl;

/// The ACL and the place for the next one.
pub(super) struct AclFile {
    path: PathBuf,
    directory: OwnedFd,
    name: OsString,
    pub(super) acl: Acl,
}

impl AclFile {
    /// Reads the ACL; where there is none, it begins with the keys that the store trusts without one.
    /// Its directory is created if necessary.
    ///
    /// # Errors
    /// The ACL is invalid, cannot be read, or may be changed by other users: its keys would be trusted
    /// from now on.
    pub(super) fn open(context: &Context) -> Result<Self, CliError> {
        let path = context.settings.acl.clone();
        if let Some(fault) = context.acl_fault() {
            if context.settings.acl_selection == FileSelection::Implicit {
                return Err(CliError::UnsafeAcl { path, fault });
            }
            let warning = file_trust::warning("ACL", &path, &fault, FileSelection::Explicit);
            context.output.warn(&warning);
        }

        let acl = read_acl(context)?;
        let parent = directory_of(&path);
        let base = context.settings.layout.base_of(parent);
        let directory =
            no_follow::create_directory(base, parent).map_err(CliError::file("write", &path))?;
        let name = path.file_name().unwrap_or_default().to_owned();
        Ok(Self {
            directory,
            name,
            acl,
            path,
        })
    }

    /// Begins a change: reads the ACL again, which another process may have changed since, and keeps other
    /// runs of this program from changing it until this value is dropped.
    ///
    /// # Errors
    /// The ACL is invalid or cannot be read.
    pub(super) fn begin_change(&mut self, context: &Context) -> Result<(), CliError> {
        if let Err(error) = flock(&self.directory, FlockOperation::LockExclusive) {
            tracing::debug!(%error, "the directory of the ACL cannot be locked");
        }
        self.acl = read_acl(context)?;
        Ok(())
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The directory that it is written to.
    pub(super) fn directory(&self) -> &Path {
        directory_of(&self.path)
    }

    /// Replaces the file in one step, so that no process reads half of it.
    ///
    /// # Errors
    /// Those of the system calls; the old file is as it was.
    pub(super) fn write(&self) -> Result<(), CliError> {
        let text = self.acl.to_string();
        no_follow::replace_file(
            self.directory.as_fd(),
            &self.name,
            text.as_bytes(),
            no_follow::FOR_ALL,
        )
        .map_err(CliError::file("write", &self.path))
    }
}

/// The ACL, or the keys that the store trusts without one.
fn read_acl(context: &Context) -> Result<Acl, CliError> {
    Ok(match (context.read_acl()?, context.settings.store_kind) {
        (Some(acl), _) => acl,
        (None, StoreKind::Embedded) => Acl::official_guix_servers(),
        (None, StoreKind::System) => Acl::default(),
    })
}
