//! The store directory and the dialect of its store.

use std::fmt;
use std::sync::Arc;

use super::error::{STORE_DIR_BYTES_MAX, StorePathError};
use super::path::StorePathRef;
use crate::format::escape::clip;

/// The program whose formats a store uses. It determines the signatures and the layout of the
/// store's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// GNU Guix: `Signature` fields, `/var/guix`.
    Guix,
    /// Nix: `Sig` fields, `/nix/var/nix`.
    Nix,
}

impl Dialect {
    /// `path`, if its name is allowed in a store of this dialect.
    pub(in crate::format) fn check_name(
        self,
        path: StorePathRef<'_>,
    ) -> Result<StorePathRef<'_>, StorePathError> {
        if self == Self::Guix && path.name().starts_with('.') {
            return Err(StorePathError::Name(path.base().to_owned()));
        }
        Ok(path)
    }
}

/// The directory that holds store items, such as `/gnu/store`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StoreDir(Arc<str>);

impl StoreDir {
    /// Guix's store directory.
    pub const GUIX: &str = "/gnu/store";
    /// Nix's store directory.
    pub const NIX: &str = "/nix/store";

    /// Parses the name of a store directory.
    ///
    /// # Errors
    /// `text` is not an absolute path, not in its shortest form, or longer than
    /// [`STORE_DIR_BYTES_MAX`].
    pub fn parse(text: &str) -> Result<Self, StorePathError> {
        let components = text.strip_prefix('/').unwrap_or("").split('/');
        let is_normal = components
            .into_iter()
            .all(|part| !matches!(part, "" | "." | "..") && !part.contains('\0'));
        if !text.starts_with('/') || !is_normal || text.len() > STORE_DIR_BYTES_MAX {
            let quoted = clip(text, STORE_DIR_BYTES_MAX + 1);
            return Err(StorePathError::StoreDir(quoted.to_owned()));
        }

        Ok(Self(text.into()))
    }

    /// The directory's absolute name, without a final slash.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The dialect of the store: Nix's for `/nix/store`, Guix's for every other directory.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        if &*self.0 == Self::NIX {
            Dialect::Nix
        } else {
            Dialect::Guix
        }
    }

    /// Parses the full name of a store item in this directory.
    ///
    /// # Errors
    /// `path` is not directly inside this directory, or not a store path.
    pub fn parse_path<'a>(&self, path: &'a str) -> Result<StorePathRef<'a>, StorePathError> {
        let base = path
            .strip_prefix(&*self.0)
            .and_then(|rest| rest.strip_prefix('/'))
            .ok_or_else(|| StorePathError::NotInStore {
                path: path.to_owned(),
                store_dir: self.0.to_string(),
            })?;
        self.dialect().check_name(StorePathRef::parse(base)?)
    }

    /// The full name of `path`, such as `/gnu/store/...-hello-2.12`.
    pub fn display<'a>(&'a self, path: impl Into<StorePathRef<'a>>) -> impl fmt::Display + 'a {
        DisplayedPath {
            dir: self,
            path: path.into(),
        }
    }

    /// The full name of `path` as a string.
    #[must_use]
    pub fn full_name<'a>(&'a self, path: impl Into<StorePathRef<'a>>) -> String {
        let base = path.into().base();
        let mut name = String::with_capacity(self.0.len() + 1 + base.len());
        name.push_str(&self.0);
        name.push('/');
        name.push_str(base);
        name
    }
}

struct DisplayedPath<'a> {
    dir: &'a StoreDir,
    path: StorePathRef<'a>,
}

impl fmt::Display for DisplayedPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.dir.0, self.path.base())
    }
}
