//! What a verification of a mirror found, and how far it is.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::failure::MirrorFailure;
use super::inventory::{Inventory, ListedNarInfo, NarInfoFault, named_keys};
use super::key::MirrorKey;
use super::stored::known_methods;
use super::target::TargetError;
use crate::format::compression::Compression;
use crate::format::narinfo::NarInfo;
use crate::format::store_path::{HashPart, StorePath};
use crate::format::units::size_mismatch;
use crate::substitute::download::errors::CopyError;
use crate::substitute::outcome::refusal_reason;
use crate::substitute::progress::VerifyProgress;
use crate::sync::lock;
use crate::trust::verdict::Refusal;

/// What a verification found.
#[derive(Default)]
pub(crate) struct MirrorVerification {
    /// The faults, in the order of the files that have them.
    pub(crate) findings: Vec<MirrorFinding>,
    /// Nars that no narinfo names, with their sizes.
    pub(crate) orphans: Vec<(String, u64)>,
    /// Files that do not belong to a mirror.
    pub(crate) foreign: Vec<String>,
    /// Narinfos that were verified, and the nars that they name.
    pub(crate) narinfos: u64,
    pub(crate) nars: u64,
    /// Bytes that were read.
    pub(crate) bytes: u64,
    /// The compression methods of the nars.
    pub(crate) methods: Vec<Compression>,
    /// The items that have narinfos, or are referred to.
    names: HashMap<HashPart, StorePath>,
}

impl MirrorVerification {
    /// The items that are to be fetched again, each maybe several times.
    pub(crate) fn items_to_fetch(&self) -> impl Iterator<Item = StorePath> {
        self.findings.iter().flat_map(|finding| {
            let reference = match &finding.fault {
                MirrorFault::MissingReference(reference) => Some(reference.clone()),
                _ => None,
            };
            finding.item.clone().into_iter().chain(reference)
        })
    }

    /// The items whose narinfos lead to a fault.
    pub(crate) fn wrong_items(&self) -> impl Iterator<Item = HashPart> {
        self.findings
            .iter()
            .filter_map(|finding| match &finding.item {
                Some(item) => Some(item.hash_part()),
                None => MirrorKey::of_file(&finding.file)?.item_of_narinfo(),
            })
    }
}

/// A fault of a mirror.
pub(crate) struct MirrorFinding {
    /// The item whose narinfo leads to it; `None` if there is no telling.
    pub(crate) item: Option<StorePath>,
    /// The file that is wrong or missing, relative to the mirror.
    pub(crate) file: String,
    /// What is wrong.
    pub(crate) fault: MirrorFault,
}

impl MirrorFinding {
    /// Whether it is a narinfo that does not say of which item it is, and neither does another one.
    pub(crate) fn is_nameless(&self) -> bool {
        let is_narinfo = matches!(self.fault, MirrorFault::NarInfo(_));
        is_narinfo && self.item.is_none() && self.file.ends_with(".narinfo")
    }
}

/// What is wrong with a file of a mirror.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MirrorFault {
    /// There is none.
    #[error("there is no such file")]
    Missing,
    /// The narinfo of a reference is missing.
    #[error("there is no narinfo of {}, to which the item refers", .0.base())]
    MissingReference(StorePath),
    /// A nar has another size.
    #[error("the file has {}", size_mismatch(*.found, *.claimed))]
    Size {
        /// Its size.
        found: u64,
        /// What the narinfo says.
        claimed: u64,
    },
    /// A nar has other contents.
    #[error(transparent)]
    Contents(CopyError),
    /// A narinfo does not describe its item.
    #[error(transparent)]
    NarInfo(NarInfoFault),
    /// It does not say for which store the mirror is.
    #[error("it names no store directory")]
    CacheInfo,
    /// A narinfo names a nar that cannot be decompressed.
    #[error("it names no nar, or one with an unknown compression method")]
    Method,
    /// The policy, or the keys, do not allow it.
    #[error("{}", refusal_reason(.0))]
    Unauthorized(Refusal),
    /// There is no signature, but a store path that proves the content.
    #[error("only its store path vouches for it: no authorized key has signed it")]
    ContentOnly,
    /// It cannot be read.
    #[error(transparent)]
    Unreadable(TargetError),
    /// It cannot be read to its end, or cannot be decompressed on this machine.
    #[error(transparent)]
    Undecoded(CopyError),
}

