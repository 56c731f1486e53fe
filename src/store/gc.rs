//! Collecting garbage in an embedded store, as guix-daemon and Nix collect it in theirs; and the roots
//! that keep items.
//!
//! An item stays when it is reachable from a root: a link below `gcroots`, `profiles` or `manifests`, a
//! temp root of a live process, a file that a running program uses, or an item that is locked. It is
//! reachable through references, and a derivation through those of its outputs that were built by it.
//! Everything else in the store directory is removed, and so are the entries of `.links` that no item
//! has a link to.
//!
//! The order makes a collection safe beside other processes, and when it is killed at any time:
//!
//! 1. Lock `gc.lock` exclusively, and the files of temp roots: no root can be added from now on.
//! 2. Find out what is reachable.
//! 3. Delete rows, referrers first, in short transactions, and then move the trees of these rows to the
//!    directory `trash`. A tree without a row is garbage for the next collection or fetch.
//! 4. Release the temp roots, and lock `gc.lock` shared: other processes go on, other collectors wait.
//! 5. Delete what is in `trash`, and then the entries of `.links` that have no other name.
//!
//! Step 5 is also what a new collection begins with, before it opens the database: on a full disk it could not.
//!
//! Not checked: whether the trees of the items that stay are complete.

mod collector;
mod disk_usage;
mod gc_item;
mod graph;
mod keeper;
mod reclaim;
mod records;
mod report;
mod root_links;
mod roots;
mod running;
mod store_entries;
mod store_methods;
mod store_sizes;
mod temp_root_files;
mod trash;

pub(crate) use gc_item::GcItem;
pub(crate) use keeper::Keeper;
pub(crate) use reclaim::reclaim_left_space;
pub(crate) use report::{GcMode, GcProgress, GcReport, GcRequest, RootReport, RootsReport};
pub(crate) use root_links::{GcRootLinks, RootName, remove_root};

#[cfg(test)]
pub(in crate::store) use store_sizes::StoreSizes;
