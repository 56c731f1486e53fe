//! All items of a server that is a directory or a bucket.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use super::failure::MirrorFailure;
use super::inventory::{Inventory, TEXTS_AHEAD, read_narinfo, read_narinfos_ahead};
use super::target::MirrorTarget;
use crate::format::narinfo::{MAX_BYTES, NarInfo};
use crate::format::store_path::{StoreDir, StorePath};

/// The items that the narinfos in `directory` describe, in the order of their names. What is no narinfo
/// is left out.
///
/// # Errors
/// The directory or a file cannot be read.
pub(crate) fn list_all(directory: &Path, store_dir: &StoreDir) -> io::Result<Vec<StorePath>> {
    let mut items = Vec::new();
    for entry in directory.read_dir()? {
        let path = entry?.path();
        if path.extension() != Some("narinfo".as_ref()) || !path.is_file() {
            continue;
        }
        let mut bytes = Vec::new();
        File::open(&path)?
            .take(MAX_BYTES as u64 + 1)
            .read_to_end(&mut bytes)?;
        let narinfo = String::from_utf8(bytes)
            .ok()
            .and_then(|text| NarInfo::parse(text, store_dir).ok());
        items.extend(narinfo.map(|narinfo| narinfo.store_path().to_path()));
    }

    items.sort_unstable();
    items.dedup();
    Ok(items)
}

/// The same for a `bucket`, which is opened to be read.
///
/// # Errors
/// The bucket cannot be read.
pub(crate) fn list_bucket(
    bucket: &MirrorTarget,
    store_dir: &StoreDir,
) -> Result<Vec<StorePath>, MirrorFailure> {
    let inventory = Inventory::list(bucket)?;
    let mut items = Vec::with_capacity(inventory.narinfos.len());
    for listed in inventory.narinfos.chunks(TEXTS_AHEAD) {
        read_narinfos_ahead(bucket, listed.iter())?;
        for narinfo in listed {
            let narinfo = read_narinfo(bucket, &narinfo.item, store_dir)?;
            let narinfo = narinfo.and_then(Result::ok);
            items.extend(narinfo.map(|narinfo| narinfo.store_path().to_path()));
        }
    }
    Ok(items)
}
