//! The rights of the owner of a store, for what root does there in the place of that user.

use rustix::process::{Uid, geteuid, getuid};
use rustix::thread::set_thread_res_uid;

/// The rights that this thread has as the owner of a store; root's again when it is dropped.
///
/// What is created meanwhile belongs to the owner from the start, and no link leads root anywhere that the
/// owner could not go.
#[derive(Debug)]
pub(super) struct OwnerRights {
    was_root: bool,
}

impl OwnerRights {
    /// Takes the rights of `owner`; nothing changes if this process has them.
    ///
    /// # Errors
    /// This process is neither of `owner` nor of root, or that user is unknown in this namespace.
    pub(super) fn take(owner: Uid) -> rustix::io::Result<Self> {
        let was_root = geteuid() != owner;
        if was_root {
            set_thread_res_uid(getuid(), owner, Uid::ROOT)?;
        }
        Ok(Self { was_root })
    }
}

impl Drop for OwnerRights {
    fn drop(&mut self) {
        if self.was_root && set_thread_res_uid(getuid(), Uid::ROOT, Uid::ROOT).is_err() {
            // Nothing must go on with the rights of another user than it began with.
            std::process::abort();
        }
    }
}
