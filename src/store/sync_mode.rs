//! What is on the disk, and not only in memory, when an item becomes visible.
//!
//! The kernel keeps what is written in memory for some time, so a power cut after a fetch may leave
//! items whose files are empty: the database waits for the disk now and then, files do not. An item
//! is durable when its files, its directories, its name in the store and its entries in `.links` are.
//!
//! All of these, and the files of `.links` that it shares with others, are in one file system, which
//! is synced as a whole (`syncfs`), once for a batch of items. To sync each file alone
//! costs the disk's cache one flush per file, and does not cover shared files. The price is that
//! data that other programs have written to the same file system is waited for as well.

use std::os::fd::AsFd;
use std::time::Instant;

use rustix::fs::{fsync, syncfs};
use rustix::io;

use tracing::debug;

/// What waits for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SyncMode {
    /// Nothing: after a power cut, valid items may have empty files.
    None,
    /// The rows of items, and final names, wait for the items: after a power cut, each item is
    /// complete or not valid.
    Items,
    /// Also the end of the program waits, for the rows and final names: what was reported as
    /// fetched is valid after a power cut.
    Full,
}

impl SyncMode {
    /// Waits until all that was written to the file system of `directory` is on the disk.
    ///
    /// # Errors
    /// The disk failed to write some of it, maybe of another program, or earlier.
    pub(super) fn sync_items(self, directory: impl AsFd) -> io::Result<()> {
        if self == Self::None {
            return Ok(());
        }

        let began = Instant::now();
        syncfs(directory)?;
        debug!(milliseconds = began.elapsed().as_millis(), "items synced");
        Ok(())
    }

    /// Waits until the names in `directory` are on the disk.
    ///
    /// # Errors
    /// The disk failed to write them.
    pub(super) fn sync_names(self, directory: impl AsFd) -> io::Result<()> {
        match self {
            Self::None | Self::Items => Ok(()),
            Self::Full => fsync(directory),
        }
    }
}
