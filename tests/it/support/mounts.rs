//! Mounts for tests, in namespaces of their own. They need root or user namespaces, and tests are left out
//! with a message where there are none.

use std::process::Command;

/// The options of `unshare` with which a command may mount something; `None` where nothing can be mounted.
pub(crate) fn unshare_flags() -> Option<&'static str> {
    let flags = ["-m", "-rm"].into_iter().find(|flags| {
        let mut command = Command::new("unshare");
        command.args([flags, "sh", "-c", "mount -t tmpfs none /mnt"]);
        command.output().is_ok_and(|output| output.status.success())
    });
    if flags.is_none() {
        eprintln!("left out: nothing can be mounted here");
    }
    flags
}
