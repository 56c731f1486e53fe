//! Which file is the program that the user means.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::cli::dispatch::is_executable;
use crate::cli::output::printable;
use crate::cli::program_error::ProgramError;
use crate::cli::shell_command::quoted;
use crate::format::store_path::StorePath;

/// The directories of an item's programs, those that a profile has on `PATH`.
const PROGRAM_DIRECTORIES: [&str; 2] = ["bin", "sbin"];

/// What the user has said about the program.
pub(super) struct ProgramChoice<'a> {
    /// The item's directory, or the item itself if it is a file, at its place in the store.
    pub(super) directory: PathBuf,
    /// The item.
    pub(super) item: &'a StorePath,
    /// The program's name or file, if one was given.
    pub(super) program: Option<&'a OsStr>,
    /// The file that was named together with the item, or nothing.
    pub(super) file: &'a str,
}

impl ProgramChoice<'_> {
    /// The program's file.
    ///
    /// # Errors
    /// There is none, or there are several.
    pub(super) fn choose(&self) -> Result<PathBuf, ProgramError> {
        let path = match self.program {
            Some(name) if is_plain(name) => self.named(name)?,
            // An absolute name stands for itself.
            Some(path) => self.directory.join(path),
            None if !self.file.is_empty() => self.directory.join(self.file),
            None => self.default()?,
        };

        unless_absent(&path, path.metadata().map(|_| ()))?;
        if is_executable(&path) {
            Ok(path)
        } else {
            Err(ProgramError::NotExecutable(path))
        }
    }

    /// The program's file as far as it is known of the item, which is `in_store` and not in its place
    /// yet, as a word of a shell.
    pub(super) fn probable_name(&self, in_store: &Path) -> String {
        let path = match self.program {
            Some(name) if is_plain(name) => self.directory.join(PROGRAM_DIRECTORIES[0]).join(name),
            Some(path) => self.directory.join(path),
            None if !self.file.is_empty() => self.directory.join(self.file),
            None if in_store.is_file() => self.directory.clone(),
            None => self.directory.join(PROGRAM_DIRECTORIES[0]).join("PROGRAM"),
        };
        quoted(&path.to_string_lossy())
    }

    /// The program `name` of the item.
    fn named(&self, name: &OsStr) -> Result<PathBuf, ProgramError> {
        for directory in self.program_directories() {
            let path = directory.join(name);
            if unless_absent(&path, path.try_exists())? {
                return Ok(path);
            }
        }
        Err(ProgramError::Unknown {
            item: self.item_name(),
            name: name.to_string_lossy().into_owned(),
            programs: self.shown_programs(),
        })
    }

    /// The item itself if it is a file, its only program, or the one with its name: in the first directory
    /// that has any.
    fn default(&self) -> Result<PathBuf, ProgramError> {
        if self.directory.is_file() {
            return Ok(self.directory.clone());
        }

        let mut programs = Vec::new();
        for directory in self.program_directories() {
            if programs.is_empty() {
                programs = programs_in(&directory)?;
            }
        }
        let unversioned = OsStr::new(without_version(self.item.name()));
        match &programs[..] {
            [] => Err(ProgramError::NoPrograms(self.item_name())),
            [only] => self.named(only),
            several if several.iter().any(|name| name == unversioned) => self.named(unversioned),
            _ => Err(ProgramError::Several {
                item: self.item_name(),
                programs: self.shown_programs(),
            }),
        }
    }

    fn program_directories(&self) -> impl Iterator<Item = PathBuf> {
        PROGRAM_DIRECTORIES.iter().map(|it| self.directory.join(it))
    }

    fn item_name(&self) -> String {
        self.directory.display().to_string()
    }

    /// The names of the item's programs, for a message.
    fn shown_programs(&self) -> Vec<String> {
        let programs = self
            .program_directories()
            .filter_map(|it| programs_in(&it).ok());
        // One of the directories may be a link to the other one.
        let programs: BTreeSet<OsString> = programs.flatten().collect();
        let programs = programs.iter().map(|name| name.to_string_lossy());
        programs.map(|name| printable(&name).into_owned()).collect()
    }
}

