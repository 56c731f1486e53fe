//! Writing to a store that is mounted read-only for all other processes.
//!
//! Guix System mounts the store read-only over itself, so that it is not changed by accident;
//! the daemon gives itself a mount namespace of its own, where it is writable.

use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use rustix::fs::{StatVfsMountFlags, statvfs};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::error::{StoreError, on};

/// Makes the store at `store` writable for this process and those it starts, when it is on a
/// read-only mount and we are root; does nothing otherwise.
///
/// Call it before any thread is started: a mount namespace is left by one thread, not by
/// the whole process.
///
/// # Errors
/// [`StoreError::Remount`]. An unprivileged process is not refused here but where it writes.
pub(crate) fn make_store_writable(store: &Path) -> Result<(), StoreError> {
    match statvfs(store) {
        Ok(stat) if stat.f_flag.contains(StatVfsMountFlags::RDONLY) && geteuid().is_root() => {
            remount(store, stat.f_flag).map_err(std::io::Error::from)
        }
        Ok(_) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
    .map_err(on(store, |path, source| StoreError::Remount {
        path,
        source,
    }))
}

/// Only read-only is given up: a remount would also drop each other flag that it does not name.
fn remount(store: &Path, flags: StatVfsMountFlags) -> nix::Result<()> {
    let kept = [
        (StatVfsMountFlags::NOSUID, MsFlags::MS_NOSUID),
        (StatVfsMountFlags::NODEV, MsFlags::MS_NODEV),
        (StatVfsMountFlags::NOEXEC, MsFlags::MS_NOEXEC),
        (StatVfsMountFlags::NOATIME, MsFlags::MS_NOATIME),
        (StatVfsMountFlags::NODIRATIME, MsFlags::MS_NODIRATIME),
        (StatVfsMountFlags::RELATIME, MsFlags::MS_RELATIME),
    ];
    let kept = kept
        .into_iter()
        .filter(|&(seen, _)| flags.contains(seen))
        .map(|(_, flag)| flag);
    let flags = kept.fold(MsFlags::MS_REMOUNT | MsFlags::MS_BIND, |all, flag| {
        all | flag
    });
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(None::<&str>, store, None::<&str>, flags, None::<&str>)
}
