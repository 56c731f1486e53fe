//! The local store: which items are valid, and adding new ones.
//!
//! All of it is shared with guix-daemon (or Nix) while it runs: its database, its locks, its temp
//! roots, its `.links`. The order that is safe for adding an item:
//!
//! 1. [`Store::add_temp_roots`]: from now on the collector keeps it;
//! 2. [`Store::try_lock`]: from now on no other process adds it;
//! 3. [`Store::is_complete`] again: another process may just have added it;
//! 4. [`unpack::unpack`] to [`Store::clear_temporary`], then [`unpack::Unpacked::check`];
//! 5. [`Store::publish`]: rename it into place;
//! 6. [`Store::register`]: wait until it is on the disk, make it valid, and release its lock.
//!
//! Steps 4 to 6 take what the step before returned, so none can be left out: see [`Published`].
//! What is in the store directory without being registered is garbage; the holder of the lock of its
//! path may delete it.

pub(crate) mod canonical;
mod closure;
mod connection;
mod database_check;
mod database_wait;
mod db;
mod deduplicate;
mod derivation;
mod directory;
mod dump;
mod entry_comparison;
mod error;
mod fingerprint;
mod gc;
mod handle;
mod item_lock;
mod item_provenance;
mod item_rows;
mod layout;
mod leftovers;
mod links_directory;
mod lock_file;
mod lock_holder;
mod lock_kind;
mod open;
mod order;
pub(crate) mod output_staging;
mod owner_rights;
mod published;
mod recorded_items;
mod registration;
mod remains;
mod remove;
mod rename_noreplace;
mod repair;
mod schema;
mod sync_mode;
mod temp_root;
mod tree_entries;
pub(crate) mod unpack;
pub(crate) mod verify;
mod wait;
mod writable;

#[cfg(test)]
mod tests;

pub use error::StoreError;
pub use handle::Store;
pub use item_lock::ItemLock;
pub use published::Published;
pub use unpack::{CheckError, Checked, Unpacked};

pub(crate) use closure::Closure;
pub(crate) use db::RefusedItem;
pub(crate) use deduplicate::Links;
pub(crate) use directory::FreeSpace;
pub(crate) use error::Remedy;
pub(crate) use gc::{
    GcItem, GcMode, GcProgress, GcReport, GcRequest, GcRootLinks, Keeper, RootName, RootReport,
    RootsReport, reclaim_left_space, remove_root,
};
pub(crate) use handle::OpenMode;
pub(crate) use item_provenance::{ItemOrigin, ItemProvenance};
pub(crate) use layout::Layout;
pub(crate) use recorded_items::RecordedItem;
pub(crate) use remove::remove_tree;
pub(crate) use sync_mode::SyncMode;
pub(crate) use temp_root::keep_for_program;
pub(crate) use wait::StoreObserver;
pub(crate) use writable::make_store_writable;
