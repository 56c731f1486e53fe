//! The partial downloads of a run, in a directory that later runs read: what has arrived of a large
//! nar is not downloaded again after an interrupt, a kill, or a failure.
//!
//! Partial downloads only save time: every failure of this part is logged and ignored, and what is
//! read from the disk is decoded and verified like what a server sends. All of them together have a
//! limit; the oldest ones make room. They are removed when their item is valid, or after a week.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use rustix::fs::{AtFlags, Dir, FileType, Stat, fstat, statat};

use crate::format::store_path::StorePath;
use crate::no_follow;
use crate::substitute::download::spool_file::{FoundSpool, SpoolFile, SpoolHeader};
use crate::sync::lock;

/// After this time without a new byte a partial download is removed.
const AGE_MAX_SECONDS: u64 = 7 * 24 * 3600;
/// Files of the directory that are looked at.
const FILES_MAX: usize = 1000;
/// Characters of a name: a SHA-256 hash.
const NAME_LENGTH: usize = 64;

/// The partial downloads of a run.
#[derive(Debug)]
pub(crate) struct SpoolDirectory {
    /// The part of the name in which symbolic links are followed.
    base: PathBuf,
    path: PathBuf,
    /// What all partial downloads together may take.
    bytes_max: u64,
    /// The names that earlier runs have left.
    earlier: BTreeSet<String>,
    state: Mutex<SpoolsState>,
    /// There is no space for partial downloads.
    is_stopped: AtomicBool,
}

#[derive(Debug, Default)]
struct SpoolsState {
    /// Those that this process has locked, until their items are valid.
    files: HashMap<String, Arc<SpoolFile>>,
    /// Names that are not usable any more.
    unusable: BTreeSet<String>,
}

/// How many partial downloads there are, and what they take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SpoolUsage {
    /// Files.
    pub(crate) files: u64,
    /// Bytes on the disk.
    pub(crate) bytes: u64,
}

/// A file of the directory.
struct SpoolEntry {
    name: String,
    bytes: u64,
    modified_at: u64,
}

impl SpoolDirectory {
    /// The partial downloads in `path`, which is below `base`; they may take `bytes_max`. The directory is
    /// created with the first one.
    #[must_use]
    pub(crate) fn new(base: &Path, path: PathBuf, bytes_max: u64) -> Self {
        let mut spools = Self {
            base: base.to_owned(),
            path,
            bytes_max,
            earlier: BTreeSet::new(),
            state: Mutex::default(),
            is_stopped: AtomicBool::new(false),
        };
        spools.earlier = spools.entries().map(|entry| entry.name).collect();
        spools
    }

