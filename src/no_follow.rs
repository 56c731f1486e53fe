//! Directories and files in places that other users may be able to write to, reached without
//! following symbolic links.
//!
//! A user names a *base*, such as the directory of `--root`; links in its own name are followed.
//! Below it another user may have put a link where this program is about to create, replace or lock
//! a file, and the file that the link leads to would be changed with the rights of this process. So
//! below a base no link is followed: by the kernel (`openat2`), or one component at a time where
//! that call is missing or forbidden.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::fs::{chmodat, fchmod, fchown, fstat, mkdirat, open, openat, openat2};
use rustix::fs::{renameat, statat, symlinkat, unlinkat};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};

mod ownership;

pub(crate) use ownership::Owner;

/// Opens the directory `path`, which is `base` or below it.
///
/// # Errors
/// It is missing or no directory, or there is a link in its name below `base`.
pub(crate) fn open_directory(base: &Path, path: &Path) -> io::Result<OwnedFd> {
    let (base, below) = split(base, path);
    if below.as_os_str().is_empty() {
        return Ok(open(base, DIRECTORY, Mode::empty())?);
    }

    // The sandbox allows to read the directory, not all those above it.
    let directory = open(base, PASSED_DIRECTORY, Mode::empty())?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let opened = match openat2(&directory, below, DIRECTORY, Mode::empty(), resolve) {
        // Older kernels and sandboxes do not have the call.
        Err(Errno::NOSYS | Errno::PERM | Errno::AGAIN) => open_by_components(directory, below),
        opened => opened,
    };
    opened.map_err(explained)
}

/// Opens the directory `path`, which is `base` or below it, after creating what is missing of it.
///
/// # Errors
/// Those of [`open_directory`], or a directory cannot be created.
pub(crate) fn create_directory(base: &Path, path: &Path) -> io::Result<OwnedFd> {
    match open_directory(base, path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        opened => return opened,
    }

    let (base, below) = split(base, path);
    create_base(base)?;
    let mut directory = open(base, PASSED_DIRECTORY, Mode::empty())?;
    for component in below.components() {
        let name = normal(component)?;
        match make_directory(&directory, name) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        directory = open_component(&directory, name, PASSED_DIRECTORY).map_err(explained)?;
    }
    open_directory(base, path)
}

/// Makes the directory `name` in `parent`. What others may do is up to the umask, or a default ACL;
/// the owner always has access, or the directory could not be used.
///
/// # Errors
/// Those of the system calls.
pub(crate) fn make_directory(parent: impl AsFd, name: impl AsRef<Path>) -> rustix::io::Result<()> {
    new_directory(parent.as_fd(), name.as_ref()).map(drop)
}

/// The same; if root makes it in a directory of another user, it is given to that user.
///
/// # Errors
/// Those of the system calls.
pub(crate) fn make_directory_for_owner(
    parent: impl AsFd,
    name: impl AsRef<Path>,
) -> rustix::io::Result<()> {
    let directory = new_directory(parent.as_fd(), name.as_ref())?;
    Owner::of(parent)?.map_or(Ok(()), |owner| owner.adopt(directory))
}

fn new_directory(parent: BorrowedFd<'_>, name: &Path) -> rustix::io::Result<OwnedFd> {
    mkdirat(parent, name, Mode::from_raw_mode(0o755))?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = openat(parent, name, flags, Mode::empty())?;
    give_owner_access(&directory)?;
    Ok(directory)
}

/// Makes the symbolic link `name` to `target` in `parent`; if root makes it in a directory of another user, it is
/// given to that user.
///
/// # Errors
/// Those of the system calls.
pub(crate) fn make_link_for_owner(
    target: &str,
    parent: impl AsFd,
    name: &str,
) -> rustix::io::Result<()> {
    symlinkat(target, &parent, name)?;
    let Some(owner) = Owner::of(&parent)? else {
        return Ok(());
    };
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let link = openat(parent, name, flags, Mode::empty())?;
    // The owner may have put something else there.
    match FileType::from_raw_mode(fstat(&link)?.st_mode).is_symlink() {
        true => owner.adopt(link),
        false => Ok(()),
    }
}

