//! An item that has its name in the store and is not registered yet.

use std::path::Path;

use crate::format::narinfo::NarInfo;
use crate::format::store_path::StorePathRef;

use super::error::StoreError;
use super::item_lock::ItemLock;
use super::unpack::{Checked, Destination};

/// A verified item in its place in the store, with its lock. Only [`Store::register`] makes it
/// valid. Dropped before that, it is removed, with what it added to `.links`, and then its lock is
/// released.
///
/// Each step to a valid item takes what the step before returned:
///
/// ```no_run
/// # use std::{error::Error, sync::Arc};
/// # use subst::item_stages::*;
/// # use subst::trust::verdict::AuthorizedNarInfo;
/// # fn add(store: &Store, unpacked: Unpacked, lock: ItemLock, authorized: Arc<AuthorizedNarInfo>) -> Result<(), Box<dyn Error>> {
/// let checked = unpacked.check(authorized)?;
/// let published = store.publish(checked, lock)?;
/// store.register(vec![published], 0)?;
/// # Ok(())
/// # }
/// ```
///
/// Without a narinfo that an authorized key has signed, a tree cannot be checked:
///
/// ```compile_fail,E0308
/// # use std::{error::Error, sync::Arc};
/// # use subst::format::narinfo::NarInfo;
/// # use subst::item_stages::*;
/// # fn add(store: &Store, unpacked: Unpacked, lock: ItemLock, authorized: Arc<NarInfo>) -> Result<(), Box<dyn Error>> {
/// let checked = unpacked.check(authorized)?;
/// let published = store.publish(checked, lock)?;
/// store.register(vec![published], 0)?;
/// # Ok(())
/// # }
/// ```
///
/// A tree that was not checked cannot be published:
///
/// ```compile_fail,E0308
/// # use std::error::Error;
/// # use subst::item_stages::*;
/// # fn add(store: &Store, unpacked: Unpacked, lock: ItemLock) -> Result<(), Box<dyn Error>> {
/// let published = store.publish(unpacked, lock)?;
/// store.register(vec![published], 0)?;
/// # Ok(())
/// # }
/// ```
///
/// One that was not published cannot be registered:
///
/// ```compile_fail,E0308
/// # use std::{error::Error, sync::Arc};
/// # use subst::item_stages::*;
/// # use subst::trust::verdict::AuthorizedNarInfo;
/// # fn add(store: &Store, unpacked: Unpacked, authorized: Arc<AuthorizedNarInfo>) -> Result<(), Box<dyn Error>> {
/// let checked = unpacked.check(authorized)?;
/// store.register(vec![checked], 0)?;
/// # Ok(())
/// # }
/// ```
///
/// A lock that was released publishes nothing:
///
/// ```compile_fail,E0382
/// # use std::{error::Error, sync::Arc};
/// # use subst::item_stages::*;
/// # use subst::trust::verdict::AuthorizedNarInfo;
/// # fn add(store: &Store, unpacked: Unpacked, lock: ItemLock, authorized: Arc<AuthorizedNarInfo>) -> Result<(), Box<dyn Error>> {
/// let checked = unpacked.check(authorized)?;
/// drop(lock);
/// let published = store.publish(checked, lock)?;
/// store.register(vec![published], 0)?;
/// # Ok(())
/// # }
/// ```
///
/// Nor is an item available after [`Store::register`], which releases its lock:
///
/// ```compile_fail,E0382
/// # use std::{error::Error, sync::Arc};
/// # use subst::item_stages::*;
/// # use subst::trust::verdict::AuthorizedNarInfo;
/// # fn add(store: &Store, unpacked: Unpacked, lock: ItemLock, authorized: Arc<AuthorizedNarInfo>) -> Result<(), Box<dyn Error>> {
/// let checked = unpacked.check(authorized)?;
/// let published = store.publish(checked, lock)?;
/// store.register(vec![published], 0)?;
/// store.register(vec![published], 0)?;
/// # Ok(())
/// # }
/// ```
///
/// [`Store::register`]: super::Store::register
#[derive(Debug)]
pub struct Published {
    /// Dropped before the lock: what it removes is removed under the lock.
    checked: Checked,
    lock: ItemLock,
}

impl Published {
    pub(super) fn new(checked: Checked, lock: ItemLock) -> Self {
        Self { checked, lock }
    }

    /// The description of the item, which an authorized key has signed.
    pub(super) fn narinfo(&self) -> &NarInfo {
        self.checked.authorized().narinfo()
    }

    pub(super) fn item(&self) -> StorePathRef<'_> {
        self.narinfo().store_path()
    }

    /// Whether the lock held is the one at `lock_file`.
    pub(super) fn is_locked_by(&self, lock_file: &Path) -> bool {
        self.lock.path() == lock_file
    }

    pub(super) fn rename_to(&mut self, place: Destination) -> Result<(), StoreError> {
        self.checked.rename_to(place)
    }

    /// Gives the tree the name `place`, for good, and removes what had it; then releases the lock.
    pub(super) fn exchange_with(self, place: Destination) -> Result<(), StoreError> {
        let Self { checked, lock } = self;
        let exchanged = checked.exchange_with(place);
        drop(lock);
        exchanged
    }

    /// Leaves the item in its place, for good, and releases its lock.
    pub(super) fn keep(self) {
        self.checked.keep();
    }
}
