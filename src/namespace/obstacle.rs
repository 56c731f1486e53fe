//! What keeps a process from having a namespace of its own, found out after the kernel has refused it.

use std::fmt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};

/// What does not allow a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// The limit of user namespaces is zero.
    Limit,
    /// Debian's and some other kernels have a switch for users without privileges.
    Switch,
    /// AppArmor allows namespaces only to programs with a profile, as on Ubuntu.
    AppArmor,
    /// The root directory of the process is below that of its mounts.
    Chroot,
    /// A filter of system calls, as most containers have it.
    SystemCallFilter,
}

impl Obstacle {
    /// What is in the way on this machine, with the root directory `root`; `None` if nothing known is.
    pub(super) fn find(root: &Path) -> Option<Self> {
        let kernel = root.join("proc/sys/kernel");
        if is_set_to(&root.join("proc/sys/user/max_user_namespaces"), "0") {
            Some(Self::Limit)
        } else if is_set_to(&kernel.join("unprivileged_userns_clone"), "0") {
            Some(Self::Switch)
        } else if is_set_to(&kernel.join("apparmor_restrict_unprivileged_userns"), "1") {
            Some(Self::AppArmor)
        } else if has_line(&root.join("proc/self/status"), "Seccomp:\t2") {
            Some(Self::SystemCallFilter)
        } else if !is_mount(root) {
            Some(Self::Chroot)
        } else {
            None
        }
    }

    /// What removes it.
    pub(super) fn remedy(self) -> Option<&'static str> {
        match self {
            Self::Limit => {
                Some("as root, `sysctl user.max_user_namespaces=10000` allows user namespaces")
            }
            Self::Switch => {
                Some("as root, `sysctl kernel.unprivileged_userns_clone=1` allows user namespaces")
            }
            Self::AppArmor => Some(
                "as root, `sysctl kernel.apparmor_restrict_unprivileged_userns=0` allows them to \
                 all programs",
            ),
            Self::SystemCallFilter => Some(
                "a container started with `--cap-add SYS_ADMIN --security-opt \
                 apparmor=unconfined`, or with `--privileged`, allows them",
            ),
            Self::Chroot => None,
        }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Limit => "this machine has no user namespaces: user.max_user_namespaces is 0",
            Self::Switch => {
                "this machine allows no user namespaces without privileges: \
                 kernel.unprivileged_userns_clone is 0"
            }
            Self::AppArmor => {
                "AppArmor allows user namespaces only to some programs: \
                 kernel.apparmor_restrict_unprivileged_userns is 1"
            }
            Self::SystemCallFilter => {
                "the filter of system calls of a container or a service does not allow namespaces"
            }
            Self::Chroot => "a process in a chroot may not have namespaces of its own",
        })
    }
}

fn is_set_to(file: &Path, value: &str) -> bool {
    std::fs::read_to_string(file).is_ok_and(|text| text.trim() == value)
}

fn has_line(file: &Path, line: &str) -> bool {
    std::fs::read_to_string(file).is_ok_and(|text| text.lines().any(|found| found == line))
}

/// Whether something is mounted at `directory`. Before Linux 5.8 the kernel does not say: then it counts as
/// a mount.
fn is_mount(directory: &Path) -> bool {
    let Ok(found) = statx(CWD, directory, AtFlags::empty(), StatxFlags::empty()) else {
        return true;
    };
    let is_known = found
        .stx_attributes_mask
        .contains(StatxAttributes::MOUNT_ROOT);
    !is_known || found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)
}
