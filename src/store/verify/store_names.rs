//! What is in the store directory besides valid items.

use std::collections::HashSet;
use std::os::fd::BorrowedFd;

use rustix::fs::Dir;

use crate::format::store_path::StorePath;

/// How the names end of what belongs to an item that is being made, or was.
const TEMPORARY_SUFFIXES: [&str; 3] = [".lock", ".tmp", ".chroot"];

/// The names in the store directory that are not those of valid items.
#[derive(Debug, Default)]
pub(super) struct OtherNames {
    /// Names of items, in order.
    pub(super) unregistered: Vec<String>,
    /// Locks and temporary trees, in order.
    pub(super) temporary: Vec<String>,
}

/// Lists the open directory `store`, in which `valid` are the names of valid items. Other names than those of
/// items, such as `.links`, are left out.
///
/// # Errors
/// The directory cannot be listed.
pub(super) fn other_names(
    store: BorrowedFd<'_>,
    valid: &HashSet<&str>,
) -> rustix::io::Result<OtherNames> {
    let mut others = OtherNames::default();
    for entry in Dir::read_from(store)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().to_str() else {
            continue;
        };
        if valid.contains(name) || StorePath::parse(name).is_err() {
            continue;
        }
        let is_temporary = TEMPORARY_SUFFIXES
            .iter()
            .any(|suffix| name.ends_with(suffix));
        let list = if is_temporary {
            &mut others.temporary
        } else {
            &mut others.unregistered
        };
        list.push(name.to_owned());
    }

    others.unregistered.sort_unstable();
    others.temporary.sort_unstable();
    Ok(others)
}