/// The work of a verification, shared by its threads.
pub(super) struct VerificationWork<'a> {
    pub(super) narinfos: &'a [&'a ListedNarInfo],
    pub(super) next: AtomicUsize,
    pub(super) files: &'a HashMap<MirrorKey, u64>,
    /// The items that have narinfos.
    pub(super) listed: HashSet<HashPart>,
    /// Whether items that were not listed have narinfos after all.
    pub(super) asked: Mutex<HashMap<HashPart, bool>>,
    pub(super) done: AtomicU64,
    pub(super) bytes: AtomicU64,
    expected_bytes: u64,
    pub(super) found: Mutex<MirrorVerification>,
    /// Nars that narinfos name.
    named: Mutex<HashSet<MirrorKey>>,
    /// Why nothing more is verified.
    pub(super) end: Mutex<Option<MirrorFailure>>,
}

impl<'a> VerificationWork<'a> {
    pub(super) fn new(
        inventory: &'a Inventory,
        narinfos: &'a [&'a ListedNarInfo],
        is_deep: bool,
    ) -> Self {
        let nars = inventory.files.values().filter(|_| is_deep);
        Self {
            narinfos,
            next: AtomicUsize::new(0),
            files: &inventory.files,
            listed: inventory.narinfos.iter().map(|it| it.item).collect(),
            asked: Mutex::default(),
            done: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            expected_bytes: nars.sum(),
            found: Mutex::default(),
            named: Mutex::default(),
            end: Mutex::default(),
        }
    }

    pub(super) fn progress(&self) -> VerifyProgress {
        VerifyProgress {
            items: self.done.load(Ordering::Relaxed),
            expected_items: self.narinfos.len() as u64,
            bytes: self.bytes.load(Ordering::Relaxed),
            expected_bytes: self.expected_bytes,
        }
    }

    /// Notes what was found about `item`, which `narinfo` describes.
    pub(super) fn note(
        &self,
        narinfo: &NarInfo,
        item: &StorePath,
        faults: Vec<(String, MirrorFault)>,
    ) {
        // Otherwise one of the faults is that of the URL.
        let keys = named_keys(narinfo).unwrap_or_default();
        let mut found = lock(&self.found);
        found.narinfos += 1;
        found.nars += keys.len() as u64;
        for method in known_methods(narinfo) {
            if !found.methods.contains(&method) {
                found.methods.push(method);
            }
        }
        for path in narinfo.references().chain([narinfo.store_path()]) {
            found
                .names
                .entry(path.hash_part())
                .or_insert_with(|| path.to_path());
        }
        let findings = faults.into_iter().map(|(file, fault)| MirrorFinding {
            item: Some(item.clone()),
            file,
            fault,
        });
        found.findings.extend(findings);
        drop(found);
        lock(&self.named).extend(keys);
    }

    pub(super) fn finish(self, inventory: &Inventory) -> Result<MirrorVerification, MirrorFailure> {
        let end = self.end.into_inner();
        if let Some(failure) = end.unwrap_or_else(PoisonError::into_inner) {
            return Err(failure);
        }
        let mut found = self
            .found
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        let named = self
            .named
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        found.bytes = self.bytes.into_inner();

        let cache_info = MirrorKey::of_cache_info();
        let unnamed = inventory.files.iter();
        for (key, size) in unnamed.filter(|(key, _)| !named.contains(*key) && **key != cache_info) {
            match key.is_of_nar() {
                true => found.orphans.push((key.to_string(), *size)),
                false => found.foreign.push(key.to_string()),
            }
        }
        found.foreign.extend(inventory.foreign.iter().cloned());
        found.orphans.sort_unstable();
        found.foreign.sort_unstable();
        for finding in &mut found.findings {
            if finding.item.is_none() {
                let key = MirrorKey::of_file(&finding.file);
                let item = key.and_then(|key| key.item_of_narinfo());
                finding.item = item.and_then(|item| found.names.get(&item).cloned());
            }
        }
        Ok(found)
    }
}
