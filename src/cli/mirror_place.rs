//! The place of a mirror, as `--to` names it: a directory, or a bucket of an object store.

use std::fmt;
use std::path::PathBuf;

use crate::cli::output::shown_path;
use crate::format::server_url::ServerUrl;

/// Where a mirror is.
#[derive(Debug, Clone)]
pub(crate) enum MirrorPlace {
    /// A directory of this machine.
    Directory(PathBuf),
    /// A bucket, or what is below a prefix in one.
    Bucket(ServerUrl),
}

impl MirrorPlace {
    /// The place that `text` names.
    ///
    /// # Errors
    /// It is empty, or the URL of something else.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("it is empty: name a directory, or a bucket as in s3://BUCKET".to_owned());
        }
        if text.starts_with("s3:") {
            let server = ServerUrl::parse(text).map_err(|error| error.to_string())?;
            return Ok(Self::Bucket(server));
        }
        match text.split_once("://") {
            Some(("file", path)) => Err(format!("name the directory itself: {path}")),
            Some(_) => Err(
                "is not a place for a mirror: name a directory, or a bucket as in s3://BUCKET"
                    .to_owned(),
            ),
            None => Ok(Self::Directory(PathBuf::from(text))),
        }
    }

    /// The bucket that it is, if it is one.
    pub(crate) fn bucket(&self) -> Option<&ServerUrl> {
        match self {
            Self::Bucket(server) => Some(server),
            Self::Directory(_) => None,
        }
    }
}

impl fmt::Display for MirrorPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => f.write_str(&shown_path(path)),
            Self::Bucket(server) => f.write_str(server.as_str()),
        }
    }
}
