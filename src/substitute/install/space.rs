//! Whether nars fit on a file system when they are unpacked, before any of them is downloaded.
//!
//! Trees take more than their nars: each file fills its last block in part, and directories have
//! blocks of their own. How many files a nar has is unknown before it is read, so blocks are
//! estimated as those of ordinary nars. One of nothing but empty directories takes 25 times its size; it
//! may fill the disk until it is verified. Of entries only those are counted that are certain: one for
//! each item.
//!
//! A size that no signature covers is not counted: a false one would be a failure of this machine,
//! for which no other server is tried. Instead such a nar is refused if it is larger than a part of
//! the free space, so that false sizes cannot fill the disk.

use std::path::Path;

use crate::store::FreeSpace;
use crate::substitute::download::errors::TransferError;
use crate::substitute::install::errors::ItemError;
use crate::trust::verdict::AuthorizedNarInfo;

/// What blocks of this many bytes add to nars,
const MEASURED_BLOCK_BYTES: u64 = 4096;
/// one part in 25: 202 items with 885.6 MB of nars took 920.2 MB.
const BLOCKS_PART: u64 = 25;
/// Larger ones are no blocks of files: zfs and NFS name the best size to read at a time, and the ends of
/// files are stored in less.
const BLOCK_BYTES_MAX: u64 = 4 << 10;
/// The largest nar whose size no signature covers is one part in 8 of the free space: the six transfers
/// that run at the same time by default cannot fill the disk.
const UNSIGNED_PART: u64 = 8;

/// Refuses nars with these narinfos when they do not fit into what is `free` in `directory`.
///
/// # Errors
/// There are too few bytes or too few entries.
pub(super) fn check_free_space<'a>(
    directory: &Path,
    free: FreeSpace,
    narinfos: impl Iterator<Item = &'a AuthorizedNarInfo>,
) -> Result<(), ItemError> {
    let nar_sizes = narinfos.map(|narinfo| narinfo.verified_nar_size().unwrap_or(0));
    check_sizes(directory, free, nar_sizes)
}

/// Refuses a nar whose size no signature covers when it is large for what is `free`.
///
/// # Errors
/// It is too large; another server may say another size.
pub(super) fn check_unsigned_size(
    authorized: &AuthorizedNarInfo,
    free: FreeSpace,
) -> Result<(), TransferError> {
    let (nar_size, limit) = (authorized.narinfo().nar_size(), free.bytes / UNSIGNED_PART);
    if authorized.verified_nar_size().is_some() || nar_size <= limit {
        return Ok(());
    }
    Err(TransferError::UnsignedSize { nar_size, limit })
}

fn check_sizes(
    directory: &Path,
    free: FreeSpace,
    nar_sizes: impl Iterator<Item = u64>,
) -> Result<(), ItemError> {
    let (mut bytes, mut entries) = (0_u64, 0_u64);
    for nar_size in nar_sizes {
        bytes = bytes.saturating_add(unpacked_bytes(nar_size, free.block_bytes));
        entries += 1;
    }

    if free.bytes < bytes {
        return Err(ItemError::NoSpace {
            path: directory.to_owned(),
            needed: bytes,
            free: free.bytes,
        });
    }
    match free.entries {
        Some(free) if free < entries => Err(ItemError::NoEntries {
            path: directory.to_owned(),
            needed: entries,
            free,
        }),
        _ => Ok(()),
    }
}

/// Bytes of the blocks that a nar of this size takes, about.
fn unpacked_bytes(nar_size: u64, block_bytes: u64) -> u64 {
    let block_bytes = block_bytes.clamp(1, BLOCK_BYTES_MAX);
    let added = (nar_size / BLOCKS_PART).saturating_mul(block_bytes) / MEASURED_BLOCK_BYTES;
    nar_size
        .saturating_add(added)
        .checked_next_multiple_of(block_bytes)
        .unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FREE: FreeSpace = FreeSpace {
        bytes: 40 << 20,
        entries: Some(3),
        block_bytes: 4096,
    };

    fn check(nar_sizes: &[u64]) -> Result<(), ItemError> {
        check_sizes(Path::new("/x"), FREE, nar_sizes.iter().copied())
    }

    #[test]
    fn blocks_are_counted_as_the_file_system_does() {
        assert_eq!(unpacked_bytes(1, 4096), 4096);
        let measured = unpacked_bytes(885_600_000, 4096);
        assert!((920_200_000..922_000_000).contains(&measured), "{measured}");
        assert!(check(&[38 << 20]).is_ok());
        assert!(matches!(check(&[39 << 20]), Err(ItemError::NoSpace { .. })));
        assert!(matches!(
            check(&[u64::MAX, 1]),
            Err(ItemError::NoSpace { .. })
        ));
    }

    #[test]
    fn every_item_takes_an_entry() {
        assert!(check(&[1, 1, 1]).is_ok());
        let error = check(&[1, 1, 1, 1]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "entries (inodes): 4 needed, 3 free in /x"
        );
    }
}