/// Gives the owner of `directory` access to it, whatever has its name by now.
fn give_owner_access(directory: &OwnedFd) -> rustix::io::Result<()> {
    let found = Mode::from_raw_mode(fstat(directory)?.st_mode);
    if found.contains(Mode::RWXU) {
        return Ok(());
    }

    let path = format!("/proc/self/fd/{}", directory.as_raw_fd());
    chmodat(CWD, path, found | Mode::RWXU, AtFlags::empty())
}

/// Opens the file `name` of `directory` to read and write it, after creating it, for its owner
/// alone, if it is missing.
///
/// # Errors
/// It is a link, or cannot be created or opened.
pub(crate) fn open_or_create_file(
    directory: BorrowedFd<'_>,
    name: impl AsRef<Path>,
) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(directory, name.as_ref(), flags, Mode::RUSR | Mode::WUSR);
    Ok(File::from(file.map_err(explained)?))
}

/// The same; if root creates the file in a directory of another user, it is given to that user. One that is there already
/// may be a file that the user has moved there, and stays as it is.
///
/// # Errors
/// As for [`open_or_create_file`].
pub(crate) fn open_or_create_file_for_owner(
    directory: BorrowedFd<'_>,
    name: impl AsRef<Path>,
) -> io::Result<File> {
    let Some(owner) = Owner::of(directory)? else {
        return open_or_create_file(directory, name);
    };
    loop {
        match owner.create_file(directory, name.as_ref()) {
            Err(Errno::EXIST) => {}
            created => return created.map_err(explained),
        }
        // It may be removed meanwhile, and must not be created as root's.
        match open_file_to_write(directory, name.as_ref()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            opened => return opened,
        }
    }
}

/// Opens the file `name` of `directory` to read and write it.
///
/// # Errors
/// It is missing or a link, or cannot be opened.
pub(crate) fn open_file_to_write(
    directory: BorrowedFd<'_>,
    name: impl AsRef<Path>,
) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(directory, name.as_ref(), flags, Mode::empty());
    Ok(File::from(file.map_err(explained)?))
}

/// Opens the file `name` of `directory` to read it.
///
/// # Errors
/// It is missing or a link, or cannot be opened.
pub(crate) fn open_file(directory: BorrowedFd<'_>, name: impl AsRef<Path>) -> io::Result<File> {
    // A FIFO of that name must not stop the program.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = openat(directory, name.as_ref(), flags, Mode::empty());
    Ok(File::from(file.map_err(explained)?))
}

/// Creates the file `name` of `directory` with `contents`. Who may read it is up to the umask.
///
/// # Errors
/// `AlreadyExists`: there is something of that name, which is left as it is; or the file cannot be
/// written, and is removed.
pub(crate) fn create_file(
    directory: BorrowedFd<'_>,
    name: &OsStr,
    contents: &[u8],
) -> io::Result<()> {
    create_file_like(directory, name, contents, None, FOR_ALL)
}

/// The mode of a file that every user may read.
pub(crate) const FOR_ALL: Mode = Mode::from_bits_truncate(0o644);

/// The same with the permissions of the file `old`, or else with this mode.
fn create_file_like(
    directory: BorrowedFd<'_>,
    name: &OsStr,
    contents: &[u8],
    old: Option<&Stat>,
    mode: Mode,
) -> io::Result<()> {
    let mode = if old.is_some() {
        Mode::RUSR | Mode::WUSR
    } else {
        mode
    };
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(openat(directory, name, flags, mode)?);

    let permitted = old.map_or(Ok(()), |old| take_permissions(&file, old));
    let written = permitted
        .map_err(io::Error::from)
        .and_then(|()| file.write_all(contents))
        .and_then(|()| file.sync_all());
    if written.is_err() {
        let _ = unlinkat(directory, name, AtFlags::empty());
    }
    written
}

/// The hexadecimal digits at the end of a temporary name.
const TEMPORARY_DIGITS: usize = 16;

