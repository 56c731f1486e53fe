//! Whether a file is safe: other users may not change it.
//!
//! Settings files, ACLs and nix.conf decide whose signatures are accepted. A file is safe when only
//! root and the user who runs this program can change it: they own it and every directory and
//! symlink on its path, and no other user may write there. For root, other users include the
//! file's group. A directory with the sticky bit may be open to all, because only the owner of an
//! entry can replace it. In `/gnu/store` and `/nix/store`, whose owner provides every program
//! anyway, that owner is accepted as well.
//!
//! Only owners and permission bits are read: POSIX ACLs show up in the bits of the group.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fmt;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

use crate::format::store_path::StoreDir;

/// How a file was selected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileSelection {
    /// An option or a variable names it: it is used, with a warning if it is not safe.
    Explicit,
    /// It is at a default place, or a settings file names it: it is used only if it is safe.
    Implicit,
}

/// Why a file is not safe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UnsafeFile {
    /// The file itself, or a directory or symlink on the way to it.
    path: PathBuf,
    fault: FileFault,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FileFault {
    /// It belongs to this user.
    Owner(u32),
    /// Others may write to it; its mode and its owner.
    Mode { mode: u32, owner: u32 },
}

impl fmt::Display for UnsafeFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.path.display(), self.fault)
    }
}

impl fmt::Display for FileFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Owner(uid) => write!(f, "is owned by user {uid}"),
            Self::Mode { mode, .. } => write!(f, "is writable by other users (mode {mode:04o})"),
        }
    }
}

impl UnsafeFile {
    /// What makes it safe: a command between backquotes, and who has to run it.
    #[must_use]
    pub(crate) fn remedy(&self) -> String {
        let path = super::shell_command::quoted(&self.path.display().to_string());
        let user = rustix::process::geteuid();
        let (command, is_allowed) = match self.fault {
            FileFault::Owner(_) => (format!("chown root {path}"), user.is_root()),
            FileFault::Mode { owner, .. } => (
                format!("chmod go-w {path}"),
                user.is_root() || user.as_raw() == owner,
            ),
        };
        match is_allowed {
            true => format!("`{command}`"),
            false => format!("`{command}`, run as root,"),
        }
    }
}

/// What to tell the user about the file `path`, a `what`, which is not safe because of `fault`.
#[must_use]
pub(crate) fn warning(
    what: &str,
    path: &Path,
    fault: &UnsafeFile,
    selection: FileSelection,
) -> String {
    let reason = match fault.path == path {
        true => format!("it {}", fault.fault),
        false => fault.to_string(),
    };
    let (path, remedy) = (path.display(), fault.remedy());
    match selection {
        FileSelection::Explicit => format!(
            "the {what} {path} is not safe: {reason}, so other users may decide which keys are \
             trusted; {remedy} makes it safe"
        ),
        FileSelection::Implicit => format!(
            "the {what} {path} is ignored: {reason}, so other users could decide which keys are \
             trusted; {remedy} makes it safe"
        ),
    }
}

/// The users whose changes are accepted.
#[derive(Debug, Clone)]
struct AcceptedWriters {
    owners: Vec<u32>,
    /// The owner that is shown for users who do not exist in this user namespace. Directories of
    /// the system belong to it in a container of an ordinary user.
    unmapped: Option<u32>,
    /// Permission bits that other users may not have.
    forbidden: u32,
}

impl AcceptedWriters {
    fn by_this_process() -> Self {
        let uid = rustix::process::geteuid();
        Self {
            owners: vec![0, uid.as_raw()],
            unmapped: unmapped_owner(),
            forbidden: if uid.is_root() { 0o022 } else { 0o002 },
        }
    }

    fn check_owner(&self, path: &Path, found: &Metadata) -> Result<(), UnsafeFile> {
        let is_mapped_away = found.is_dir() && self.unmapped == Some(found.uid());
        if self.owners.contains(&found.uid()) || is_mapped_away {
            return Ok(());
        }
        Err(UnsafeFile {
            path: path.to_owned(),
            fault: FileFault::Owner(found.uid()),
        })
    }

    fn check_mode(&self, path: &Path, found: &Metadata) -> Result<(), UnsafeFile> {
        const STICKY: u32 = 0o1000;
        let mode = found.permissions().mode() & 0o7777;
        let is_sticky = found.is_dir() && mode & STICKY != 0;
        if mode & self.forbidden == 0 || is_sticky {
            return Ok(());
        }
        Err(UnsafeFile {
            path: path.to_owned(),
            fault: FileFault::Mode {
                mode,
                owner: found.uid(),
            },
        })
    }
}

/// Looks at the file `path`. If it is in `root`, the directory of an embedded store, the way to
/// `root` does not matter, and its owner is accepted: who can replace the store needs no key.
///
/// # Errors
/// The file is not there, or cannot be looked at.
pub(crate) fn check(path: &Path, root: Option<&Path>) -> io::Result<Result<(), UnsafeFile>> {
    let mut accepted = AcceptedWriters::by_this_process();
    let path = std::path::absolute(path)?;
    let mut at = PathBuf::from("/");
    let mut rest: VecDeque<OsString> = match root.and_then(|root| path.strip_prefix(root).ok()) {
        Some(inside) => {
            at = root.unwrap_or(Path::new("/")).to_owned();
            accepted.owners.push(at.metadata()?.uid());
            names(inside)
        }
        None => names(&path),
    };

    let mut links_left = LINKS_MAX;
    while let Some(name) = rest.pop_front() {
        if name == ".." {
            at.pop();
            continue;
        }

        let next = at.join(&name);
        let found = next.symlink_metadata()?;
        if is_store(&next) && found.is_dir() {
            accepted.owners.push(found.uid());
        }

        if let Err(fault) = accepted.check_owner(&next, &found) {
            return Ok(Err(fault));
        }
        if found.is_symlink() {
            links_left -= 1;
            if links_left == 0 {
                return Err(io::Error::from(rustix::io::Errno::LOOP));
            }
            let target = next.read_link()?;
            if target.is_absolute() {
                at = PathBuf::from("/");
            }
            names(&target)
                .into_iter()
                .rev()
                .for_each(|name| rest.push_front(name));
            continue;
        }

        if let Err(fault) = accepted.check_mode(&next, &found) {
            return Ok(Err(fault));
        }

        at = next;
    }
    Ok(Ok(()))
}

