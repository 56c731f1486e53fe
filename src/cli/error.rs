//! Why a command could not be carried out, what that means, and what the user can do.

use std::io;
use std::path::{Path, PathBuf};

use crate::daemon::serve::ServeError;
use crate::format::credentials::without_credentials;
use crate::format::store_path::{Dialect, StorePathError};
use crate::lookup_cache::CacheError;
use crate::store::StoreError;
use crate::substitute::install::{Class, ItemError};
use crate::trust::acl::AclError;

use super::exit::Exit;
use super::settings::SettingsError;

/// A command that failed as a whole.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// A setting is wrong.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// An argument is no store path.
    #[error(transparent)]
    Path(#[from] StorePathError),
    /// The list of servers is empty, and nobody can be asked.
    #[error("no server is configured, so nobody can be asked")]
    NoServers,
    /// The arguments do not go together.
    #[error("{0}")]
    Usage(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The ACL cannot be used. Going on without it would refuse everything.
    #[error("the ACL {} cannot be used", shown_path(path))]
    Acl {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: AclError,
    },
    /// A key cannot be used.
    #[error("{what}")]
    Key {
        /// Which.
        what: String,
        /// What is wrong with it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file cannot be read or written.
    #[error("{action} {}", shown_path(path))]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An item could not be had.
    #[error("{what}")]
    Item {
        /// Which, and what was to be done with it.
        what: String,
        /// Why.
        source: ItemError,
    },
    /// The lookup cache failed.
    #[error(transparent)]
    LookupCache(CacheError),
    /// Threads cannot be started.
    #[error("starting threads")]
    Threads(#[source] io::Error),
    /// The daemon cannot be served any longer.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// Standard output cannot be written to.
    #[error("writing to standard output")]
    Output(#[from] io::Error),
}

/// The name of a file; somebody may have given a URL instead, with a password in it.
pub(super) fn shown_path(path: &Path) -> String {
    without_credentials(&path.display().to_string()).into_owned()
}

impl CliError {
    /// How the run ends.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Settings(SettingsError::Read { .. }) => Exit::Local,
            Self::Settings(_)
            | Self::Path(_)
            | Self::NoServers
            | Self::Usage(_)
            | Self::Key { .. } => Exit::Usage,
            Self::Acl { .. } => Exit::Refused,
            Self::Item { source, .. } => source.class().into(),
            Self::Store(_)
            | Self::File { .. }
            | Self::LookupCache(_)
            | Self::Threads(_)
            | Self::Serve(_)
            | Self::Output(_) => Exit::Local,
        }
    }

    /// What the user can do, whose store is in `dialect`.
    #[must_use]
    pub fn hint(&self, dialect: Dialect) -> Option<String> {
        match self {
            Self::Store(error) => error.hint().map(str::to_owned),
            Self::Acl { .. } => {
                Some("`guix archive --authorize < key.pub` or `subst authorize` makes one".into())
            }
            Self::NoServers => Some(
                "name servers with --substitute-urls, SUBST_SUBSTITUTE_URLS or in a settings file; \
                 without any of these, the official ones are asked"
                    .into(),
            ),
            Self::Item { source, .. } => item_hint(source, dialect),
            Self::Path(StorePathError::NotInStore { .. }) => {
                Some("--store-dir selects another store".into())
            }
            Self::File { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("run as root, or use --root DIR for a store of your own".into())
            }
            _ => None,
        }
    }

    /// Whether it only means that nobody reads our output any more, as in `subst ... | head`.
    #[must_use]
    pub fn is_broken_pipe(&self) -> bool {
        match self {
            Self::Output(error) | Self::Serve(ServeError::Reply(error)) => {
                error.kind() == io::ErrorKind::BrokenPipe
            }
            _ => false,
        }
    }
}

/// What the user, whose store is in `dialect`, can do about an item that could not be had.
#[must_use]
pub fn item_hint(error: &ItemError, dialect: Dialect) -> Option<String> {
    use crate::substitute::answer::Status;
    use crate::trust::verdict::Refusal;
    let hint = match error {
        ItemError::Refused { first: Refusal::UnauthorizedKey { .. }, .. } => match dialect {
            Dialect::Guix => "if you trust the server, `subst authorize KEYFILE` lets its key sign",
            Dialect::Nix => {
                "if you trust the server, name its key with --trusted-public-keys, or in nix.conf"
            }
        },
        ItemError::Refused { .. } => "another server may have it: --substitute-urls",
        ItemError::NotAvailable { status: Status::Preparing, .. } => {
            "a server is preparing it; try again soon"
        }
        ItemError::NotAvailable { status: Status::Missing, .. } => {
            "it has to be built, or another server may have it: --substitute-urls"
        }
        ItemError::NotAvailable { status: Status::Unknown, .. } => {
            "`subst servers` tells which servers answer; --refresh asks again"
        }
        ItemError::InvalidReference(_) => {
            "without --no-references, what it refers to is fetched as well"
        }
        ItemError::Offline(_) => "without --offline, it is downloaded",
        ItemError::NoSpace { .. } => "free some space, or fetch less at a time",
        ItemError::MissingTree(path) => return Some(repair_hint(path, dialect)),
        ItemError::Store(error) => return error.hint().map(str::to_owned),
        _ if error.class() == Class::Transient => "try again, or with other --substitute-urls",
        _ => return None,
    };
    Some(hint.to_owned())
}

/// How the daemon's own commands bring back a tree that is missing: as root, since they replace
/// what is in the store.
fn repair_hint(path: &Path, dialect: Dialect) -> String {
    let path = path.display();
    match dialect {
        Dialect::Guix => format!(
            "as root, `guix build --repair {path}` fetches it again; \
             `guix gc --verify=repair` checks all items"
        ),
        Dialect::Nix => format!(
            "as root, `nix-store --repair-path {path}` fetches it again; \
             `nix-store --verify --repair` checks all items"
        ),
    }
}
