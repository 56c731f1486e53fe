//! Why a program of an item cannot be run, and what the user can do.

use std::io;
use std::path::{Path, PathBuf};

use rustix::process::geteuid;

use crate::namespace::NamespaceError;

use super::advice::Advice;
use super::exit::Exit;
use super::output::shown_path;
use super::shell_command::quoted;

/// Why a program of an item cannot be run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProgramError {
    /// The item is not valid, or its tree is missing.
    #[error("{item} is not in the store{}", place_of(store.as_deref()))]
    NotInStore {
        /// The item, by its full name.
        item: String,
        /// The directory of the store, if it is not the system's.
        store: Option<PathBuf>,
    },
    /// The item has no program that could be the default.
    #[error("{0} has no programs: no executable file is in its directories `bin` and `sbin`")]
    NoPrograms(String),
    /// The item has several programs, and none has its name.
    #[error("{item} has {} programs", programs.len())]
    Several {
        /// The item, by its full name.
        item: String,
        /// The names of its programs.
        programs: Vec<String>,
    },
    /// The item has no program of that name.
    #[error("{item} has no program `{}`", name.escape_debug())]
    Unknown {
        /// The item, by its full name.
        item: String,
        /// What was asked for.
        name: String,
        /// The names of its programs.
        programs: Vec<String>,
    },
    /// The file cannot be executed by its kind or its mode.
    #[error("{} is not an executable file", shown_path(.0))]
    NotExecutable(PathBuf),
    /// It is not known whether there is such a file.
    #[error("cannot read {}", shown_path(path))]
    Unreadable {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The store cannot be put at its place.
    #[error(
        "cannot run a program with {} at {}",
        shown_path(store),
        shown_path(place)
    )]
    Namespace {
        /// Where the store is.
        store: PathBuf,
        /// Where its programs expect it.
        place: PathBuf,
        /// The program, as far as it is known.
        program: String,
        /// Why.
        source: NamespaceError,
    },
    /// The system does not execute it.
    #[error("cannot execute {}", shown_path(path))]
    Execute {
        /// The program.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What helps where an item has no programs.
const NAME_A_FILE: &str =
    "name a file of it, such as libexec/NAME; another output of the package may have its programs";

/// Where an embedded store is, for a message.
fn place_of(store: Option<&Path>) -> String {
    store.map_or_else(String::new, |store| format!(" below {}", shown_path(store)))
}

impl ProgramError {
    /// How the run ends.
    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::NotInStore { .. } => Exit::NotAvailable,
            Self::NoPrograms(_)
            | Self::Several { .. }
            | Self::Unknown { .. }
            | Self::NotExecutable(_) => Exit::Usage,
            Self::Unreadable { .. } | Self::Namespace { .. } | Self::Execute { .. } => Exit::Local,
        }
    }

    /// What the user can do.
    pub(super) fn hint(&self, advice: &Advice) -> Option<String> {
        match self {
            Self::NotInStore { item, .. } => {
                Some(format!("`{}` fetches it", advice.fetch(item)))
            }
            Self::NoPrograms(_) => Some(NAME_A_FILE.to_owned()),
            Self::Several { programs, .. } => Some(format!("name one of {}", listed(programs))),
            Self::Unknown { programs, .. } if programs.is_empty() => Some(NAME_A_FILE.to_owned()),
            Self::Unknown { programs, .. } => Some(format!("it has {}", listed(programs))),
            Self::Namespace {
                store,
                place,
                program,
                source,
            } => without_namespace(store, place, program, source),
            Self::Execute { path, source } => is_interpreter_missing(path, source).then(|| {
                "the file is there; the interpreter that it names is neither in the store nor on this \
                 machine"
                    .to_owned()
            }),
            Self::NotExecutable(_) | Self::Unreadable { .. } => None,
        }
    }
}

/// Whether a file is there, and executing it fails because another one is not.
fn is_interpreter_missing(path: &Path, error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound && path.exists()
}

/// What allows namespaces, and what does the same without them.
fn without_namespace(
    store: &Path,
    place: &Path,
    program: &str,
    error: &NamespaceError,
) -> Option<String> {
    let [from, to, above] =
        [store, place, place.parent().unwrap_or(place)].map(|path| quoted(&shown_path(path)));
    let mut ways: Vec<String> = error.remedy().into_iter().map(str::to_owned).collect();
    if error.is_about_privileges() {
        let user = if geteuid().is_root() { "" } else { "as root, " };
        ways.push(format!(
            "{user}`mkdir -p {above} && ln -s {from} {to}` needs no namespace"
        ));
        ways.push(format!(
            "`proot -b {from}:{to} {program}` needs none either"
        ));
        ways.push(format!(
            "`bwrap $(for d in /*; do echo --dev-bind $d $d; done) --bind {from} {to} {program}` \
             works where bwrap may make one"
        ));
    }
    (!ways.is_empty()).then(|| ways.join("\n        "))
}

/// Names for a message, in one line.
fn listed(names: &[String]) -> String {
    const NAMES_MAX: usize = 20;
    let mut text = names[..names.len().min(NAMES_MAX)].join(", ");
    if let Some(more) = names.len().checked_sub(NAMES_MAX).filter(|more| *more > 0) {
        text.push_str(&format!(" and {more} more"));
    }
    text
}
