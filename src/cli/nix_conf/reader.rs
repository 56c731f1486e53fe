//! Reads the keys in nix.conf, and where it says that certificates and passwords are.
//!
//! Lines count in their order: a setting replaces what was set before, one with `extra-` adds to it.
//! `include FILE` reads another file at that place, relative to the file it is in, and `!include` one
//! that may be missing. Neither reads what this user may not, such as a file of tokens for root, as in Nix.
//! Other settings and invalid lines are skipped.

use std::io;
use std::path::{Path, PathBuf};

use crate::cli::env;
use crate::cli::error::CliError;
use crate::cli::file_trust::{self, FileSelection, UnsafeFile};
use crate::trust::nix::OFFICIAL_KEY;

use super::places::NixConfPlaces;

/// The setting's name, and the one it had in old versions of Nix.
const NAMES: [&str; 2] = ["trusted-public-keys", "binary-cache-public-keys"];
/// What a name begins with to add to a setting.
const EXTRA: &str = "extra-";
/// The setting that names a file of trusted certificates.
const SSL_CERT_FILE: &str = "ssl-cert-file";
/// The setting that names a file of passwords.
const NETRC_FILE: &str = "netrc-file";
/// How deep files may include others; so files that include each other in a circle are an error.
const DEPTH_MAX: usize = 16;

/// Keys, and where they were set.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NixConfKeys {
    /// The file, or the variable.
    pub(crate) place: String,
    /// The keys, separated by blanks.
    pub(crate) list: String,
}

/// A file that a setting names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NixConfFile {
    /// Its absolute path.
    pub(crate) path: PathBuf,
    /// The setting and where it is, for messages.
    pub(crate) named_by: String,
}

/// What Nix's settings say of keys, certificates and passwords.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct NixConf {
    /// The lists that count together; `None` when the setting is nowhere.
    pub(crate) keys: Option<Vec<NixConfKeys>>,
    /// The file of trusted certificates, `ssl-cert-file`.
    pub(crate) ssl_cert_file: Option<NixConfFile>,
    /// The file of passwords, `netrc-file`.
    pub(crate) netrc_file: Option<NixConfFile>,
    /// Warnings about files that were ignored, because other users may change them. No key is
    /// trusted then.
    pub(crate) warnings: Vec<String>,
}

/// Reads what there is of `places`. `root` is the directory of the embedded store that the system's
/// file belongs to.
///
/// # Errors
/// A file is there, or has to be, and cannot be read.
pub(crate) fn read(places: &NixConfPlaces, root: Option<&Path>) -> Result<NixConf, CliError> {
    let mut reader = NixConfReader {
        root,
        conf: NixConf::default(),
    };
    for file in [&places.system].into_iter().chain(&places.user) {
        reader.read_file(file, FileReason::UsualPlace, DEPTH_MAX)?;
    }
    if let Some(text) = &places.variable {
        reader.read_text(text, Path::new(env::NIX_CONFIG), DEPTH_MAX)?;
    }

    let mut conf = reader.conf;
    if !conf.warnings.is_empty() {
        // What was ignored may have taken keys away.
        conf.keys = Some(Vec::new());
    }
    Ok(conf)
}

/// Why a file is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum FileReason {
    /// It is at a usual place.
    UsualPlace,
    /// `include` names it.
    Include,
    /// `!include` names it.
    OptionalInclude,
}

impl FileReason {
    /// Whether the file `path` is skipped, which could not be read.
    fn may_skip(self, path: &Path, error: &io::Error) -> bool {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => self != Self::Include,
            // A directory on its path may be closed to the user, such as the home of another one.
            io::ErrorKind::PermissionDenied => {
                self != Self::UsualPlace || path.symlink_metadata().is_err()
            }
            _ => false,
        }
    }
}

struct NixConfReader<'a> {
    root: Option<&'a Path>,
    conf: NixConf,
}

