//! The name `guix`: started under it, the program serves `guix substitute` itself and becomes
//! the real guix for everything else.
//!
//! guix-daemon starts all its helpers by one name, `$GUIX`. The real guix gets the arguments,
//! the environment and the descriptors as they are, so this happens before anything else. One variable
//! is added. It counts how often this program has become the real guix in a process and its parents:
//! two programs that execute or start each other would do so for ever.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::env::{self, Environment};
use super::start_state;

/// The name that is served.
const GUIX: &str = "guix";
/// What is served under it.
const SUBSTITUTE: &str = "substitute";
/// This very program, whatever it was started as.
const OWN_EXECUTABLE: &str = "/proc/self/exe";
/// Where guix is when PATH does not say: a daemon may be started with nothing in it.
const USUAL_DIRECTORIES: [&str; 4] = [
    "/run/current-system/profile/bin",
    "/var/guix/profiles/per-user/root/current-guix/bin",
    "/usr/local/bin",
    "/usr/bin",
];

/// Why the real guix could not be executed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DispatchError {
    /// There is none but this program itself.
    #[error(
        "there is no other `guix` on PATH than this program; \
         {SUBST_REAL_GUIX} can name the real one",
        SUBST_REAL_GUIX = env::SUBST_REAL_GUIX
    )]
    NotFound,
    /// The setting leads back to this program.
    #[error("{SUBST_REAL_GUIX}: {} is this program itself", .0.display(), SUBST_REAL_GUIX = env::SUBST_REAL_GUIX)]
    Itself(PathBuf),
    /// The program that was executed as the real guix executes or starts this program.
    #[error(
        "the `guix` on PATH starts this program instead of the real guix; \
         {SUBST_REAL_GUIX} can name the real one",
        SUBST_REAL_GUIX = env::SUBST_REAL_GUIX
    )]
    Circle,
    /// It cannot be executed.
    #[error("executing {}", path.display())]
    Execute {
        /// The program.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The arguments to go by, for a program started with `arguments`: as they are, unless it was
/// started as `guix`. Does not return when the real guix takes over.
///
/// # Errors
/// The real guix is wanted and cannot be executed.
pub(crate) fn by_name(
    mut arguments: Vec<OsString>,
    environment: &Environment,
) -> Result<Vec<OsString>, DispatchError> {
    let name = arguments.first().map(Path::new).and_then(Path::file_name);
    if name != Some(OsStr::new(GUIX)) {
        return Ok(arguments);
    }

    if arguments
        .get(1)
        .is_some_and(|command| command == SUBSTITUTE)
    {
        arguments[0] = "subst".into();
        return Ok(arguments);
    }

    let dispatched = Dispatched::next(environment.text(env::SUBST_DISPATCHED))?;
    let path = real_guix(environment)?;
    let mut guix = Command::new(&path);
    guix.args(&arguments[1..])
        .env(env::SUBST_DISPATCHED, dispatched.to_string());
    let source = start_state::execute(&mut guix);
    Err(DispatchError::Execute { path, source })
}

/// A process that became the real guix: written `PROCESS/DEPTH` in a variable that its children
/// inherit.
struct Dispatched {
    process: u32,
    /// How many processes among its parents became the real guix too, and this one.
    depth: u32,
}

impl Dispatched {
    /// A guix may start another one, as `guix shell -- guix build` does, but not without end.
    const DEPTH_MAX: u32 = 32;

    /// This process, started with the variable's value `inherited`.
    ///
    /// # Errors
    /// It became the real guix before: the process stays the same when a program executes another
    /// one in its place. Or too many of its parents did.
    fn next(inherited: Option<&str>) -> Result<Self, DispatchError> {
        let process = std::process::id();
        let last = inherited.and_then(Self::parse);
        let depth = last.as_ref().map_or(0, |last| last.depth);
        if last.is_some_and(|last| last.process == process) || depth >= Self::DEPTH_MAX {
            return Err(DispatchError::Circle);
        }
        Ok(Self {
            process,
            depth: depth + 1,
        })
    }

    fn parse(text: &str) -> Option<Self> {
        let (process, depth) = text.split_once('/')?;
        Some(Self {
            process: process.parse().ok()?,
            depth: depth.parse().ok()?,
        })
    }
}

impl fmt::Display for Dispatched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.process, self.depth)
    }
}

