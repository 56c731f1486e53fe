//! Files with passwords, tokens and keys.

use std::io::{self, Read as _};
use std::path::Path;

use crate::format::secret::Secret;

/// The largest file of credentials.
const FILE_MAX_BYTES: u64 = 256 << 10;

/// Whether there is no file for this user: one at a usual place need not exist, and that of the system is often for root only.
pub(super) fn is_absent(error: &io::Error) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound, PermissionDenied};
    matches!(error.kind(), NotFound | NotADirectory | PermissionDenied)
}

/// What is in the file at `path`.
pub(super) fn read_secret(path: &Path) -> io::Result<Secret> {
    let mut text = String::new();
    let file = std::fs::File::open(path)?;
    file.take(FILE_MAX_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_MAX_BYTES {
        return Err(io::Error::other("the file is too large"));
    }
    Ok(Secret::new(text))
}
