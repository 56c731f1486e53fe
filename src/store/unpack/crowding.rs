//! Keeps what is unpacked away from where much has just been deleted.
//!
//! ext4 without a journal, as virtual machines often have it, does not take an inode again in the
//! first minutes after it was deleted (`recently_deleted` in the kernel's `fs/ext4/ialloc.c`): for
//! every file that is made it passes over all of them, from the first, in the part of the disk that
//! the directory lies in. Whoever fetches a closure again after having deleted it spends ten times
//! as long in the kernel as the first time. A subdirectory that was slow to make for this reason is
//! made once more, somewhere else on the disk, and with it what will be put into it.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::fs::{AtFlags, IFlags, Mode};
use rustix::fs::{
    fstat, ioctl_getflags, ioctl_setflags, major, minor, mkdirat, renameat, unlinkat,
};
use rustix::io;
use rustix::time::{ClockId, clock_gettime};

/// Processor time above which making a directory tells of a crowd. Here ordinary ones take 40 µs,
/// 99 in a hundred less than 110; to pass over a thousand deleted inodes takes 150 more.
const CROWDED: Duration = Duration::from_micros(150);

/// Whether the file system of one tree behaves like that: looked up when it first matters.
#[derive(Debug, Default)]
pub(super) struct Crowding(OnceLock<bool>);

impl Crowding {
    /// Makes the empty directory `name` in `parent`, a directory of the tree. Says whether it was
    /// made elsewhere, for which the flags of `parent` were changed: then call [`gather`] in the end.
    pub(super) fn make_directory(&self, parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<bool> {
        let began = processor_time();
        mkdirat(parent, name, Mode::RWXU)?;
        if processor_time().saturating_sub(began) < CROWDED
            || !*self.0.get_or_init(|| passes_over_deleted(parent))
        {
            return Ok(false);
        }
        make_elsewhere(parent, name)
    }
}

/// Puts another directory in the place of the empty directory `name` in `parent`.
fn make_elsewhere(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<bool> {
    // With this flag ext4 chooses by a hash of the name, instead of staying near the parent.
    if add_flags(parent, IFlags::TOPDIR).is_err() {
        return Ok(false);
    }
    let other = format!(".{:016x}", fastrand::u64(..));
    // The one that is there will do, should another not be had.
    if mkdirat(parent, &other, Mode::RWXU).is_ok()
        && let Err(error) = renameat(parent, &other, parent, name)
    {
        unlinkat(parent, &other, AtFlags::REMOVEDIR)?;
        return Err(error);
    }
    Ok(true)
}

/// Gives a directory in which something was made elsewhere the flags back that it had.
pub(super) fn gather(directory: BorrowedFd<'_>) -> io::Result<()> {
    ioctl_setflags(directory, ioctl_getflags(directory)?.difference(IFlags::TOPDIR))
}

fn add_flags(directory: BorrowedFd<'_>, flags: IFlags) -> io::Result<()> {
    ioctl_setflags(directory, ioctl_getflags(directory)?.union(flags))
}

/// Whether `directory` lies on an ext4 without a journal.
fn passes_over_deleted(directory: BorrowedFd<'_>) -> bool {
    let Ok(stat) = fstat(directory.as_fd()) else { return false };
    let device = format!("/sys/dev/block/{}:{}", major(stat.st_dev), minor(stat.st_dev));
    // Where it leads is the device's own directory, of the name that ext4 knows it by.
    let journal_task = |device: PathBuf| {
        let name = device.file_name()?;
        std::fs::read_to_string(Path::new("/sys/fs/ext4").join(name).join("journal_task")).ok()
    };
    let task = std::fs::read_link(device).ok().and_then(journal_task);
    task.is_some_and(|task| task.trim() == "<none>")
}

/// What this thread has used of a processor. Unlike the time of day it does not pass while others
/// run or the disk is waited for.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs().try_into().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, OFlags, openat};
    use std::os::fd::OwnedFd;

    fn open(path: &Path) -> OwnedFd {
        openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap()
    }

    fn names(path: &Path) -> Vec<String> {
        let name = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name();
        path.read_dir().unwrap().map(|entry| name(entry).into_string().unwrap()).collect()
    }

    #[test]
    fn a_directory_made_elsewhere_has_the_place_of_the_first_one_and_leaves_no_flag() {
        let parent = tempfile::tempdir().unwrap();
        let fd = open(parent.path());
        if add_flags(fd.as_fd(), IFlags::empty()).is_err() {
            eprintln!("skipped: {} is on a file system without flags", parent.path().display());
            return;
        }
        let before = ioctl_getflags(&fd).unwrap();
        mkdirat(&fd, "name", Mode::RWXU).unwrap();
        let first = fstat(open(&parent.path().join("name"))).unwrap().st_ino;
        if make_elsewhere(fd.as_fd(), b"name").unwrap() {
            assert_ne!(fstat(open(&parent.path().join("name"))).unwrap().st_ino, first);
            gather(fd.as_fd()).unwrap();
        }
        assert_eq!(names(parent.path()), ["name"]);
        assert_eq!(ioctl_getflags(&fd).unwrap(), before);
    }

    #[test]
    fn what_is_in_the_way_is_an_error_and_stays() {
        let parent = tempfile::tempdir().unwrap();
        let fd = open(parent.path());
        std::fs::create_dir_all(parent.path().join("name/below")).unwrap();
        let crowding = Crowding::default();
        assert_eq!(crowding.make_directory(fd.as_fd(), b"name"), Err(io::Errno::EXIST));
        // Not empty, as nobody's would be: not replaced, and nothing is left of the attempt.
        if ioctl_getflags(&fd).is_ok_and(|_| add_flags(fd.as_fd(), IFlags::TOPDIR).is_ok()) {
            assert_eq!(make_elsewhere(fd.as_fd(), b"name"), Err(io::Errno::NOTEMPTY));
        }
        assert_eq!(names(parent.path()), ["name"]);
        assert_eq!(names(&parent.path().join("name")), ["below"]);
    }

    const CROWD: usize = 4_000;

    #[test]
    fn a_directory_is_made_away_from_what_was_just_deleted() {
        let parent = tempfile::tempdir().unwrap();
        let fd = open(parent.path());
        if !passes_over_deleted(fd.as_fd()) {
            eprintln!("skipped: {} is on no ext4 without a journal", parent.path().display());
            return;
        }
        let crowd = parent.path().join("crowd");
        std::fs::create_dir(&crowd).unwrap();
        for number in 0..CROWD {
            std::fs::write(crowd.join(number.to_string()), "").unwrap();
        }
        std::fs::remove_dir_all(&crowd).unwrap();
        // Inodes that were deleted in the very same second ext4 does take.
        std::thread::sleep(Duration::from_millis(1100));
        let began = processor_time();
        std::fs::create_dir(parent.path().join("slow")).unwrap();
        if processor_time() - began < CROWDED * 2 {
            eprintln!("skipped: the deleted files were somewhere else");
            return;
        }
        assert!(Crowding::default().make_directory(fd.as_fd(), b"name").unwrap());
        gather(fd.as_fd()).unwrap();
        assert_eq!(names(parent.path()).len(), 2);
    }
}