    /// Where they are.
    #[must_use]
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether this run has none, nor earlier ones.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.earlier.is_empty() && lock(&self.state).files.is_empty()
    }

    /// How many there are.
    #[must_use]
    pub(crate) fn usage(&self) -> SpoolUsage {
        self.entries()
            .fold(SpoolUsage::default(), |sum, entry| SpoolUsage {
                files: sum.files + 1,
                bytes: sum.bytes.saturating_add(entry.bytes),
            })
    }

    /// Bytes of downloads that this run has on disk, for items that are not valid.
    #[must_use]
    pub(crate) fn kept_bytes(&self) -> u64 {
        let state = lock(&self.state);
        let files = state.files.values().filter(|file| !file.is_removed());
        files.map(|file| file.bytes()).sum()
    }

    /// Removes those that are older than a week at `now`; how many.
    pub(crate) fn remove_old(&self, now: u64) -> u64 {
        self.remove_before(now.saturating_sub(AGE_MAX_SECONDS))
    }

    /// Removes those that have not grown since `time`; how many.
    pub(crate) fn remove_before(&self, time: u64) -> u64 {
        self.remove_unused(&|entry, _| entry.modified_at < time)
    }

    /// Removes all that no process uses; how many.
    pub(crate) fn remove_all(&self) -> u64 {
        self.remove_unused(&|_, _| true)
    }

    /// Removes those of items that `is_valid`.
    pub(crate) fn remove_valid(&self, is_valid: &dyn Fn(&StorePath) -> bool) {
        if !self.earlier.is_empty() {
            self.remove_unused(&|_, header| is_valid(&header.item));
        }
    }

    /// The item is valid: its partial downloads are not needed any more.
    pub(crate) fn item_is_valid(&self, item: &StorePath) {
        lock(&self.state).files.retain(|_, file| {
            let is_needed = file.header().item != *item;
            if !is_needed {
                file.remove();
            }
            is_needed
        });
    }

    /// What came of the download `name` is wrong: it is removed. Whether some of it came from the disk.
    pub(crate) fn discard(&self, name: &str) -> bool {
        let mut state = lock(&self.state);
        let Some(file) = state.files.remove(name) else {
            return false;
        };
        file.remove();
        // It is not tried again, even if it could not be removed.
        state.unusable.insert(name.to_owned());
        file.is_resumed()
    }

    /// The disk is full: gives back what partial downloads take and makes no more of them. Whether there
    /// were any.
    pub(crate) fn give_up_space(&self) -> bool {
        self.is_stopped.store(true, Ordering::Relaxed);
        let files = std::mem::take(&mut lock(&self.state).files);
        for file in files.values() {
            file.remove();
        }
        !files.is_empty()
    }

    /// Bytes that are on disk of the download `name`, and those of all of it.
    #[must_use]
    pub(crate) fn progress(&self, name: &str) -> Option<(u64, u64)> {
        let file = self.find(name)?;
        Some((file.bytes(), file.header().size))
    }

    /// What is on disk of the download `name`, unless another process or transfer uses it.
    pub(super) fn find(&self, name: &str) -> Option<Arc<SpoolFile>> {
        let file = self.find_locked(name)?;
        // It may grow to its full size.
        let _ = self.make_room(0);
        Some(file)
    }

    fn find_locked(&self, name: &str) -> Option<Arc<SpoolFile>> {
        let mut state = lock(&self.state);
        if let Some(file) = state.files.get(name) {
            let is_usable = Arc::strong_count(file) == 1 && !file.is_removed();
            return is_usable.then(|| Arc::clone(file));
        }
        if !self.earlier.contains(name) || state.unusable.contains(name) {
            return None;
        }

        match SpoolFile::open(&self.open().ok()?, name, self.bytes_max) {
            Ok(FoundSpool::Usable(file)) => {
                let file = Arc::new(file);
                state.files.insert(name.to_owned(), Arc::clone(&file));
                Some(file)
            }
            Ok(FoundSpool::Busy | FoundSpool::Missing) => None,
            Err(error) => {
                tracing::debug!(name, %error, "a partial download cannot be read");
                None
            }
        }
    }

    /// Begins to keep the download `name`, in place of what was kept of it; `None` when that is not
    /// possible.
    pub(super) fn create(&self, name: &str, header: SpoolHeader) -> Option<Arc<SpoolFile>> {
        if self.is_stopped.load(Ordering::Relaxed) {
            return None;
        }
        drop(self.find_locked(name));
        if let Some(file) = lock(&self.state).files.remove(name) {
            file.remove();
        }

        let created = self.make_room(header.size).and_then(|limit| {
            let path = &self.path;
            let directory = no_follow::create_directory(&self.base, path)?;
            SpoolFile::create(&Arc::new(checked(directory)?), name, header, limit)
        });
        match created {
            Ok(file) => {
                let file = Arc::new(file);
                let mut state = lock(&self.state);
                state.files.insert(name.to_owned(), Arc::clone(&file));
                Some(file)
            }
            Err(error) => {
                tracing::debug!(name, %error, "a download is not kept");
                None
            }
        }
    }

    /// Removes the oldest ones until there is room for a download of `size` bytes; how many there is
    /// room for.
    ///
    /// # Errors
    /// There is no room.
    fn make_room(&self, size: u64) -> io::Result<u64> {
        let mut entries: Vec<SpoolEntry> = self.entries().collect();
        entries.sort_unstable_by_key(|entry| entry.modified_at);
        let mut used = self.reserved_bytes(&entries);

        for entry in entries {
            if used.saturating_add(size) <= self.bytes_max {
                break;
            }
            let is_used = lock(&self.state).files.contains_key(&entry.name);
            if !is_used && self.remove_if(&entry, &|_, _| true) {
                used = used.saturating_sub(entry.bytes);
            }
        }
        match self.bytes_max.saturating_sub(used) {
            0 => Err(io::Error::other(
                "the limit of partial downloads is reached",
            )),
            left => Ok(left),
        }
    }

    /// What all files take, and those of this run when they are complete.
    fn reserved_bytes(&self, entries: &[SpoolEntry]) -> u64 {
        let state = lock(&self.state);
        let bytes = entries
            .iter()
            .map(|entry| match state.files.get(&entry.name) {
                Some(file) => file.reserved_bytes(),
                None => entry.bytes,
            });
        bytes.fold(0, u64::saturating_add)
    }

    /// Removes the files that no process uses and that `is_unneeded`; how many.
    fn remove_unused(&self, is_unneeded: &dyn Fn(&SpoolEntry, &SpoolHeader) -> bool) -> u64 {
        let removed = self
            .entries()
            .filter(|entry| self.remove_if(entry, is_unneeded));
        removed.count() as u64
    }

    fn remove_if(
        &self,
        entry: &SpoolEntry,
        is_unneeded: &dyn Fn(&SpoolEntry, &SpoolHeader) -> bool,
    ) -> bool {
        let Ok(directory) = self.open() else {
            return false;
        };
        match SpoolFile::open(&directory, &entry.name, self.bytes_max) {
            Ok(FoundSpool::Usable(file)) if is_unneeded(entry, file.header()) => {
                file.remove();
                true
            }
            _ => false,
        }
    }

    /// The files of the directory; none when it does not exist.
    fn entries(&self) -> impl Iterator<Item = SpoolEntry> + use<> {
        let directory = self.open().ok();
        let names = directory
            .as_ref()
            .and_then(|directory| Dir::read_from(directory).ok());
        names
            .into_iter()
            .flatten()
            .filter_map(move |found| {
                let found = found.ok()?;
                let name = found.file_name().to_str().ok()?;
                let stat = statat(directory.as_ref()?, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
                is_name(name).then(|| SpoolEntry::new(name, &stat))
            })
            .take(FILES_MAX)
    }

    fn open(&self) -> io::Result<Arc<OwnedFd>> {
        let directory = no_follow::open_directory(&self.base, &self.path)?;
        Ok(Arc::new(checked(directory)?))
    }
}

