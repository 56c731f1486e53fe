//! Verification of a whole store: every valid item against the hash that the database records, every
//! entry of `.links` against its name, and what is in the store directory without being valid.
//!
//! Nothing is changed, and no lock is taken, so it works in the system's store too, and for users who may
//! only read. What changes meanwhile is looked up again before it is reported: an item that is not
//! valid any more is no fault.
//!
//! Each item is read once, the largest first. A file with several names is probably an entry of `.links`:
//! it is hashed for its own nar in the same step, and the entry is not read again. Only the hashes tell
//! whether contents are right, so which file of an item is damaged is known only if it is an entry of
//! `.links`, which has a name of its own.
//!
//! Memory: the list of the items, and at most `NOTED_FILES_MAX` hashes of files.

mod attributes;
mod corrections;
mod entries;
mod findings;
mod items;
mod linked_names;
mod noted_files;
mod store_names;
mod tree;
mod verification;

pub(crate) use attributes::AttributeFaults;
pub(crate) use findings::{
    EntryFault, EntryFinding, ItemFault, ItemFinding, StoreVerification, VerifyScope, VerifyTally,
};
pub(crate) use verification::{verify, verify_item};

pub(super) use attributes::StoreOwners;
pub(super) use corrections::{c_string, correct, correct_tree};
