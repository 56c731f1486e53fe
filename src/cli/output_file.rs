//! A file that a command writes besides its output: complete or not at all, and nowhere that a link of
//! another user leads.

use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind, Read as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, statat, unlinkat};
use rustix::io::Errno;

use crate::no_follow;

use super::error::CliError;
use super::file_trust;
use super::process::mode_of_caller_files;

/// The place for a file, which is replaced in one step.
pub(crate) struct OutputFile {
    path: PathBuf,
    directory: OwnedFd,
    name: OsString,
}

impl OutputFile {
    /// Opens the directory of `path`; the file itself is not touched. Errors are found here, before work
    /// is done whose result could not be written.
    ///
    /// # Errors
    /// There is no such directory; or `path` is something else than a file, such as a link or a device, which
    /// would be replaced.
    pub(crate) fn open(path: &Path) -> Result<Self, CliError> {
        Self::open_to("write", path)
    }

    /// The same, to do what `action` says; errors name that.
    ///
    /// # Errors
    /// As for [`OutputFile::open`].
    pub(crate) fn open_to(action: &'static str, path: &Path) -> Result<Self, CliError> {
        let open = || -> io::Result<Self> {
            let name = path.file_name().ok_or(ErrorKind::IsADirectory)?.to_owned();
            let directory = open_directory(directory_of(path))?;
            check_kind(&directory, &name)?;
            let path = path.to_owned();
            Ok(Self {
                path,
                directory,
                name,
            })
        };
        open().map_err(CliError::output_file(action, path))
    }

    /// The directory that the file is written to, also if another one has its name by now.
    pub(crate) fn directory(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.directory.as_raw_fd()))
    }

    /// The first `max_bytes` of the file; `None` if it does not exist.
    ///
    /// # Errors
    /// Those of the system calls, or it is not text.
    pub(crate) fn read(&self, max_bytes: u64) -> Result<Option<String>, CliError> {
        let mut text = String::new();
        let opened = no_follow::open_file(self.directory.as_fd(), &self.name);
        match opened.and_then(|file| file.take(max_bytes).read_to_string(&mut text)) {
            Ok(_) => Ok(Some(text)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(CliError::output_file("read", &self.path)(error)),
        }
    }

    /// Removes the file.
    ///
    /// # Errors
    /// Those of the system call.
    pub(crate) fn remove(&self) -> Result<(), CliError> {
        unlinkat(&self.directory, &self.name, AtFlags::empty())
            .map_err(|error| CliError::output_file("remove", &self.path)(error.into()))
    }

    /// Writes the file; its readers see the old contents or the new ones. A file that is there keeps its
    /// permissions, and a new one follows the umask of the caller.
    ///
    /// # Errors
    /// Those of the system calls; the old file is as it was.
    pub(crate) fn write(&self, contents: &str) -> Result<(), CliError> {
        let (directory, contents) = (self.directory.as_fd(), contents.as_bytes());
        no_follow::replace_file(directory, &self.name, contents, mode_of_caller_files())
            .map_err(CliError::output_file("write", &self.path))
    }
}

/// The directory that `path` is in.
pub(crate) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Opens `directory`. Root does not follow links in directories that other users can change. In a directory
/// of another user it writes: the new file has a name that no other user can guess, and its rename follows no link,
/// so that whatever is done there meanwhile changes only what that user could change anyway.
pub(crate) fn open_directory(directory: &Path) -> io::Result<OwnedFd> {
    if !rustix::process::geteuid().is_root() {
        return no_follow::open_directory(directory, directory);
    }

    let directory = std::path::absolute(directory)?;
    let mut prefixes = directory.ancestors();
    let is_safe = |prefix: &&Path| matches!(file_trust::check(prefix, None), Ok(Ok(())));
    let base = prefixes.find(is_safe).unwrap_or(Path::new("/"));
    no_follow::open_directory(base, &directory)
}

/// Checks that there is a file or nothing.
fn check_kind(directory: &OwnedFd, name: &OsStr) -> io::Result<()> {
    match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Ok(()),
            FileType::Symlink => Err(io::Error::other(
                "it is a symbolic link, which is not followed",
            )),
            _ => Err(io::Error::other("it is not a regular file")),
        },
        Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn write(path: &Path, contents: &str) -> Result<(), CliError> {
        OutputFile::open(path)?.write(contents)
    }

    #[test]
    fn a_file_is_replaced_in_one_step() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("report.html");
        for contents in ["one", "two"] {
            write(&path, contents).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), contents);
        }
        assert_eq!(dir.path().read_dir().unwrap().count(), 1);
    }

    #[test]
    fn only_files_are_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("theirs"), "precious").unwrap();
        symlink("theirs", path("link")).unwrap();
        symlink("missing", path("dangling")).unwrap();
        std::fs::create_dir(path("directory")).unwrap();
        for name in ["link", "dangling", "directory", "no/such", "theirs/x", ".."] {
            assert!(write(&path(name), "x").is_err(), "{name}");
        }
        assert!(write(Path::new("/dev/null"), "x").is_err());
        assert_eq!(std::fs::read_to_string(path("theirs")).unwrap(), "precious");
        assert!(!path("missing").exists());
        assert_eq!(dir.path().read_dir().unwrap().count(), 4);
    }

    #[test]
    fn root_writes_to_a_directory_of_another_user_and_follows_no_link_there() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: only root can give directories away");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let theirs = dir.path().join("theirs");
        let ours = dir.path().join("ours");
        for directory in [&theirs, &ours] {
            std::fs::create_dir(directory).unwrap();
        }
        symlink(&ours, theirs.join("link")).unwrap();
        std::fs::write(ours.join("precious"), "precious").unwrap();
        symlink(ours.join("precious"), theirs.join("page")).unwrap();
        std::os::unix::fs::chown(&theirs, Some(12345), Some(12345)).unwrap();

        for contents in ["one", "two"] {
            write(&theirs.join("file"), contents).unwrap();
            let found = std::fs::read_to_string(theirs.join("file")).unwrap();
            assert_eq!(found, contents);
        }
        // A link that appears after the file was opened is replaced.
        let opened = OutputFile::open(&theirs.join("late")).unwrap();
        symlink(ours.join("precious"), theirs.join("late")).unwrap();
        opened.write("x").unwrap();

        assert!(write(&theirs.join("page"), "x").is_err());
        assert!(write(&theirs.join("link/file"), "x").is_err());
        let precious = std::fs::read_to_string(ours.join("precious")).unwrap();
        assert_eq!(precious, "precious");
        assert_eq!(ours.read_dir().unwrap().count(), 1);
    }
}
