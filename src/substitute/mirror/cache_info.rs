//! The `nix-cache-info` of a mirror, which says for which store its items are.
//!
//! Clients look for it first. Its owner may have changed the rest of it, such as the priority.

use super::failure::MirrorFailure;
use super::inventory::Inventory;
use super::key::MirrorKey;
use super::target::{MirrorTarget, TargetError};
use crate::format::cache_info::CacheInfo;
use crate::format::store_path::StoreDir;

/// The longest file that is read.
const BYTES_MAX: usize = 64 << 10;

/// The store that `target` says it is for; `None` if it does not say.
pub(super) fn stated_store(target: &MirrorTarget) -> Result<Option<String>, TargetError> {
    let text = target.text(&MirrorKey::of_cache_info(), BYTES_MAX)?;
    let stated = text.and_then(|text| CacheInfo::parse(&text).store_dir);
    Ok(stated.filter(|stated| !stated.is_empty()))
}

/// Makes `target` say that it is for `store_dir`, unless it says for which store it is.
pub(super) fn write_cache_info(
    target: &MirrorTarget,
    store_dir: &StoreDir,
) -> Result<(), TargetError> {
    if stated_store(target)?.is_none() {
        let text = target.text(&MirrorKey::of_cache_info(), BYTES_MAX)?;
        let text = completed(&text.unwrap_or_default(), store_dir);
        target.replace(&[(MirrorKey::of_cache_info(), &text)])?;
        target.sync_names()?;
    }
    Ok(())
}

/// The fields of `text`, which name no store, and that of `store_dir`; if there are none, those of a new mirror.
fn completed(text: &str, store_dir: &StoreDir) -> String {
    let fields = text.lines().filter(|line| line.contains(':'));
    // Programs differ in which one counts of a repeated field.
    let fields = fields.filter(|line| !line.starts_with("StoreDir"));
    let mut completed: String = fields.map(|line| format!("{line}\n")).collect();
    match completed.is_empty() {
        true => CacheInfo::text_for(store_dir),
        false => {
            completed.push_str(&format!("StoreDir: {}\n", store_dir.as_str()));
            completed
        }
    }
}

/// The store that `target` is for, if that is another one than `store_dir`.
///
/// # Errors
/// It cannot be read.
pub(crate) fn other_store(
    target: &MirrorTarget,
    store_dir: &StoreDir,
) -> Result<Option<String>, MirrorFailure> {
    let stated = stated_store(target)?;
    Ok(stated.filter(|stated| stated != store_dir.as_str()))
}

/// Whether `target` is a mirror, or any other cache of Nix's format.
///
/// # Errors
/// It cannot be read.
pub(crate) fn is_mirror(target: &MirrorTarget) -> Result<bool, MirrorFailure> {
    let has_cache_info = target.size(&MirrorKey::of_cache_info())?.is_some();
    Ok(has_cache_info || !Inventory::list(target)?.narinfos.is_empty())
}
