//! The mounts of a namespace: the store at its place, and everything else as it was.

use std::ffi::OsStr;
use std::fs::{DirEntry, File, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Component, Path};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use rustix::process::{chdir, pivot_root};

use super::error::StepError;

/// Where this process is, when its working directory is what is meant.
const HERE: &str = ".";
const ROOT: &str = "/";
/// Flags of the root directory in memory, where nothing but directories is.
const EMPTY_FILE_SYSTEM: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV);

/// What [`Mounts::make`] makes.
pub(super) struct Mounts<'a> {
    /// The directory of the store.
    pub(super) store: &'a Path,
    /// Where it has to be.
    pub(super) place: &'a Path,
    /// Where the process is before and afterwards.
    pub(super) working_directory: &'a Path,
}

impl Mounts<'_> {
    /// Puts the store at its place, in the process's own mount namespace.
    ///
    /// # Errors
    /// A mount is refused, or a directory cannot be read.
    pub(super) fn make(&self) -> Result<(), StepError> {
        let all = Path::new(ROOT);
        set_flags(all, MsFlags::MS_SLAVE | MsFlags::MS_REC)
            .map_err(StepError::on("separate the mounts below", all))?;

        if self.place.is_dir() {
            bind(self.store, self.place)
        } else {
            self.replace_root()
        }
    }

    /// Replaces the root directory. The new one is mounted on the store's directory until it is complete:
    /// that one exists, and its contents can still be reached as the working directory. It must not appear
    /// in what is bound to itself, hence unbindable.
    fn replace_root(&self) -> Result<(), StepError> {
        let found = self.store.canonicalize();
        let new = found.map_err(StepError::on("find", self.store))?;
        chdir(&new).map_err(StepError::on("change to", &new))?;
        mount_empty(&new).map_err(StepError::on("mount a file system on", &new))?;
        let place: Vec<&OsStr> = self.place.components().filter_map(normal).collect();
        fill(&new, Path::new(ROOT), &place)?;

        // The old root directory is on top of the new one until it is unmounted.
        chdir(&new).map_err(StepError::on("change to", &new))?;
        pivot_root(HERE, HERE).map_err(StepError::of("replace the root directory"))?;
        umount2(HERE, MntFlags::MNT_DETACH)
            .map_err(StepError::of("leave the old root directory"))?;

        protect_root().map_err(StepError::of("make the root directory read-only"))?;
        let directory = self.working_directory;
        chdir(directory).map_err(StepError::on("change to the working directory", directory))
    }
}

/// Mounts an empty file system on `directory`.
fn mount_empty(directory: &Path) -> nix::Result<()> {
    let options = Some("mode=0755");
    mount(
        None::<&str>,
        directory,
        Some("tmpfs"),
        EMPTY_FILE_SYSTEM,
        options,
    )?;
    set_flags(directory, MsFlags::MS_UNBINDABLE)
}

/// Makes the new root directory read-only, because it is lost with the program. It can be bound again, as
/// other programs that make namespaces do.
fn protect_root() -> nix::Result<()> {
    let root = Path::new(ROOT);
    set_flags(root, MsFlags::MS_PRIVATE)?;
    let read_only = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    set_flags(root, read_only | EMPTY_FILE_SYSTEM)
}

/// Makes in the directory `new` what is in `old`, with the working directory at the path `place` below.
fn fill(new: &Path, old: &Path, place: &[&OsStr]) -> Result<(), StepError> {
    let Some((first, rest)) = place.split_first() else {
        return bind(Path::new(HERE), new);
    };

    let entries = match old.read_dir() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        other => Some(other.map_err(StepError::on("read", old))?),
    };
    for entry in entries.into_iter().flatten() {
        let entry = entry.map_err(StepError::on("read", old))?;
        if entry.file_name() != *first {
            copy_entry(&entry, &new.join(entry.file_name()))?;
        }
    }

    let directory = new.join(first);
    make_directory(&directory)?;
    fill(&directory, &old.join(first), rest)
}

/// Makes `entry` appear at `new`, with all that is mounted below it.
fn copy_entry(entry: &DirEntry, new: &Path) -> Result<(), StepError> {
    let old = entry.path();
    let kind = entry.file_type().map_err(StepError::on("read", &old))?;
    if kind.is_symlink() {
        let copied = old.read_link().and_then(|target| symlink(target, new));
        return copied.map_err(StepError::on("copy the link", &old));
    }

    if kind.is_dir() {
        make_directory(new)?;
    } else {
        File::create(new).map_err(StepError::on("make a place for", &old))?;
    }
    bind(&old, new)
}

/// Makes a directory that every user may enter, whatever the umask is.
fn make_directory(path: &Path) -> Result<(), StepError> {
    let made = std::fs::create_dir(path)
        .and_then(|()| std::fs::set_permissions(path, Permissions::from_mode(0o755)));
    made.map_err(StepError::on("make the directory", path))
}

/// Makes `old` appear at `new`, with all that is mounted below it.
fn bind(old: &Path, new: &Path) -> Result<(), StepError> {
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(old), new, None::<&str>, flags, None::<&str>)
        .map_err(StepError::on("mount something on", new))
}

/// Changes the propagation or the flags of the mount at `path`.
fn set_flags(path: &Path, flags: MsFlags) -> nix::Result<()> {
    mount(None::<&str>, path, None::<&str>, flags, None::<&str>)
}

/// A component that is a name.
fn normal(component: Component<'_>) -> Option<&OsStr> {
    match component {
        Component::Normal(name) => Some(name),
        _ => None,
    }
}
