//! What equal files have in common, and whether an entry of `.links` is one of them.

use rustix::fs::{FileType, Mode, Stat};
use rustix::process::geteuid;

use crate::format::base32;

use super::canonical;

/// Smaller files are not deduplicated, as guix-daemon would not.
pub(crate) const DEDUPLICATE_MIN_BYTES: u64 = 8192;

/// What all files have in common that are links to one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    /// SHA-256 of the nar of the single file.
    pub(crate) hash: [u8; 32],
    /// The length of the file.
    pub(crate) size: u64,
    /// Whether it can be executed.
    pub(crate) executable: bool,
}

impl Fingerprint {
    /// The name of its entry in `.links`.
    pub(super) fn entry_name(&self) -> String {
        base32::encode(&self.hash)
    }

    /// Whether an entry has the attributes of a file with this fingerprint, in canonical form. One cut
    /// short by a crash, or changed since, must not spread to further items; nor one that belongs to a
    /// user other than this one, the `store_owner` and root, who could change it later.
    pub(super) fn is_of(&self, stat: &Stat, store_owner: u32) -> bool {
        let owners = [0, store_owner, geteuid().as_raw()];
        FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
            && u64::try_from(stat.st_size) == Ok(self.size)
            && Mode::from_raw_mode(stat.st_mode) == canonical::file_mode(self.executable)
            && stat.st_mtime == canonical::MTIME_SECS
            && owners.contains(&stat.st_uid)
    }
}