fn real_guix(environment: &Environment) -> Result<PathBuf, DispatchError> {
    if let Some(path) = environment.path(env::SUBST_REAL_GUIX) {
        return if is_this_program(&path) {
            Err(DispatchError::Itself(path))
        } else {
            Ok(path)
        };
    }

    let from_path = environment
        .os("PATH")
        .map(std::env::split_paths)
        .into_iter()
        .flatten();
    from_path
        // A relative directory would run whatever `guix` the working directory has.
        .filter(|directory| directory.is_absolute())
        .chain(USUAL_DIRECTORIES.map(PathBuf::from))
        .map(|directory| directory.join(GUIX))
        .find(|path| is_executable(path) && !is_this_program(path))
        .ok_or(DispatchError::NotFound)
}

/// Whether `path` is, or leads to, a file that some user may execute.
pub(crate) fn is_executable(path: &Path) -> bool {
    const ANY_EXECUTE: u32 = 0o111;
    path.metadata()
        .is_ok_and(|found| found.is_file() && found.permissions().mode() & ANY_EXECUTE != 0)
}

/// Whether `path` is the program that is running, or a copy of it: two copies that each took
/// the other for the real guix would go on for ever.
fn is_this_program(path: &Path) -> bool {
    let (Ok(own), Ok(other)) = (Path::new(OWN_EXECUTABLE).metadata(), path.metadata()) else {
        return false;
    };
    is_same_file(&own, &other) || own.len() == other.len() && has_same_content(path)
}

fn is_same_file(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

fn has_same_content(path: &Path) -> bool {
    match (std::fs::read(OWN_EXECUTABLE), std::fs::read(path)) {
        (Ok(own), Ok(other)) => own == other,
        // What cannot be read may still be executed, and is not a copy that we know of.
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn words(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    #[test]
    fn only_the_name_guix_is_dispatched() {
        let nothing = Environment::default();
        let arguments = words(&["/usr/bin/subst", "gc"]);
        assert_eq!(by_name(arguments.clone(), &nothing).unwrap(), arguments);
        let served = by_name(words(&["/opt/guix", "substitute", "--query"]), &nothing).unwrap();
        assert_eq!(served, words(&["subst", "substitute", "--query"]));
    }

    #[test]
    fn the_next_guix_on_the_path_is_the_real_one() {
        let dir = tempfile::tempdir().unwrap();
        let own = std::env::current_exe().unwrap();
        let place = |name: &str| {
            let directory = dir.path().join(name);
            std::fs::create_dir(&directory).unwrap();
            directory.join("guix")
        };
        symlink(&own, place("symlink")).unwrap();
        std::fs::copy(&own, place("copy")).unwrap();
        std::fs::write(place("not-executable"), "#!/bin/sh\n").unwrap();
        let real = place("real");
        std::fs::write(&real, "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(&real, PermissionsExt::from_mode(0o755)).unwrap();
        let path = ["symlink", "copy", "missing", "not-executable", "real"]
            .map(|name| dir.path().join(name).display().to_string())
            .join(":");
        let environment = Environment::with([("PATH", format!(".::{path}").as_str())]);
        assert_eq!(real_guix(&environment).unwrap(), real);
    }

    #[test]
    fn the_real_guix_is_never_this_program() {
        let own = std::env::current_exe().unwrap();
        let own = own.to_str().unwrap();
        let environment = Environment::with([(env::SUBST_REAL_GUIX, own)]);
        assert!(matches!(
            real_guix(&environment),
            Err(DispatchError::Itself(_))
        ));
    }
}