impl SpoolEntry {
    fn new(name: &str, stat: &Stat) -> Self {
        let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        let bytes = if is_file { stat.st_size } else { 0 };
        Self {
            name: name.to_owned(),
            bytes: u64::try_from(bytes).unwrap_or(0),
            modified_at: u64::try_from(stat.st_mtime).unwrap_or(0),
        }
    }
}

fn is_name(name: &str) -> bool {
    name.len() == NAME_LENGTH && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// An error for a directory that another user may write to.
fn checked(directory: OwnedFd) -> io::Result<OwnedFd> {
    let stat = fstat(&directory)?;
    let is_ours = stat.st_uid == rustix::process::geteuid().as_raw() && stat.st_mode & 0o022 == 0;
    if !is_ours {
        return Err(io::Error::other("other users may write to the directory"));
    }
    Ok(directory)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::{Duration, SystemTime};

    use super::*;

    fn header(size: u64) -> SpoolHeader {
        SpoolHeader {
            item: StorePath::parse("0f9qzp1g3jy45al4zspzqah9f8d5bisp-a").unwrap(),
            url_digest: "digest".to_owned(),
            validator: "\"tag\"".to_owned(),
            size,
        }
    }

    fn name(digit: u8) -> String {
        char::from(digit).to_string().repeat(NAME_LENGTH)
    }

    /// The partial downloads of a run of their own; they may take 100,000 bytes.
    fn spools(base: &Path) -> SpoolDirectory {
        SpoolDirectory::new(base, base.join("a/partial"), 100_000)
    }

    /// Leaves a partial download with `count` bytes behind, which is `age` old.
    fn leave(base: &Path, digit: u8, count: usize, age: Duration) {
        let spools = spools(base);
        let file = spools.create(&name(digit), header(count as u64)).unwrap();
        file.append(&vec![digit; count]).unwrap();
        let path = spools.path().join(name(digit));
        let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW) - age;
        std::fs::File::open(path)
            .unwrap()
            .set_modified(modified)
            .unwrap();
    }

    /// The time of the tests.
    const NOW: u64 = 1_700_000_000;
    const DAY: Duration = Duration::from_secs(24 * 3600);

    #[test]
    fn the_oldest_ones_make_room_and_those_in_use_stay() {
        let base = tempfile::tempdir().unwrap();
        leave(base.path(), b'1', 30_000, DAY);
        leave(base.path(), b'2', 30_000, 2 * DAY);
        leave(base.path(), b'3', 10_000, 3 * DAY);
        let spools = spools(base.path());
        let used = spools.find(&name(b'3')).unwrap();
        assert_eq!(spools.usage().files, 3);

        let file = spools.create(&name(b'4'), header(40_000)).unwrap();
        assert!(spools.find(&name(b'2')).is_none(), "the oldest");
        assert_eq!(used.beginning().next_chunk().unwrap()[..1], b"3"[..]);
        assert!(spools.find(&name(b'1')).is_some());

        // Of a large one the beginning is kept.
        drop(file);
        let large = spools.create(&name(b'4'), header(1 << 40)).unwrap();
        assert!((50_000..=60_000).contains(&large.reserved_bytes()));
        assert!(large.append(&vec![0; 70_000]).is_err());
        assert!(spools.create(&name(b'5'), header(1)).is_none());
    }

    #[test]
    fn those_of_last_week_and_of_valid_items_are_removed() {
        let base = tempfile::tempdir().unwrap();
        leave(base.path(), b'1', 10, DAY);
        leave(base.path(), b'2', 10, 8 * DAY);
        let used = spools(base.path());
        let file = used.find(&name(b'1')).unwrap();
        assert_eq!(spools(base.path()).remove_old(NOW), 1);
        spools(base.path()).remove_valid(&|_| true);
        assert_eq!(used.usage().files, 1, "the other is in use");

        drop(file);
        assert_eq!(used.kept_bytes(), 10);
        used.item_is_valid(&header(1).item);
        assert_eq!(used.usage(), SpoolUsage::default());

        leave(base.path(), b'3', 10, DAY);
        spools(base.path()).remove_valid(&|_| false);
        assert_eq!(spools(base.path()).usage().files, 1);
        spools(base.path()).remove_valid(&|item| *item == header(1).item);
        assert_eq!(spools(base.path()).usage().files, 0);
    }

    #[test]
    fn wrong_ones_are_not_found_again_and_a_full_disk_ends_all() {
        let base = tempfile::tempdir().unwrap();
        leave(base.path(), b'1', 10, DAY);
        let spools = spools(base.path());
        spools.find(&name(b'1')).unwrap().note_resumed();
        assert!(spools.discard(&name(b'1')), "it came from the disk");
        assert!(spools.find(&name(b'1')).is_none());
        assert!(spools.create(&name(b'1'), header(10)).is_some());
        assert!(!spools.discard(&name(b'1')), "it is of this run");

        assert!(!spools.give_up_space());
        assert!(spools.create(&name(b'2'), header(10)).is_none());
        assert_eq!(spools.usage(), SpoolUsage::default());
    }

    #[test]
    fn what_was_removed_while_it_was_used_is_not_kept() {
        let base = tempfile::tempdir().unwrap();
        let spools = spools(base.path());
        let file = spools.create(&name(b'1'), header(10)).unwrap();
        file.append(b"01234").unwrap();
        assert_eq!(spools.kept_bytes(), 5);
        file.remove();
        drop(file);
        assert_eq!(spools.kept_bytes(), 0);
        assert!(spools.find(&name(b'1')).is_none());
    }

    #[test]
    fn a_directory_of_other_users_is_not_used() {
        let base = tempfile::tempdir().unwrap();
        leave(base.path(), b'1', 10, DAY);
        let path = base.path().join("a/partial");
        let writable = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(&path, writable).unwrap();
        let spools = spools(base.path());
        assert!(spools.find(&name(b'1')).is_none());
        assert!(spools.create(&name(b'2'), header(10)).is_none());
        assert!(path.join(name(b'1')).exists());

        std::fs::rename(&path, base.path().join("elsewhere")).unwrap();
        std::os::unix::fs::symlink("../elsewhere", &path).unwrap();
        assert!(spools.create(&name(b'2'), header(10)).is_none());
    }
}
