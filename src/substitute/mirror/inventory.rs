//! What a mirror has: its narinfos, and its other files.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::key::{CACHE_INFO, MirrorKey};
use super::target::{MirrorTarget, TargetError};
use super::walk::ListedFile;
use crate::format::narinfo::{MAX_BYTES, NarInfo, NarInfoError};
use crate::format::store_path::{HashPart, StoreDir, StorePath};

/// Narinfos that are read together.
pub(super) const TEXTS_AHEAD: usize = 1000;

/// The files of a mirror.
pub(super) struct Inventory {
    /// The narinfos, in the order of their hash parts. One may be a link, which web servers follow.
    pub(super) narinfos: Vec<ListedNarInfo>,
    /// The other files, and their sizes.
    pub(super) files: HashMap<MirrorKey, u64>,
    /// What can be no file of a mirror, such as links, and what belongs to another one.
    pub(super) foreign: Vec<String>,
    /// The narinfo or nar that was written last, and when, in Unix seconds.
    pub(super) newest: Option<(u64, MirrorKey)>,
}

/// A file that has the name of a narinfo.
pub(super) struct ListedNarInfo {
    pub(super) item: HashPart,
    pub(super) size: u64,
    /// When it was written, in Unix seconds.
    pub(super) modified: u64,
}

impl Inventory {
    /// Lists the files of `target`.
    ///
    /// # Errors
    /// They cannot be listed.
    pub(super) fn list(target: &MirrorTarget) -> Result<Self, TargetError> {
        let mut inventory = Self {
            narinfos: Vec::new(),
            files: HashMap::new(),
            foreign: Vec::new(),
            newest: None,
        };
        target.list(&mut |file| inventory.add(file))?;
        inventory.leave_out_nested();
        inventory.narinfos.sort_unstable_by_key(|it| it.item);
        inventory.foreign.sort_unstable();
        Ok(inventory)
    }

    /// Takes the files of other mirrors, which are in directories of this one, for foreign: their narinfos may name
    /// what nothing here does.
    fn leave_out_nested(&mut self) {
        let mut nested: HashSet<PathBuf> = self
            .files
            .keys()
            .filter(|key| key.is_narinfo() || key.file_name() == CACHE_INFO)
            .map(MirrorKey::directory)
            .collect();
        nested.remove(Path::new(""));
        if nested.is_empty() {
            return;
        }
        for (key, size) in std::mem::take(&mut self.files) {
            match key.directory().ancestors().any(|it| nested.contains(it)) {
                true => self.foreign.push(key.to_string()),
                false => drop(self.files.insert(key, size)),
            }
        }
    }

    fn add(&mut self, file: ListedFile) {
        let name = MirrorKey::of_file(&file.name);
        let item = name.as_ref().and_then(MirrorKey::item_of_narinfo);
        if let Some(key) = name.filter(|key| item.is_some() || key.is_of_nar()) {
            // Of what has no time, it is not known when it was written.
            let time = Some(file.modified).filter(|time| *time < u64::MAX);
            self.newest = self.newest.take().max(time.map(|time| (time, key)));
        }
        match (item, file.key) {
            (Some(item), _) => self.narinfos.push(ListedNarInfo {
                item,
                size: file.size,
                modified: file.modified,
            }),
            (None, Some(key)) => drop(self.files.insert(key, file.size)),
            (None, None) => self.foreign.push(file.name),
        }
    }
}

/// Why a narinfo of a mirror says nothing about its item.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NarInfoFault {
    /// It is no text that a narinfo could be.
    #[error("it is longer than {MAX_BYTES} bytes, or not UTF-8")]
    Text,
    /// It is no narinfo.
    #[error("it is not a narinfo: {0}")]
    Syntax(NarInfoError),
    /// It has the name of another item.
    #[error("it describes {}", .0.base())]
    OtherItem(StorePath),
    /// It leads out of the mirror.
    #[error("its URL `{}` is not that of a file of the mirror", .0.escape_debug())]
    Url(String),
}

/// Reads the narinfos `listed` together, for [`read_narinfo`], if each would take a round trip.
///
/// # Errors
/// The mirror cannot be read.
pub(super) fn read_narinfos_ahead<'l>(
    target: &MirrorTarget,
    listed: impl Iterator<Item = &'l ListedNarInfo>,
) -> Result<(), TargetError> {
    let keys: Vec<MirrorKey> = listed.map(|it| MirrorKey::of_narinfo(&it.item)).collect();
    target.read_ahead(&keys, MAX_BYTES)
}

/// The narinfo of `item`; `None` if there is none, or none any more.
///
/// # Errors
/// It cannot be read.
pub(super) fn read_narinfo(
    target: &MirrorTarget,
    item: &HashPart,
    store_dir: &StoreDir,
) -> Result<Option<Result<NarInfo, NarInfoFault>>, TargetError> {
    let key = MirrorKey::of_narinfo(item);
    let Some(text) = target.text(&key, MAX_BYTES)? else {
        let is_there = target.current_size(&key)?.is_some();
        return Ok(is_there.then_some(Err(NarInfoFault::Text)));
    };
    let narinfo = NarInfo::parse(text, store_dir).map_err(NarInfoFault::Syntax);
    Ok(Some(narinfo.and_then(|narinfo| {
        match narinfo.store_path().hash_part() == *item {
            true => Ok(narinfo),
            false => Err(NarInfoFault::OtherItem(narinfo.store_path().to_path())),
        }
    })))
}

/// The keys that the nars may have that `narinfo` names, whatever the URL of the mirror.
///
/// # Errors
/// A relative URL is not that of a file of the mirror.
pub(super) fn named_keys(narinfo: &NarInfo) -> Result<Vec<MirrorKey>, NarInfoFault> {
    let mut keys = Vec::new();
    for download in narinfo.downloads() {
        let url = narinfo.download_url(download);
        let named = MirrorKey::all_of_nar(url);
        keys.extend(named.ok_or_else(|| NarInfoFault::Url(url.to_owned()))?);
    }
    Ok(keys)
}