impl NixConfReader<'_> {
    fn read_file(
        &mut self,
        path: &Path,
        reason: FileReason,
        depth_left: usize,
    ) -> Result<(), CliError> {
        let Some(depth_left) = depth_left.checked_sub(1) else {
            let error = io::Error::other("files include each other too deeply");
            return Err(CliError::file("read", path)(error));
        };

        let text = match std::fs::read(path) {
            Ok(text) => text,
            Err(error) if reason.may_skip(path, &error) => return Ok(()),
            Err(error) => return Err(CliError::file("read", path)(error)),
        };

        match file_trust::check(path, self.root).map_err(CliError::file("read", path))? {
            Ok(()) => self.read_text(&String::from_utf8_lossy(&text), path, depth_left),
            Err(fault) => {
                self.ignore(path, &fault);
                Ok(())
            }
        }
    }

    /// Reads the settings in `text`, which is at `place`.
    fn read_text(&mut self, text: &str, place: &Path, depth_left: usize) -> Result<(), CliError> {
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default();
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                ["include", file] => {
                    self.read_file(&beside(place, file), FileReason::Include, depth_left)?;
                }
                ["!include", file] => {
                    self.read_file(
                        &beside(place, file),
                        FileReason::OptionalInclude,
                        depth_left,
                    )?;
                }
                _ => {
                    if let Some((name, value)) = line.split_once('=') {
                        self.set(name.trim(), value.trim(), place);
                    }
                }
            }
        }
        Ok(())
    }

    fn ignore(&mut self, path: &Path, fault: &UnsafeFile) {
        let warning = file_trust::warning("file", path, fault, FileSelection::Implicit);
        self.conf
            .warnings
            .push(format!("{warning}; until then no key is trusted"));
    }

    fn set(&mut self, name: &str, value: &str, place: &Path) {
        if name == SSL_CERT_FILE {
            self.conf.ssl_cert_file = named_file(name, value, place);
            return;
        }
        if name == NETRC_FILE {
            self.conf.netrc_file = named_file(name, value, place);
            return;
        }

        let keys = NixConfKeys {
            place: place.display().to_string(),
            list: value.to_owned(),
        };
        if NAMES.contains(&name) {
            self.conf.keys = Some(vec![keys]);
        } else if name
            .strip_prefix(EXTRA)
            .is_some_and(|name| NAMES.contains(&name))
        {
            self.conf.keys.get_or_insert_with(default_keys).push(keys);
        }
    }
}

/// The file that the setting `name` names; nothing, or a relative path, names none.
fn named_file(name: &str, path: &str, place: &Path) -> Option<NixConfFile> {
    path.starts_with('/').then(|| NixConfFile {
        path: path.into(),
        named_by: format!("{name} in {}", place.display()),
    })
}

fn default_keys() -> Vec<NixConfKeys> {
    vec![NixConfKeys {
        place: "the default".to_owned(),
        list: OFFICIAL_KEY.to_owned(),
    }]
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

    /// What the file `nix.conf` in `dir` says, without any other place.
    fn read_in(dir: &Path) -> Result<NixConf, CliError> {
        let places = NixConfPlaces {
            system: dir.join("nix.conf"),
            user: Vec::new(),
            variable: None,
        };
        read(&places, None)
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
        let lists = read_in(dir.path()).unwrap().keys?;
        let lists: Vec<&str> = lists.iter().map(|keys| &*keys.list).collect();
        Some(lists.join(" "))
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
        assert_eq!(
            keys("include = none.conf\ninclude more.conf"),
            official("more")
        );
        assert_eq!(
            keys("!include  more.conf\n!include none.conf"),
            official("more")
        );
    }

    #[test]
    fn the_last_line_names_the_file_of_certificates() {
        let dir = tempfile::tempdir().unwrap();
        let text = "ssl-cert-file = /a\nssl-cert-file = /b # c\n";
        write(dir.path(), "nix.conf", text, 0o644);
        let file = read_in(dir.path()).unwrap().ssl_cert_file.unwrap();
        let place = dir.path().join("nix.conf");
        let named_by = format!("ssl-cert-file in {}", place.display());
        assert_eq!((file.path, file.named_by), ("/b".into(), named_by));
        write(
            dir.path(),
            "nix.conf",
            &format!("{text}ssl-cert-file ="),
            0o644,
        );
        assert_eq!(read_in(dir.path()).unwrap().ssl_cert_file, None);
    }

    #[test]
    fn a_missing_or_circular_include_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read_in(dir.path()).unwrap(), NixConf::default());
        for text in ["include none.conf", "include nix.conf", "!include nix.conf"] {
            write(dir.path(), "nix.conf", text, 0o644);
            assert!(
                matches!(read_in(dir.path()), Err(CliError::File { .. })),
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
        let conf = read_in(dir.path()).unwrap();
        assert_eq!(conf.keys, Some(Vec::new()));
        assert!(
            conf.warnings[0].contains("more.conf is ignored: "),
            "{conf:?}"
        );
    }
}