/// As many as Linux follows.
const LINKS_MAX: usize = 40;

fn names(path: &Path) -> VecDeque<OsString> {
    let names = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    names.collect()
}

fn is_store(path: &Path) -> bool {
    [StoreDir::GUIX, StoreDir::NIX]
        .iter()
        .any(|store| path == Path::new(store))
}

/// The owner of what belongs to users who do not exist in this user namespace; `None` in one
/// where all exist.
fn unmapped_owner() -> Option<u32> {
    let map = std::fs::read_to_string("/proc/self/uid_map").ok()?;

    let numbers: Vec<&str> = map.split_whitespace().collect();
    if numbers == ["0", "0", "4294967295"] {
        return None;
    }
    std::fs::read_to_string("/proc/sys/kernel/overflowuid")
        .ok()?
        .trim()
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, chown, symlink};

    use super::*;

    fn is_root() -> bool {
        rustix::process::geteuid().is_root()
    }

    fn chmod(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    /// A directory, and a file in a subdirectory of it.
    fn place() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let sub = dir.path().join("sub");
        std::fs::create_dir(&sub).unwrap();
        chmod(&sub, 0o755);
        let file = sub.join("acl");
        std::fs::write(&file, "").unwrap();
        chmod(&file, 0o644);
        (dir, file)
    }

    fn fault(path: &Path) -> Option<String> {
        check(path, None)
            .unwrap()
            .err()
            .map(|fault| fault.to_string())
    }

    #[test]
    fn what_others_may_write_is_not_safe() {
        let (_dir, file) = place();
        assert_eq!(fault(&file), None);
        chmod(&file, 0o646);
        let found = check(&file, None).unwrap().unwrap_err();
        let name = file.display();
        assert_eq!(
            found.to_string(),
            format!("{name} is writable by other users (mode 0646)")
        );
        assert_eq!(found.remedy(), format!("`chmod go-w {name}`"));
        chmod(&file, 0o664);
        assert_eq!(
            fault(&file).is_some(),
            is_root(),
            "a group is trusted by ordinary users"
        );
        chmod(&file, 0o444);
        assert_eq!(fault(&file), None);
    }

    #[test]
    fn a_directory_that_others_may_write_is_not_safe_unless_sticky() {
        let (_dir, file) = place();
        let sub = file.parent().unwrap();
        chmod(sub, 0o777);
        assert!(
            fault(&file)
                .unwrap()
                .starts_with(&format!("{} is writable", sub.display()))
        );
        chmod(sub, 0o1777);
        assert_eq!(fault(&file), None);
    }

    #[test]
    fn links_are_followed_step_by_step() {
        let (dir, file) = place();
        let link = dir.path().join("link");
        symlink("sub/../sub/acl", &link).unwrap();
        assert_eq!(fault(&link), None);
        chmod(&file, 0o666);
        assert!(fault(&link).unwrap().contains("sub/acl is writable"));
        let around = dir.path().join("around");
        symlink("around", &around).unwrap();
        assert!(check(&around, None).is_err());
        let missing = check(&dir.path().join("none"), None).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn what_another_user_owns_is_not_safe() {
        if !is_root() {
            eprintln!("skipped: only root can give files away");
            return;
        }
        let (dir, file) = place();
        let link = dir.path().join("link");
        symlink(&file, &link).unwrap();
        chown(&file, Some(12345), None).unwrap();
        let found = check(&link, None).unwrap().unwrap_err();
        assert_eq!(
            found.to_string(),
            format!("{} is owned by user 12345", file.display())
        );
        assert_eq!(found.remedy(), format!("`chown root {}`", file.display()));
        chown(&file, Some(0), None).unwrap();
        chown(file.parent().unwrap(), Some(12345), None).unwrap();
        assert!(
            fault(&link)
                .unwrap()
                .ends_with("sub is owned by user 12345")
        );
        chown(file.parent().unwrap(), Some(0), None).unwrap();
        std::os::unix::fs::lchown(&link, Some(12345), None).unwrap();
        assert!(
            fault(&link)
                .unwrap()
                .ends_with("link is owned by user 12345")
        );
    }

    #[test]
    fn files_of_the_owner_of_an_embedded_store_are_safe() {
        let (dir, file) = place();
        chmod(dir.path(), 0o777);
        let root = file.parent().unwrap();
        assert!(check(&file, None).unwrap().is_err());
        assert_eq!(check(&file, Some(root)).unwrap(), Ok(()));
        chmod(&file, 0o666);
        assert!(check(&file, Some(root)).unwrap().is_err());
        if is_root() {
            chmod(&file, 0o644);
            chown(root, Some(12345), None).unwrap();
            chown(&file, Some(12345), None).unwrap();
            assert_eq!(check(&file, Some(root)).unwrap(), Ok(()));
            chown(&file, Some(12346), None).unwrap();
            assert!(check(&file, Some(root)).unwrap().is_err());
        }
    }
}
