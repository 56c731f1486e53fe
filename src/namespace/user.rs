//! Mounts of the process's own, with a user namespace where they need one.

use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use rustix::process::{getegid, geteuid};

use super::error::StepError;

/// Gives this process a mount namespace of its own, in which it may mount.
///
/// # Errors
/// Neither the process nor an unprivileged user may have one.
pub(super) fn separate_mounts() -> Result<(), StepError> {
    match unshare(CloneFlags::CLONE_NEWNS) {
        Err(Errno::EPERM) => {}
        other => return other.map_err(StepError::of("make a mount namespace")),
    }

    let (user, group) = (geteuid().as_raw(), getegid().as_raw());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)
        .map_err(StepError::of("make a user namespace"))?;

    // A user without privileges must not leave groups that deny access, and can map one group only then.
    match write("/proc/self/setgroups", "deny") {
        // There is no such file before Linux 3.19, nor such a condition.
        Err(error) if error.source.kind() == io::ErrorKind::NotFound => {}
        other => other?,
    }
    write("/proc/self/uid_map", &format!("{user} {user} 1"))?;
    write("/proc/self/gid_map", &format!("{group} {group} 1"))
}

fn write(file: &str, text: &str) -> Result<(), StepError> {
    std::fs::write(file, text).map_err(StepError::on("write", Path::new(file)))
}
