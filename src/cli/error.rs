//! Why a command could not be carried out, what that means, and what the user can do.

use std::io;
use std::path::PathBuf;

use crate::daemon::serve::ServeError;
use crate::http::{HttpError, HttpErrorClass};
use crate::lookup_cache::CacheError;
use crate::sandbox::SandboxError;
use crate::store::StoreError;
use crate::substitute::closure::PlanError;
use crate::substitute::install::ItemError;
use crate::substitute::lookup::ResolveError;
use crate::trust::acl::AclError;
use crate::trust::policy::PolicyFault;

use super::advice::Advice;
use super::exit::Exit;
use super::file_trust::UnsafeFile;
use super::item_argument::ItemArgumentError;
use super::item_hint::{item_hint, output_hint};
use super::output::{bytes, shown_path};
use super::program_error::ProgramError;
use super::settings::SettingsError;
use super::shell_command::quoted;
use super::store_hint::store_hint;

/// A command that failed as a whole.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// A setting is wrong.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// An argument does not name a store item.
    #[error(transparent)]
    ItemArgument(#[from] ItemArgumentError),
    /// A list of items, of this name, is empty.
    #[error("{0} has no name of a store item")]
    NoItems(String),
    /// The list of servers is empty.
    #[error("no substitute server is configured")]
    NoServers,
    /// The arguments do not go together.
    #[error("{0}")]
    Usage(String),
    /// The command cannot do what was wanted.
    #[error("{what}")]
    Misuse {
        /// What it cannot do, and why.
        what: String,
        /// What does it.
        hint: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The lookup of the items ended without a result.
    #[error(transparent)]
    Lookup(#[from] ResolveError),
    /// The ACL is invalid. Going on without it would refuse everything.
    #[error("the ACL {} is invalid", shown_path(path))]
    Acl {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: AclError,
    },
    /// Other users may change the ACL, and it was not named explicitly.
    #[error("the ACL {} is not safe: {fault}", shown_path(path))]
    UnsafeAcl {
        /// The file.
        path: PathBuf,
        /// Why.
        fault: UnsafeFile,
    },
    /// A key is invalid.
    #[error("{what}")]
    Key {
        /// Which.
        what: String,
        /// What is wrong with it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Other users may read or change a secret key.
    #[error(
        "the key {} is not secret: it is owned by user {owner} and has mode {mode:04o}",
        shown_path(path)
    )]
    ExposedKey {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// Its owner.
        owner: u32,
    },
    /// A server or a file has another key than the requested one.
    #[error("{source_name} has another key: its fingerprint is {found}, not {wanted}")]
    OtherKey {
        /// Where the key comes from.
        source_name: String,
        /// Its fingerprint.
        found: String,
        /// The requested one.
        wanted: String,
    },
    /// The policy and the authorized keys do not go together.
    #[error("[trust]: {0}")]
    Policy(PolicyFault),
    /// A file cannot be read or written.
    #[error("cannot {action} {}", shown_path(path))]
    File {
        /// What was tried, such as `read`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file or directory that the user named for output cannot be written.
    #[error("cannot {action} {}", shown_path(path))]
    OutputFile {
        /// What was tried, such as `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An item could not be had for `--output`.
    #[error("{what}")]
    Item {
        /// Which, and what was to be done with it.
        what: String,
        /// Where it was to be unpacked.
        directory: PathBuf,
        /// Why.
        source: ItemError,
    },
    /// The lookup cache failed.
    #[error(transparent)]
    LookupCache(CacheError),
    /// The sandbox is required and not supported, or only in part.
    #[error("--sandbox require: this process cannot be confined completely")]
    Sandbox(#[source] SandboxError),
    /// A program of an item cannot be run.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The limit of memory is too low to begin at all.
    #[error(
        "the limit of memory is {} (`ulimit -v`); at least {} are needed",
        bytes(limit << 10), bytes(needed << 10)
    )]
    MemoryLimit {
        /// The limit, in KiB.
        limit: u64,
        /// What is needed, in KiB.
        needed: u64,
    },
    /// No request can be sent.
    #[error("cannot send requests")]
    Network(#[source] std::sync::Arc<HttpError>),
    /// Threads cannot be started.
    #[error("cannot start threads")]
    Threads(#[source] io::Error),
    /// The daemon cannot be served any longer.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// Standard output cannot be written to.
    #[error("cannot write to standard output")]
    Output(#[from] io::Error),
}

impl From<PlanError> for CliError {
    fn from(error: PlanError) -> Self {
        match error {
            PlanError::Store(error) => error.into(),
            PlanError::Lookup(error) => error.into(),
        }
    }
}

impl CliError {
    /// Wraps the failure of `action` on the file `path`.
    pub(crate) fn file(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File {
            action,
            path,
            source,
        }
    }

    /// The same for output that the user named: its place has nothing to do with the store's.
    pub(crate) fn output_file(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::OutputFile {
            action,
            path,
            source,
        }
    }

    /// How the run ends.
    #[must_use]
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Settings(SettingsError::Read { .. }) => Exit::Local,
            Self::Settings(_)
            | Self::ItemArgument(_)
            | Self::NoItems(_)
            | Self::NoServers
            | Self::Usage(_)
            | Self::Misuse { .. }
            | Self::Policy(_)
            | Self::Key { .. } => Exit::Usage,
            Self::Acl { .. }
            | Self::UnsafeAcl { .. }
            | Self::OtherKey { .. }
            | Self::ExposedKey { .. } => Exit::Refused,
            Self::Item { source, .. } => source.class().into(),
            Self::Program(error) => error.exit(),
            Self::Network(error) if error.is_shortage() => Exit::Local,
            Self::Network(error) if error.class() == HttpErrorClass::Absent => Exit::NotAvailable,
            Self::Network(_) => Exit::Network,
            Self::Store(StoreError::Interrupted) | Self::Lookup(ResolveError::Interrupted) => {
                Exit::Interrupted
            }
            Self::Store(_)
            | Self::Lookup(ResolveError::ThreadEnded)
            | Self::File { .. }
            | Self::OutputFile { .. }
            | Self::LookupCache(_)
            | Self::Sandbox(_)
            | Self::MemoryLimit { .. }
            | Self::Threads(_)
            | Self::Serve(_)
            | Self::Output(_) => Exit::Local,
        }
    }

    /// The word of the command line that names nothing.
    #[must_use]
    pub(crate) fn rejected_word(&self) -> Option<&str> {
        match self {
            Self::ItemArgument(ItemArgumentError::NotAnItem(word)) => Some(word),
            Self::File { path, source, .. } if source.kind() == io::ErrorKind::NotFound => {
                path.to_str()
            }
            _ => None,
        }
    }

    /// What the user can do.
    #[must_use]
    pub(crate) fn hint(&self, advice: &Advice) -> Option<String> {
        match self {
            Self::Settings(error) => error.hint().map(str::to_owned),
            Self::Misuse { hint, .. } => Some(hint.clone()),
            Self::Store(error) => store_hint(error, advice),
            Self::Acl { path, .. } => {
                let file = shown_path(path);
                let command = advice.authorize("KEYFILE");
                Some(format!("correct it, or remove {file} and make a new one with `{command}`"))
            }
            Self::ExposedKey { path, .. } => {
                let file = quoted(&path.display().to_string());
                Some(format!("`chmod go= {file}`, as its owner, makes it secret"))
            }
            Self::UnsafeAcl { fault, .. } => Some(format!("{} makes it safe", fault.remedy())),
            Self::NoItems(_) => Some(
                "it needs one name on each line; the command that prints or writes them may have failed"
                    .into(),
            ),
            Self::NoServers => Some(
                "name servers with --substitute-urls, SUBST_SUBSTITUTE_URLS or in a settings file; \
                 without any of these, the official servers are used"
                    .into(),
            ),
            Self::Item {
                directory, source, ..
            } => output_hint(source, directory).or_else(|| item_hint(source, advice, true)),
            Self::Sandbox(_) => Some("--sandbox auto runs without it".into()),
            Self::ItemArgument(error) => Some(error.hint(advice)),
            Self::Program(error) => error.hint(advice),
            Self::File { path, source, .. }
                if source.kind() == io::ErrorKind::PermissionDenied && advice.is_of_store(path) =>
            {
                Some(advice.privileges())
            }
            _ => None,
        }
    }

    /// Whether it only means that guix-daemon has ended.
    #[must_use]
    pub(crate) fn is_daemon_gone(&self) -> bool {
        matches!(self, Self::Serve(ServeError::Reply(error)) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

#[cfg(test)]
mod tests {
    use crate::cli::advice::Invocation;
    use crate::format::store_path::Dialect;

    use super::*;

    #[test]
    fn files_that_are_not_of_the_store_have_no_hint_about_it() {
        let advice = Advice {
            invocation: Invocation::default(),
            dialect: Dialect::Guix,
            nix_conf: "/etc/guix/nix.conf".into(),
            has_nix_keys: false,
            offline: false,
            refresh: false,
        };
        let denied = || io::Error::from(io::ErrorKind::PermissionDenied);

        let error = CliError::output_file("write", "/etc/m.prom")(denied());
        assert_eq!(error.to_string(), "cannot write /etc/m.prom");
        assert_eq!(error.hint(&advice), None);
        let error = CliError::file("read", "/home/me/items")(denied());
        assert_eq!(error.hint(&advice), None);
        assert!(
            CliError::file("write", "/etc/guix/acl")(denied())
                .hint(&advice)
                .is_some()
        );
    }
}