/// Whether `name` is that of a program, and not a path.
fn is_plain(name: &OsStr) -> bool {
    !name.as_encoded_bytes().contains(&b'/')
}

/// The executable files in `directory`, in the order of their names: without hidden ones, which are what
/// wrappers run.
fn programs_in(directory: &Path) -> Result<Vec<OsString>, ProgramError> {
    let entries = unless_absent(directory, directory.read_dir().map(Some))?;
    let programs = entries.into_iter().flatten().flatten().filter(|entry| {
        !entry.file_name().as_encoded_bytes().starts_with(b".") && is_executable(&entry.path())
    });
    let mut names: Vec<OsString> = programs.map(|entry| entry.file_name()).collect();
    names.sort_unstable();
    Ok(names)
}

/// What was found at `path`; the default if there is nothing.
fn unless_absent<T: Default>(path: &Path, found: io::Result<T>) -> Result<T, ProgramError> {
    match found {
        Err(source)
            if !matches!(
                source.kind(),
                ErrorKind::NotFound | ErrorKind::NotADirectory
            ) =>
        {
            Err(ProgramError::Unreadable {
                path: path.to_owned(),
                source,
            })
        }
        found => Ok(found.unwrap_or_default()),
    }
}

/// The name of a package: what comes before the first hyphen that a digit follows.
fn without_version(name: &str) -> &str {
    let version = name
        .match_indices('-')
        .find(|(at, _)| name[at + 1..].starts_with(|c: char| c.is_ascii_digit()));
    version.map_or(name, |(at, _)| &name[..at])
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const BASE: &str = "2fbf4kpwxg6i81i5ai6h7y8gr3vzd62g-hello-world-2.12";

    /// Creates `path`, an executable file.
    fn write_program(path: &Path) {
        std::fs::write(path, "").unwrap();
        std::fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }

    /// The file name of what is chosen in an item with these programs, those of mode 0644 with a `!` before
    /// their name; or the error.
    fn chosen(programs: &[&str], program: Option<&str>, file: &str) -> Result<String, String> {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join(BASE);
        std::fs::create_dir_all(directory.join("bin")).unwrap();
        std::fs::create_dir_all(directory.join("libexec")).unwrap();
        for name in programs {
            match name.strip_prefix('!') {
                Some(name) => std::fs::write(directory.join("bin").join(name), "").unwrap(),
                None => write_program(&directory.join("bin").join(name)),
            }
        }
        write_program(&directory.join("libexec/helper"));

        let item = StorePath::parse(BASE).unwrap();
        let choice = ProgramChoice {
            directory: directory.clone(),
            item: &item,
            program: program.map(OsStr::new),
            file,
        };
        let path = choice.choose().map_err(|error| format!("{error:?}"))?;
        let inside = path.strip_prefix(&directory).unwrap_or(&path);
        Ok(inside.display().to_string())
    }

    #[test]
    fn the_default_is_the_only_program_or_the_one_with_the_name_of_the_item() {
        for (programs, expected) in [
            (&["other"][..], "bin/other"),
            (&["other", "!data", ".hello-world-real"], "bin/other"),
            (&["hello", "hello-world", "other"], "bin/hello-world"),
        ] {
            assert_eq!(
                chosen(programs, None, "").unwrap(),
                expected,
                "{programs:?}"
            );
        }
        let none = chosen(&["!data", ".hidden"], None, "").unwrap_err();
        assert!(none.starts_with("NoPrograms"), "{none}");
        let several = chosen(&["b", "a"], None, "").unwrap_err();
        assert!(several.ends_with(r#"programs: ["a", "b"] }"#), "{several}");
    }

    #[test]
    fn a_program_is_named_by_its_name_or_its_file() {
        let programs = &["a", "b", "!data"];
        let elsewhere = std::env::current_exe().unwrap();
        let elsewhere = elsewhere.to_str().unwrap();
        for (program, file, expected) in [
            (Some("b"), "", "bin/b"),
            (Some("b"), "bin/a", "bin/b"),
            (None, "bin/a", "bin/a"),
            (Some("libexec/helper"), "", "libexec/helper"),
            (None, "libexec/helper", "libexec/helper"),
            (Some(elsewhere), "", elsewhere),
        ] {
            assert_eq!(chosen(programs, program, file).unwrap(), expected);
        }
        for (program, expected) in [
            ("c", r#"name: "c", programs: ["a", "b"]"#),
            ("data", "NotExecutable"),
            ("", "NotExecutable"),
            ("libexec/nothing", "NotExecutable"),
            ("/", "NotExecutable"),
        ] {
            let error = chosen(programs, Some(program), "").unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    /// As of `iproute2`, whose programs are in `sbin`.
    #[test]
    fn programs_are_also_in_sbin() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join(BASE);
        let item = StorePath::parse(BASE).unwrap();
        let choose = |program: Option<&str>| {
            let choice = ProgramChoice {
                directory: directory.clone(),
                item: &item,
                program: program.map(OsStr::new),
                file: "",
            };
            let path = choice.choose().map_err(|error| format!("{error:?}"))?;
            Ok::<_, String>(path.strip_prefix(&directory).unwrap().display().to_string())
        };
        std::fs::create_dir_all(directory.join("sbin")).unwrap();
        write_program(&directory.join("sbin/daemon"));
        assert_eq!(choose(None).unwrap(), "sbin/daemon");
        assert_eq!(choose(Some("daemon")).unwrap(), "sbin/daemon");

        std::fs::create_dir(directory.join("bin")).unwrap();
        for name in ["daemon", "client"] {
            write_program(&directory.join("bin").join(name));
        }
        write_program(&directory.join("sbin/admin"));
        assert_eq!(choose(Some("daemon")).unwrap(), "bin/daemon");
        let listed = r#"["admin", "client", "daemon"]"#;
        assert!(choose(None).unwrap_err().contains(listed));
        std::fs::remove_file(directory.join("bin/daemon")).unwrap();
        assert_eq!(choose(None).unwrap(), "bin/client");
    }

    /// Links in a circle stand for what a user may not read: they hold for root, too.
    #[test]
    fn what_cannot_be_read_is_not_taken_for_an_item_without_programs() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join(BASE);
        let item = StorePath::parse(BASE).unwrap();
        std::fs::create_dir_all(&directory).unwrap();
        std::os::unix::fs::symlink("bin", directory.join("bin")).unwrap();
        for (program, file, unreadable) in [
            (None, "", "bin"),
            (Some("hello"), "", "bin/hello"),
            (Some("bin/hello"), "", "bin/hello"),
            (None, "bin/hello", "bin/hello"),
        ] {
            let choice = ProgramChoice {
                directory: directory.clone(),
                item: &item,
                program: program.map(OsStr::new),
                file,
            };
            let error = choice.choose().unwrap_err();
            let expected = format!("cannot read {}", directory.join(unreadable).display());
            assert_eq!(error.to_string(), expected);
            assert!(std::error::Error::source(&error).is_some());
        }
    }

    #[test]
    fn an_item_that_is_a_file_is_the_program() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join(BASE);
        write_program(&directory);
        let item = StorePath::parse(BASE).unwrap();
        let choice = ProgramChoice {
            directory: directory.clone(),
            item: &item,
            program: None,
            file: "",
        };
        assert_eq!(choice.choose().unwrap(), directory);
    }

    #[test]
    fn a_version_begins_with_a_digit() {
        for (name, expected) in [
            ("hello-2.12", "hello"),
            ("hello", "hello"),
            ("git-minimal-2.41.0-send-email", "git-minimal"),
            ("7zip-23.01", "7zip"),
            ("x-", "x-"),
        ] {
            assert_eq!(without_version(name), expected);
        }
    }
}