/// The name of the file that one with the name `temporary` was going to [replace](replace_file).
pub(crate) fn name_to_replace(temporary: &str) -> Option<&str> {
    let (name, digits) = temporary.rsplit_once('.')?;
    let is_number = digits
        .bytes()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    (digits.len() == TEMPORARY_DIGITS && is_number).then_some(name)
}

/// Replaces the file `name` of `directory`, or creates it, in one step: its readers see the old
/// contents or the new ones. Who may read and write it stays as it is; a new file has the mode `new_mode`, as
/// far as the umask allows. A link of that name is replaced, not followed.
///
/// # Errors
/// The new file cannot be written or renamed; the old one is as it was.
pub(crate) fn replace_file(
    directory: BorrowedFd<'_>,
    name: &OsStr,
    contents: &[u8],
    new_mode: Mode,
) -> io::Result<()> {
    // No other user can guess the name and have something there before.
    let mut temporary = name.to_owned();
    temporary.push(format!(
        ".{:0width$x}",
        fastrand::u64(..),
        width = TEMPORARY_DIGITS
    ));

    let old = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).ok();
    let old = old.filter(|old| FileType::from_raw_mode(old.st_mode) == FileType::RegularFile);
    create_file_like(directory, &temporary, contents, old.as_ref(), new_mode)?;
    let renamed = renameat(directory, &temporary, directory, name);
    if renamed.is_err() {
        let _ = unlinkat(directory, &temporary, AtFlags::empty());
    }
    Ok(renamed?)
}

/// Gives the new `file` the permissions of the `old` one, as far as this user may: what cannot have the old
/// group gives no group access. Bits for programs are not taken over.
fn take_permissions(file: &File, old: &Stat) -> rustix::io::Result<()> {
    let mut mode = Mode::from_raw_mode(old.st_mode) & (Mode::RWXU | Mode::RWXG | Mode::RWXO);
    let new = fstat(file)?;
    if new.st_gid != old.st_gid && fchown(file, None, Some(Gid::from_raw(old.st_gid))).is_err() {
        mode -= Mode::RWXG;
    }
    fchmod(file, mode)?;

    if new.st_uid != old.st_uid {
        // Only root may do it; to others, the file is as new.
        let _ = fchown(file, Some(Uid::from_raw(old.st_uid)), None);
    }
    Ok(())
}

/// The name without links of an open directory, which was opened as `path`: for libraries that take
/// names and are told to follow no links in them.
///
/// # Errors
/// The directory was removed.
pub(crate) fn real_path(directory: BorrowedFd<'_>, path: &Path) -> io::Result<PathBuf> {
    std::fs::read_link(format!("/proc/self/fd/{}", directory.as_raw_fd()))
        .or_else(|_| path.canonicalize())
}

/// The base, and `path` without it; what is not below its base is a base of its own.
fn split<'a>(base: &'a Path, path: &'a Path) -> (&'a Path, &'a Path) {
    match path.strip_prefix(base) {
        Ok(below) => (base, below),
        Err(_) => (path, Path::new("")),
    }
}

fn open_by_components(mut directory: OwnedFd, below: &Path) -> rustix::io::Result<OwnedFd> {
    let mut components = below.components().peekable();
    while let Some(component) = components.next() {
        let flags = match components.peek() {
            Some(_) => PASSED_DIRECTORY,
            None => DIRECTORY,
        };
        directory = open_component(&directory, normal(component)?, flags)?;
    }
    Ok(directory)
}

/// Opens the directory `name` of `parent`; `ELOOP` when it is a link.
fn open_component(parent: &OwnedFd, name: &OsStr, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    match openat(parent, name, flags | OFlags::NOFOLLOW, Mode::empty()) {
        Err(Errno::NOTDIR) if is_link(parent, name) => Err(Errno::LOOP),
        opened => opened,
    }
}

fn is_link(parent: &OwnedFd, name: &OsStr) -> bool {
    statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink)
}

/// A component that leads down.
fn normal(component: Component<'_>) -> rustix::io::Result<&OsStr> {
    match component {
        Component::Normal(name) => Ok(name),
        _ => Err(Errno::INVAL),
    }
}

