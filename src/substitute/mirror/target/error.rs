//! What could not be done with the files of a mirror.

use std::io::{self, ErrorKind};

use crate::http::HttpError;

/// What could not be done with the files of a mirror.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TargetError {
    /// Another process writes to it.
    #[error("another process is writing to the mirror {0}")]
    Locked(String),
    /// Another process, perhaps on another machine, writes to the bucket.
    #[error("another process is writing to the mirror {mirror}: it said so {seconds} s ago")]
    LeaseHeld {
        /// The bucket.
        mirror: String,
        /// The seconds since it has renewed its claim.
        seconds: u64,
    },
    /// This process could not renew its claim, and another one may be writing.
    #[error(
        "this process was stopped or cut off for so long that another one may be writing to the mirror {0}"
    )]
    LeaseLost(String),
    /// A system call failed.
    #[error("cannot {action} {} in the mirror", .file.escape_debug())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file, relative to the mirror.
        file: String,
        /// Why.
        source: io::Error,
    },
    /// A system call failed for the directory of the mirror.
    #[error("cannot {action} this directory")]
    Directory {
        /// What was tried.
        action: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The files of this machine that are to be sent cannot be written.
    #[error("cannot {action} {path}, where nars are kept until they are sent")]
    Spool {
        /// What was tried.
        action: &'static str,
        /// The directory.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// A request to the object store failed.
    #[error("cannot {action} {} in the bucket", .object.escape_debug())]
    Bucket {
        /// What was tried.
        action: &'static str,
        /// The object, without the prefix.
        object: String,
        /// Why.
        source: Box<HttpError>,
    },
    /// An object that this process does not expect.
    #[error("another program has written {} in the bucket at the same time", .0.escape_debug())]
    Changed(String),
}

impl TargetError {
    pub(crate) fn of_bucket(
        action: &'static str,
        object: impl ToString,
    ) -> impl FnOnce(HttpError) -> Self {
        let object = object.to_string();
        move |source| Self::Bucket {
            action,
            object,
            source: Box::new(source),
        }
    }

    /// That a reader of `file` failed with `error`.
    pub(crate) fn of_read(file: impl ToString, error: io::Error) -> Self {
        match error.downcast::<HttpError>() {
            Ok(source) => Self::of_bucket("read", file)(source),
            Err(source) => Self::of("read", file)(source),
        }
    }

    /// Whether a file cannot have the name because something else has it, or the name of a directory in it.
    pub(crate) fn is_of_other_kind(&self) -> bool {
        let kinds = [ErrorKind::AlreadyExists, ErrorKind::NotADirectory];
        matches!(self, Self::File { source, .. } if kinds.contains(&source.kind()))
    }

    pub(super) fn of(action: &'static str, file: impl ToString) -> impl FnOnce(io::Error) -> Self {
        let file = file.to_string();
        move |source| Self::File {
            action,
            file,
            source,
        }
    }
}
