//! A repair compares an entry of `.links` with a file that was just written: the entry may be the
//! very file that is damaged.

use std::ffi::CStr;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, fstat, openat};
use rustix::io::{self, pread};

/// Which of two names becomes a link to the file of the other.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ReplacedName {
    File,
    Entry,
}

/// Which of the two has to go: the file `name` in `dir`, which is as it should be, when the
/// entry at `temporary` equals it, else the entry.
pub(super) fn compared(
    links: &OwnedFd,
    temporary: &str,
    dir: BorrowedFd<'_>,
    name: &CStr,
) -> io::Result<ReplacedName> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(dir, name, flags, Mode::empty())?;
    // An entry that cannot be read is not one to link to either.
    let Ok(entry) = openat(links, temporary, flags, Mode::empty()) else {
        return Ok(ReplacedName::Entry);
    };
    let is_same_kind = fstat(&file)?.st_mode == fstat(&entry)?.st_mode;
    let is_equal = is_same_kind && have_equal_bytes(&file, &entry)?;
    Ok(if is_equal {
        ReplacedName::File
    } else {
        ReplacedName::Entry
    })
}

/// Whether `entry` can be read to its end, and is what `file` is.
fn have_equal_bytes(file: &OwnedFd, entry: &OwnedFd) -> rustix::io::Result<bool> {
    let [mut ours, mut theirs] = [(); 2].map(|()| vec![0; COMPARED_AT_ONCE_BYTES]);
    let mut offset = 0;
    loop {
        let count = pread(file, &mut ours[..], offset)?;
        let is_equal = match pread(entry, &mut theirs[..count.max(1)], offset) {
            Ok(found) => ours[..count] == theirs[..found],
            Err(_) => false,
        };
        if !is_equal || count == 0 {
            return Ok(is_equal);
        }
        offset += count as u64;
    }
}

/// Bytes of each file that are in memory while two are compared.
const COMPARED_AT_ONCE_BYTES: usize = 64 << 10;
