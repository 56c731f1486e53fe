//! Keeps what is unpacked away from where much has just been deleted.
//!
//! ext4 without a journal, as virtual machines often have it, does not take an inode again in the
//! first minutes after it was deleted (`recently_deleted` in the kernel's `fs/ext4/ialloc.c`): for
//! every file that is made it passes over all of them, from the first, in the part of the disk that
//! the directory lies in. Fetching a closure again after it was deleted takes ten times
//! as long in the kernel as the first time. A subdirectory that was slow to make for this reason is
//! made once more, somewhere else on the disk, and with it what will be put into it.
//!
//! The item's own directory stays where it is: another name in the store, were it only for a moment,
//! would be left behind by a kill.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{AtFlags, IFlags};
use rustix::fs::{
    fstat, ioctl_getflags, ioctl_setflags, major, minor, mkdirat, renameat, unlinkat,
};
use rustix::io;
use rustix::time::{ClockId, clock_gettime};

use super::created_modes::UNFINISHED_DIRECTORY;

/// Processor time above which making a directory may tell of a crowd. Here ordinary ones take 40 µs,
/// 99 in a hundred less than 110; to pass over a thousand deleted inodes takes 150 more.
const CROWDED: Duration = Duration::from_micros(150);

/// How often more in one tree another place may turn out to be as bad than to be better: the machine
/// is slow then, or all of its disk crowded.
const MAX_IN_VAIN: u32 = 16;

/// What making the directories of one tree has shown of crowds on its file system.
#[derive(Debug, Default)]
pub(super) struct Crowding {
    /// Whether it has crowds: looked up when it first matters.
    passes_over_deleted: Option<bool>,
    /// How much more often it was in vain to go elsewhere than not.
    in_vain: u32,
}

/// What became of the parent of a new directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parent {
    /// It is as it was.
    Unchanged,
    /// It has a flag by which directories in it, also later ones, are made elsewhere: to be taken
    /// away by [`gather`] in the end.
    Scattering,
}

impl Crowding {
    /// Makes the empty directory `name` in `parent`, a directory of the tree.
    pub(super) fn make_directory(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
    ) -> io::Result<Parent> {
        let took = processor_time_of(|| mkdirat(parent, name, UNFINISHED_DIRECTORY))?;
        if took < CROWDED || !self.is_worth_trying(parent) || scatter(parent).is_err() {
            return Ok(Parent::Unchanged);
        }
        let now = make_elsewhere(parent, name, took)?;
        self.note(now < took * 3 / 4);
        Ok(Parent::Scattering)
    }

    fn note(&mut self, was_better: bool) {
        self.in_vain = if was_better {
            self.in_vain.saturating_sub(1)
        } else {
            self.in_vain + 1
        };
    }

    fn is_worth_trying(&mut self, directory: BorrowedFd<'_>) -> bool {
        self.in_vain < MAX_IN_VAIN
            && *self
                .passes_over_deleted
                .get_or_insert_with(|| passes_over_deleted(directory))
    }
}

/// Puts another directory in the place of the empty directory `name` in `parent`, when it is quicker
/// to make than that was. Says how long the one took that is there now. Whatever fails, one is.
fn make_elsewhere(parent: BorrowedFd<'_>, name: &[u8], took: Duration) -> io::Result<Duration> {
    let other = format!(".{:016x}", fastrand::u64(..));
    let Ok(again) = processor_time_of(|| mkdirat(parent, &other, UNFINISHED_DIRECTORY)) else {
        return Ok(took);
    };
    if again < took && renameat(parent, &other, parent, name).is_ok() {
        return Ok(again);
    }
    unlinkat(parent, &other, AtFlags::REMOVEDIR)?;
    Ok(took)
}

/// Has ext4 spread the directories in `parent`, over the parts of the disk that have fewest of them
/// and, among equals, by their names, instead of keeping them near it.
fn scatter(parent: BorrowedFd<'_>) -> io::Result<()> {
    ioctl_setflags(parent, ioctl_getflags(parent)?.union(IFlags::TOPDIR))
}

/// Takes the flag away that a scattering directory has, and no new one.
pub(super) fn gather(directory: BorrowedFd<'_>) -> io::Result<()> {
    ioctl_setflags(
        directory,
        ioctl_getflags(directory)?.difference(IFlags::TOPDIR),
    )
}

/// Whether `directory` lies on an ext4 without a journal.
fn passes_over_deleted(directory: BorrowedFd<'_>) -> bool {
    let Ok(stat) = fstat(directory.as_fd()) else {
        return false;
    };
    let device = format!(
        "/sys/dev/block/{}:{}",
        major(stat.st_dev),
        minor(stat.st_dev)
    );
    // It leads to the device's own directory, which has the name that ext4 knows it by.
    let task = std::fs::read_link(device).and_then(|device| {
        let name = device.file_name().unwrap_or_default();
        std::fs::read_to_string(Path::new("/sys/fs/ext4").join(name).join("journal_task"))
    });
    task.is_ok_and(|task| task.trim() == "<none>")
}

/// What this thread uses of a processor for `work`. Unlike the time of day that does not pass while
/// others run or the disk is waited for.
fn processor_time_of(work: impl FnOnce() -> io::Result<()>) -> io::Result<Duration> {
    let began = processor_time();
    work()?;
    Ok(processor_time().saturating_sub(began))
}

fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        time.tv_sec.unsigned_abs(),
        time.tv_nsec.unsigned_abs().try_into().unwrap_or(0),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, Mode, OFlags, openat};
    use std::os::fd::OwnedFd;
    use std::os::unix::fs::MetadataExt as _;

    fn open(path: &Path) -> OwnedFd {
        openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap()
    }

    fn names(path: &Path) -> Vec<String> {
        let name = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name();
        path.read_dir()
            .unwrap()
            .map(|entry| name(entry).into_string().unwrap())
            .collect()
    }

    fn inode(path: &Path) -> u64 {
        path.metadata().unwrap().ino()
    }

    #[test]
    fn another_directory_takes_the_place_when_it_is_quick_to_make() {
        let parent = tempfile::tempdir().unwrap();
        let (fd, name) = (open(parent.path()), parent.path().join("name"));
        std::fs::create_dir(&name).unwrap();
        let first = inode(&name);
        let make = |took| make_elsewhere(fd.as_fd(), b"name", took).unwrap();
        assert_eq!(make(Duration::ZERO), Duration::ZERO);
        assert_eq!((inode(&name), names(parent.path()).len()), (first, 1));
        assert!(make(Duration::MAX) < Duration::MAX);
        assert_ne!(inode(&name), first);
        assert_eq!(names(parent.path()), ["name"]);
    }

    #[test]
    fn what_is_in_the_way_stays_and_nothing_is_left_beside_it() {
        let parent = tempfile::tempdir().unwrap();
        let fd = open(parent.path());
        std::fs::create_dir_all(parent.path().join("name/below")).unwrap();
        let made = Crowding::default().make_directory(fd.as_fd(), b"name");
        assert_eq!(made, Err(io::Errno::EXIST));
        let made = make_elsewhere(fd.as_fd(), b"name", Duration::MAX);
        assert_eq!(made, Ok(Duration::MAX));
        assert_eq!(names(parent.path()), ["name"]);
        assert_eq!(names(&parent.path().join("name")), ["below"]);
    }

    #[test]
    fn gathered_a_directory_has_the_flags_that_it_had() {
        let directory = tempfile::tempdir().unwrap();
        let fd = open(directory.path());
        let Ok(before) = ioctl_getflags(&fd) else {
            eprintln!(
                "skipped: {} is on a file system without flags",
                directory.path().display()
            );
            return;
        };
        if scatter(fd.as_fd()).is_ok() {
            assert_eq!(ioctl_getflags(&fd).unwrap(), before | IFlags::TOPDIR);
            gather(fd.as_fd()).unwrap();
        }
        assert_eq!(ioctl_getflags(&fd).unwrap(), before);
    }

    #[test]
    fn what_was_in_vain_too_often_is_not_tried_again() {
        let directory = tempfile::tempdir().unwrap();
        let fd = open(directory.path());
        let mut crowding = Crowding {
            passes_over_deleted: Some(true),
            in_vain: 0,
        };
        (1..MAX_IN_VAIN).for_each(|_| crowding.note(false));
        assert!(crowding.is_worth_trying(fd.as_fd()));
        crowding.note(false);
        assert!(!crowding.is_worth_trying(fd.as_fd()));
        crowding.note(true);
        assert!(crowding.is_worth_trying(fd.as_fd()));
    }

    const CROWD: usize = 4_000;

    #[test]
    fn directories_are_made_away_from_what_was_just_deleted() {
        let parent = tempfile::tempdir().unwrap();
        let fd = open(parent.path());
        if !passes_over_deleted(fd.as_fd()) {
            eprintln!(
                "skipped: {} is on no ext4 without a journal",
                parent.path().display()
            );
            return;
        }
        let crowd = parent.path().join("crowd");
        std::fs::create_dir(&crowd).unwrap();
        let make = |number: usize| {
            let file = crowd.join(number.to_string());
            std::fs::write(&file, "").unwrap();
            inode(&file)
        };
        let inodes: Vec<_> = (0..CROWD).map(make).collect();
        let deleted = *inodes.iter().min().unwrap()..=*inodes.iter().max().unwrap();
        std::fs::remove_dir_all(&crowd).unwrap();
        // Inodes that were deleted in the very same second ext4 does take.
        std::thread::sleep(Duration::from_millis(1100));
        let slow = |name| processor_time_of(|| mkdirat(&fd, name, UNFINISHED_DIRECTORY)).unwrap();
        if ["one", "two", "three"].map(slow).into_iter().min().unwrap() < CROWDED * 2 {
            eprintln!("skipped: the deleted files were somewhere else");
            return;
        }
        let mut crowding = Crowding::default();
        let mut is_away = |name: String| {
            let made = crowding
                .make_directory(fd.as_fd(), name.as_bytes())
                .unwrap();
            made == Parent::Scattering && !deleted.contains(&inode(&parent.path().join(name)))
        };
        // One at least: another process that makes files meanwhile may be where the others went.
        assert!(
            (0..4).any(|number| is_away(number.to_string())),
            "all within {deleted:?}"
        );
    }
}
