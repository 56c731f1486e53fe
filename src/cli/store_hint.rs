//! What the user can do about failures of the store.

use std::path::Path;

use crate::store::{Remedy, StoreError};

use super::advice::Advice;
use super::shell_command::quoted;

/// What the user can do about a failure of the store.
pub(crate) fn store_hint(error: &StoreError, advice: &Advice) -> Option<String> {
    let hint = match error.remedy()? {
        Remedy::MakeStore => return Some(advice.other_store()),
        Remedy::NewerProgram => "a newer Guix or Nix made this store; use a newer subst",
        Remedy::Privileges => return Some(advice.privileges()),
        Remedy::FetchReferences => "fetch what it refers to first, or leave out --no-references",
        Remedy::Wait => "wait for the other process, or end it",
        Remedy::Space => return Some(advice.space()),
        Remedy::RepairDatabase(file) => return Some(advice.repair_database(file)),
        Remedy::RestoreSchema { file, number } => {
            return Some(advice.restore_schema(file, number));
        }
        Remedy::MendRoots(link) => return Some(unreadable_root_hint(link)),
        Remedy::OlderStore => {
            "start the store's own daemon once: it brings the database up to date"
        }
    };
    Some(hint.to_owned())
}

/// What the user can do about a garbage collector root that cannot be read.
pub(crate) fn unreadable_root_hint(link: &Path) -> String {
    let link = quoted(&link.display().to_string());
    format!(
        "make what it leads to readable, or remove it if it keeps nothing: `rm {link}`. Until then \
         `subst gc` deletes nothing"
    )
}
