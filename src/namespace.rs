//! A mount namespace in which a store that lies elsewhere is at its place, such as `/gnu/store`.
//!
//! The process moves into it for good, and takes the program that it executes later with it. Where the
//! process may mount, only the mounts are its own. Otherwise it gets a user namespace too, in which its
//! user and its group keep their numbers; all others are shown as `nobody`, and set-user-ID programs of
//! other users have no effect.
//!
//! If the place is a directory already, the store is mounted on it. Otherwise the root directory is
//! replaced by a read-only one in memory, with everything that is in the old one and the place.
//! Mounts made outside later are visible; those made inside stay inside.

mod error;
mod mounts;
mod obstacle;
mod user;

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

pub(crate) use error::NamespaceError;

use mounts::Mounts;

/// Whether `store` is at `place` already: it is a system's store, or somebody made a link or a mount.
#[must_use]
pub(crate) fn is_in_place(store: &Path, place: &Path) -> bool {
    match (store.metadata(), place.metadata()) {
        (Ok(store), Ok(place)) => (store.dev(), store.ino()) == (place.dev(), place.ino()),
        _ => false,
    }
}

/// Moves this process to a namespace in which the directory `store` is at `place`, an absolute path. The
/// working directory stays `working_directory`. No other thread may run.
///
/// # Errors
/// It is not allowed, or the root directory cannot be read. The process may be in a namespace that is
/// half made then, and can only end.
pub(crate) fn enter(
    store: &Path,
    place: &Path,
    working_directory: &Path,
) -> Result<(), NamespaceError> {
    let mounts = Mounts {
        store,
        place,
        working_directory,
    };
    let entered = user::separate_mounts().and_then(|()| mounts.make());
    entered.map_err(|step| NamespaceError::of(step, Path::new("/")))
}

#[cfg(test)]
mod tests;
