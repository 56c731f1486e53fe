//! The keys that nix.conf names, found as Nix finds them.
//!
//! Lines count in their order: a setting replaces what was set before, one with `extra-` adds to it.
//! `include FILE` reads another file at that place, relative to the file it is in, and `!include` one
//! that may be missing. Nothing but keys is looked for.

use std::io;
use std::path::{Path, PathBuf};

use crate::trust::nix::OFFICIAL_KEY;

use super::error::CliError;
use super::file_trust::{self, FileSelection, UnsafeFile};

/// The setting's name, and the one it had in old versions of Nix.
const NAMES: [&str; 2] = ["trusted-public-keys", "binary-cache-public-keys"];
/// What a name begins with to add to a setting.
const EXTRA: &str = "extra-";
/// How deep files may include others.
const DEPTH_MAX: usize = 16;

/// What nix.conf and the files it includes say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct NixConf {
    /// The keys, separated by blanks; `None` when none of the files has the setting.
    pub(crate) keys: Option<String>,
    /// Warnings about files that were ignored, because other users may change them. No key is
    /// trusted then.
    pub(crate) warnings: Vec<String>,
}

/// Reads the file `path`, if there is one. `root` is the directory of the embedded store that it
/// belongs to.
///
/// # Errors
/// A file is there, or has to be, and cannot be read.
pub(crate) fn read(path: &Path, root: Option<&Path>) -> Result<NixConf, CliError> {
    let mut reader = NixConfReader {
        root,
        conf: NixConf::default(),
    };
    reader.read(path, IfMissing::Ignore, DEPTH_MAX)?;

    let mut conf = reader.conf;
    if !conf.warnings.is_empty() {
        // What was ignored may have taken keys away.
        conf.keys = Some(String::new());
    }
    Ok(conf)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum IfMissing {
    Ignore,
    Fail,
}

struct NixConfReader<'a> {
    root: Option<&'a Path>,
    conf: NixConf,
}

impl NixConfReader<'_> {
    fn read(
        &mut self,
        path: &Path,
        if_missing: IfMissing,
        depth_left: usize,
    ) -> Result<(), CliError> {
        let Some(depth_left) = depth_left.checked_sub(1) else {
            let error = io::Error::other("files include each other too deeply");
            return Err(CliError::file("reading", path)(error));
        };

        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if is_absent(&error) && if_missing == IfMissing::Ignore => return Ok(()),
            Err(error) => return Err(CliError::file("reading", path)(error)),
        };

        if let Err(fault) =
            file_trust::check(path, self.root).map_err(CliError::file("reading", path))?
        {
            self.ignore(path, &fault);
            return Ok(());
        }

        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default();
            if let Some((name, value)) = line.split_once('=') {
                self.set(name.trim(), value.trim());
                continue;
            }
            let words: Vec<&str> = line.split_whitespace().collect();
            let (included, if_missing) = match words[..] {
                ["include", file] => (file, IfMissing::Fail),
                ["!include", file] => (file, IfMissing::Ignore),
                _ => continue,
            };
            self.read(&beside(path, included), if_missing, depth_left)?;
        }
        Ok(())
    }

    fn ignore(&mut self, path: &Path, fault: &UnsafeFile) {
        let warning = file_trust::warning("file", path, fault, FileSelection::Implicit);
        self.conf
            .warnings
            .push(format!("{warning}; until then no key is trusted"));
    }

    fn set(&mut self, name: &str, value: &str) {
        if NAMES.contains(&name) {
            self.conf.keys = Some(value.to_owned());
        } else if name
            .strip_prefix(EXTRA)
            .is_some_and(|name| NAMES.contains(&name))
        {
            let keys = self
                .conf
                .keys
                .get_or_insert_with(|| OFFICIAL_KEY.to_owned());
            keys.push(' ');
            keys.push_str(value);
        }
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

fn beside(path: &Path, included: &str) -> PathBuf {
    path.parent().unwrap_or(Path::new("/")).join(included)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn write(dir: &Path, name: &str, text: &str, mode: u32) {
        std::fs::write(dir.join(name), text).unwrap();
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(dir.join(name), mode).unwrap();
    }

    fn keys(text: &str) -> Option<String> {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "nix.conf", text, 0o644);
        write(
            dir.path(),
            "more.conf",
            "extra-trusted-public-keys = more",
            0o644,
        );
        read(&dir.path().join("nix.conf"), None).unwrap().keys
    }

    #[test]
    fn settings_replace_and_extra_ones_add_in_the_order_of_lines() {
        let official = |more: &str| Some(format!("{OFFICIAL_KEY} {more}"));
        assert_eq!(keys("sandbox = true # trusted-public-keys = a"), None);
        assert_eq!(keys("trusted-public-keys = a b"), Some("a b".into()));
        assert_eq!(keys("binary-cache-public-keys = a"), Some("a".into()));
        assert_eq!(keys("trusted-public-keys ="), Some(String::new()));
        let extra = "extra-trusted-public-keys = a\nextra-binary-cache-public-keys = b";
        assert_eq!(keys(extra), official("a b"));
        assert_eq!(
            keys(&format!("{extra}\ntrusted-public-keys = c")),
            Some("c".into())
        );
        assert_eq!(
            keys(&format!("trusted-public-keys = c\n{extra}")),
            Some("c a b".into())
        );
        assert_eq!(keys("include more.conf"), official("more"));
        assert_eq!(
            keys("!include  more.conf\n!include none.conf"),
            official("more")
        );
    }

    #[test]
    fn a_missing_or_circular_include_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let conf = dir.path().join("nix.conf");
        assert_eq!(read(&conf, None).unwrap(), NixConf::default());
        for text in ["include none.conf", "include nix.conf"] {
            write(dir.path(), "nix.conf", text, 0o644);
            assert!(
                matches!(read(&conf, None), Err(CliError::File { .. })),
                "{text}"
            );
        }
    }

    #[test]
    fn without_a_file_that_others_may_change_no_key_is_trusted() {
        let dir = tempfile::tempdir().unwrap();
        write(
            dir.path(),
            "nix.conf",
            "trusted-public-keys = a\n!include more.conf",
            0o644,
        );
        write(dir.path(), "more.conf", "", 0o666);
        let conf = read(&dir.path().join("nix.conf"), None).unwrap();
        assert_eq!(conf.keys, Some(String::new()));
        assert!(
            conf.warnings[0].contains("more.conf is ignored: "),
            "{conf:?}"
        );
    }
}