/// Creates the base itself and its missing parents: links in its name are followed.
fn create_base(base: &Path) -> io::Result<()> {
    if base.as_os_str().is_empty() || base.is_dir() {
        return Ok(());
    }
    if let Some(parent) = base.parent() {
        create_base(parent)?;
    }
    match make_directory(CWD, base) {
        Err(_) if base.is_dir() => Ok(()),
        made => Ok(made?),
    }
}

/// Says what `ELOOP` means here.
fn explained(error: Errno) -> io::Error {
    if error == Errno::LOOP {
        return io::Error::other("there is a symbolic link in its name, which is not followed");
    }
    error.into()
}

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

/// A directory that only leads to others.
const PASSED_DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    use super::*;

    /// A base with the directory `a/b`, and the link `a/link` to a directory beside the base.
    fn base() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path().join("base");
        std::fs::create_dir_all(base.join("a/b")).unwrap();
        std::fs::create_dir(directory.path().join("outside")).unwrap();
        symlink("../../outside", base.join("a/link")).unwrap();
        (directory, base)
    }

    fn assert_is_refused<T: std::fmt::Debug>(result: io::Result<T>) {
        let error = result.unwrap_err();
        assert!(error.to_string().contains("symbolic link"), "{error}");
    }

    #[test]
    fn a_temporary_name_ends_with_a_number() {
        let digits = "00ff00ff00ff00ff";
        for (name, expected) in [
            (format!("a.narinfo.{digits}"), Some("a.narinfo")),
            (format!("a.{digits}0"), None),
            (format!("a{digits}"), None),
            ("a.00ff00ff00ff00f+".to_owned(), None),
            ("a.00ff00ff00ff00FF".to_owned(), None),
        ] {
            assert_eq!(name_to_replace(&name), expected, "{name}");
        }
        let number = format!("{:0width$x}", u64::MAX, width = TEMPORARY_DIGITS);
        assert_eq!(number.len(), TEMPORARY_DIGITS);
    }

    #[test]
    fn directories_are_opened_without_links_below_the_base() {
        let (directory, base) = base();
        open_directory(&base, &base).unwrap();
        open_directory(&base, &base.join("a/b")).unwrap();
        assert_is_refused(open_directory(&base, &base.join("a/link")));

        let linked = directory.path().join("linked");
        symlink(&base, &linked).unwrap();
        let opened = open_directory(&linked, &linked.join("a/b")).unwrap();
        assert_eq!(
            real_path(opened.as_fd(), &linked).unwrap(),
            base.join("a/b")
        );
    }

    #[test]
    fn a_kernel_without_openat2_refuses_the_same() {
        let (_directory, base) = base();
        let open_below = |below: &str| {
            let directory = open(&base, DIRECTORY, Mode::empty()).unwrap();
            open_by_components(directory, Path::new(below))
        };
        open_below("a/b").unwrap();
        assert_eq!(open_below("a/link").unwrap_err(), Errno::LOOP);
        assert_eq!(open_below("a/link/x").unwrap_err(), Errno::LOOP);
        assert_eq!(open_below("a/../a").unwrap_err(), Errno::INVAL);
    }

    #[test]
    fn directories_are_created_below_the_base_alone() {
        let (directory, base) = base();
        let new = directory.path().join("new/base");
        create_directory(&new, &new.join("x/y")).unwrap();
        assert!(new.join("x/y").is_dir());

        create_directory(&base, &base.join("a/b/c")).unwrap();
        assert!(base.join("a/b/c").is_dir());
        assert_is_refused(create_directory(&base, &base.join("a/link/c")));
        symlink("nowhere", base.join("dangling")).unwrap();
        assert_is_refused(create_directory(&base, &base.join("dangling/c")));
        let outside = directory.path().join("outside").read_dir().unwrap();
        assert_eq!(outside.count(), 0);
    }

    #[test]
    fn access_is_given_to_a_new_directory_and_not_to_what_takes_its_place() {
        let parent = tempfile::tempdir().unwrap();
        let path = |name: &str| parent.path().join(name);
        let mode = |name: &str| path(name).metadata().unwrap().permissions().mode() & 0o777;
        for name in ["new", "theirs"] {
            std::fs::create_dir(path(name)).unwrap();
            std::fs::set_permissions(path(name), Permissions::from_mode(0o050)).unwrap();
        }

        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = open(path("new"), flags, Mode::empty()).unwrap();
        std::fs::rename(path("new"), path("moved")).unwrap();
        symlink("theirs", path("new")).unwrap();
        give_owner_access(&opened).unwrap();
        assert_eq!((mode("moved"), mode("theirs")), (0o750, 0o050));

        // A link that is there is no new directory.
        assert_eq!(make_directory(CWD, path("new")), Err(Errno::EXIST));
        assert_eq!(mode("theirs"), 0o050);
    }

    /// The owner makes a lock and removes it all the time.
    #[test]
    fn root_never_makes_a_file_that_the_owner_of_the_directory_cannot_open() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: only root makes files for others");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        std::os::unix::fs::chown(directory.path(), Some(12345), Some(12346)).unwrap();
        let opened = open_directory(directory.path(), directory.path()).unwrap();

        let is_done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_done.load(std::sync::atomic::Ordering::Relaxed) {
                    std::fs::write(path("made"), "").unwrap();
                    std::os::unix::fs::chown(path("made"), Some(12345), Some(12346)).unwrap();
                    std::fs::rename(path("made"), path("lock")).unwrap();
                    let _ = std::fs::remove_file(path("lock"));
                }
            });
            let foreign = (0..10_000).find_map(|_| {
                let file = open_or_create_file_for_owner(opened.as_fd(), "lock").ok()?;
                let user = file.metadata().unwrap().uid();
                let _ = std::fs::remove_file(path("lock"));
                (user != 12345).then_some(user)
            });
            is_done.store(true, std::sync::atomic::Ordering::Relaxed);
            assert_eq!(foreign, None);
        });
    }

    #[test]
    fn a_link_is_replaced_and_never_followed() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let opened = open_directory(directory.path(), directory.path()).unwrap();
        std::fs::write(path("theirs"), "precious").unwrap();
        for name in ["link", "dangling"] {
            let target = if name == "link" { "theirs" } else { "missing" };
            symlink(target, path(name)).unwrap();
            assert_is_refused(open_or_create_file(opened.as_fd(), name));
            assert_is_refused(open_file(opened.as_fd(), name));
            assert_is_refused(open_file_to_write(opened.as_fd(), name));
            let created = create_file(opened.as_fd(), name.as_ref(), b"x");
            assert_eq!(created.unwrap_err().kind(), io::ErrorKind::AlreadyExists);

            replace_file(opened.as_fd(), name.as_ref(), b"new", FOR_ALL).unwrap();
            assert!(path(name).symlink_metadata().unwrap().is_file());
            assert_eq!(std::fs::read(path(name)).unwrap(), b"new");
        }
        assert_eq!(std::fs::read(path("theirs")).unwrap(), b"precious");
        let names = directory.path().read_dir().unwrap().count();
        assert_eq!(names, 3, "no temporary file is left");
    }

    #[test]
    fn a_replaced_file_keeps_its_permissions() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let opened = open_directory(directory.path(), directory.path()).unwrap();
        let replace = || replace_file(opened.as_fd(), "file".as_ref(), b"new", FOR_ALL).unwrap();
        for mode in [0o600, 0o644, 0o4755, 0o664] {
            std::fs::write(&path, "old").unwrap();
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            replace();
            let found = path.metadata().unwrap().permissions().mode() & 0o7777;
            assert_eq!(found, mode & 0o777, "{found:o}");
            assert_eq!(std::fs::read(&path).unwrap(), b"new");
        }

        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: only root can give files away");
            return;
        }
        std::os::unix::fs::chown(&path, Some(12345), Some(12346)).unwrap();
        replace();
        let found = path.metadata().unwrap();
        assert_eq!((found.uid(), found.gid()), (12345, 12346));
        assert_eq!(found.permissions().mode() & 0o7777, 0o664);
    }
}
