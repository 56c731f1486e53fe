//! What a repair changes in a store that a verification has found faults in.
//!
//! A valid item keeps its row: a tree takes the place of the damaged one only if it has the recorded hash.
//! The new tree is complete, verified and on the disk before it gets the name, in one step in which the
//! damaged one loses it. So whenever a repair is killed, each item is as it was or as it should be; a
//! damaged tree that was exchanged and not removed is removed by the next run, as what any killed
//! process leaves.

use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::{AtFlags, statat, unlinkat};
use rustix::io::Errno;
use tracing::debug;

use crate::format::store_path::StorePath;

use super::error::{StoreError, on};
use super::handle::Store;
use super::item_lock::ItemLock;
use super::published::Published;
use super::recorded_items::RecordedItem;
use super::unpack::Checked;
use super::verify::{EntryFault, EntryFinding, StoreOwners, c_string, correct, correct_tree};

impl Store {
    /// What the database records of `item` now; `None` when it is not valid.
    ///
    /// # Errors
    /// The database cannot be read.
    pub(crate) fn recorded(&self, item: &StorePath) -> Result<Option<RecordedItem>, StoreError> {
        let recorded = self.database().recorded_among(std::slice::from_ref(item))?;
        Ok(recorded.items.into_iter().next())
    }

    /// Puts a verified tree in the place of the missing or damaged one of the valid item `recorded`,
    /// whose lock is `lock`, and removes the damaged one.
    ///
    /// # Errors
    /// [`StoreError::NotLocked`]: `lock` is that of another item. [`StoreError::OtherContents`]: the tree is
    /// not what the database records. Or the tree cannot be renamed. Then nothing has changed, and the
    /// tree is removed. [`StoreError::Remove`]: the damaged tree is left at the temporary name.
    pub(crate) fn replace_tree(
        &self,
        checked: Checked,
        lock: ItemLock,
        recorded: &RecordedItem,
    ) -> Result<(), StoreError> {
        let published = Published::new(checked, lock);
        let item = published.item().to_path();
        let place = self.layout().item(&item);
        if !published.is_locked_by(&self.layout().lock_file(&recorded.path)) {
            return Err(StoreError::NotLocked(place));
        }
        if item != recorded.path || published.narinfo().nar_hash() != recorded.nar_hash {
            return Err(StoreError::OtherContents(place));
        }

        self.sync_items()?;
        published.exchange_with(self.destination(item.base()))?;
        debug!(item = item.base(), "replaced a damaged tree");
        Ok(())
    }

    /// Gives everything in the tree of the item of `lock` its canonical mode and time.
    ///
    /// # Errors
    /// [`StoreError::Correct`].
    pub(crate) fn correct_attributes(&self, lock: &ItemLock) -> Result<(), StoreError> {
        let (layout, owners) = (self.layout(), StoreOwners::of(self)?);
        let store = self.links().store().as_fd();
        correct_tree(store, layout.store(), lock.item().base(), owners)
            .map_err(|(path, source)| StoreError::Correct { path, source })
    }

    /// Corrects the attributes of a faulty entry of `.links`, or removes the entry; the files of items
    /// that are links to it stay as they are. An entry that was replaced meanwhile is left alone.
    ///
    /// # Errors
    /// [`StoreError::ReadOnly`], [`StoreError::Correct`] or [`StoreError::Remove`].
    pub(crate) fn repair_entry(&self, finding: &EntryFinding) -> Result<(), StoreError> {
        self.refuse_if_read_only()?;
        let path = self.layout().links().join(&finding.name);
        let name = c_string(finding.name.as_bytes());
        if let EntryFault::Attributes(faults) = &finding.fault
            && faults.is_correctable
        {
            let owners = StoreOwners::of(self)?;
            let links = self.links().directory();
            let corrected = links
                .map_err(io::Error::from)
                .and_then(|links| correct(links.as_fd(), &name, owners));
            let corrected = corrected.map(drop);
            return corrected.map_err(on(&path, |path, source| StoreError::Correct {
                path,
                source,
            }));
        }

        let removed = self.links().directory().and_then(|links| {
            let found = statat(&links, &name, AtFlags::SYMLINK_NOFOLLOW)?;
            if found.st_ino != finding.inode {
                return Ok(());
            }
            unlinkat(&links, &name, AtFlags::empty())
        });
        match removed {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(on(&path, |path, source| StoreError::Remove {
                path,
                source,
            })(error)),
        }
    }
}
