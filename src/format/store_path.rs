//! Store paths: the parsed names of store items, and the directory they live in.
//!
//! A store path is `HASH-NAME`: 32 nix-base32 characters, a dash, and a name of 1 to 211
//! characters out of `0-9 a-z A-Z + - . _ ? =` that does not begin with a dot. The store
//! directory is not part of it: [`StoreDir`] is data that parses and displays full names,
//! so that one program serves `/gnu/store` and `/nix/store`.

use std::fmt;
use std::sync::Arc;

use super::base32;

/// Characters of the hash part.
pub const HASH_PART_LEN: usize = 32;

/// The longest name that Guix and Nix accept.
pub const NAME_MAX: usize = 211;

/// Why a text is no store path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StorePathError {
    /// The name is not directly inside the store directory.
    #[error("`{}` is not directly inside {store_dir}", .path.escape_debug())]
    NotInStore {
        /// What was given.
        path: String,
        /// The store directory in use.
        store_dir: String,
    },
    /// The 32 characters in front are not nix-base32, or too few, or not followed by a dash.
    #[error(
        "`{}` does not begin with a hash part of 32 nix-base32 characters and a dash",
        .0.escape_debug()
    )]
    HashPart(String),
    /// The name is empty, too long, or has a character that store names cannot have.
    #[error("`{}` has no valid name after its hash part", .0.escape_debug())]
    Name(String),
    /// The store directory is not an absolute, normal path.
    #[error(
        "`{}` cannot be a store directory: an absolute path without `.`, `..` or a final `/` is needed",
        .0.escape_debug()
    )]
    StoreDir(String),
}

/// Whose formats a store uses: which signatures count, and how its state is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// GNU Guix: `Signature` fields, `/var/guix`.
    Guix,
    /// Nix: `Sig` fields, `/nix/var/nix`.
    Nix,
}

/// The directory that holds store items, such as `/gnu/store`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StoreDir(Arc<str>);

impl StoreDir {
    /// Guix's store directory.
    pub const GUIX: &str = "/gnu/store";
    /// Nix's store directory.
    pub const NIX: &str = "/nix/store";

    /// The store directory named by `text`.
    ///
    /// # Errors
    /// `text` is not an absolute path, or not in its shortest form.
    pub fn parse(text: &str) -> Result<Self, StorePathError> {
        let components = text.strip_prefix('/').unwrap_or("").split('/');
        let is_normal = components
            .into_iter()
            .all(|part| !matches!(part, "" | "." | "..") && !part.contains('\0'));
        if !text.starts_with('/') || !is_normal {
            return Err(StorePathError::StoreDir(text.to_owned()));
        }
        Ok(Self(text.into()))
    }

    /// The directory's absolute name, without a final slash.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `/nix/store` is Nix's; every other directory is taken for Guix's.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        if &*self.0 == Self::NIX { Dialect::Nix } else { Dialect::Guix }
    }

    /// The store path that the full name `path` stands for.
    ///
    /// # Errors
    /// `path` is not directly inside this directory, or not a store path.
    pub fn parse_path<'a>(&self, path: &'a str) -> Result<StorePathRef<'a>, StorePathError> {
        let base = path.strip_prefix(&*self.0).and_then(|rest| rest.strip_prefix('/')).ok_or_else(
            || StorePathError::NotInStore { path: path.to_owned(), store_dir: self.0.to_string() },
        )?;
        StorePathRef::parse(base)
    }

    /// The full name of `path`, such as `/gnu/store/...-hello-2.12`.
    pub fn display<'a>(&'a self, path: impl Into<StorePathRef<'a>>) -> impl fmt::Display + 'a {
        FullName { dir: self, path: path.into() }
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

struct FullName<'a> {
    dir: &'a StoreDir,
    path: StorePathRef<'a>,
}

impl fmt::Display for FullName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.dir.0, self.path.base())
    }
}

/// A store path borrowed from a text: the checked base name `HASH-NAME`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StorePathRef<'a>(&'a str);

impl<'a> StorePathRef<'a> {
    /// The store path with the base name `base`.
    ///
    /// # Errors
    /// `base` is not `HASH-NAME`.
    pub fn parse(base: &'a str) -> Result<Self, StorePathError> {
        Self::parse_known(base, false)
    }

    /// The same. With `bytes_are_known`, `base` is a word of a text that has no [foreign
    /// bytes](has_foreign_bytes), so that those of its name are not looked at again.
    #[inline]
    pub(super) fn parse_known(
        base: &'a str,
        bytes_are_known: bool,
    ) -> Result<Self, StorePathError> {
        let bytes = base.as_bytes();
        let (hash, rest) = bytes.split_at_checked(HASH_PART_LEN).unwrap_or((b"?", b""));
        if !all_bytes(hash, base32::is_digit) || rest.first() != Some(&b'-') {
            return Err(StorePathError::HashPart(base.to_owned()));
        }
        let name = &rest[1..];
        let has_name_bytes = || all_bytes(name, |byte| IS_NAME_BYTE[usize::from(byte)]);
        debug_assert!(!bytes_are_known || has_name_bytes(), "{base:?} was never looked at");
        let is_valid = !name.is_empty()
            && name.len() <= NAME_MAX
            && name[0] != b'.'
            && (bytes_are_known || has_name_bytes());
        if !is_valid {
            return Err(StorePathError::Name(base.to_owned()));
        }
        Ok(Self(base))
    }

    /// A base name that [`StorePathRef::parse`] has accepted before.
    pub(super) fn from_checked(base: &'a str) -> Self {
        debug_assert!(Self::parse(base).is_ok(), "{base:?} was never checked");
        Self(base)
    }

    /// `HASH-NAME`.
    #[must_use]
    pub fn base(self) -> &'a str {
        self.0
    }

    /// The name after the hash part, such as `hello-2.12`.
    #[must_use]
    pub fn name(self) -> &'a str {
        &self.0[HASH_PART_LEN + 1..]
    }

    /// The 32 characters that servers know the item by.
    #[must_use]
    pub fn hash_part(self) -> HashPart {
        let mut part = [0; HASH_PART_LEN];
        part.copy_from_slice(&self.0.as_bytes()[..HASH_PART_LEN]);
        HashPart(part)
    }

    /// A store path that owns its name.
    #[must_use]
    pub fn to_path(self) -> StorePath {
        StorePath(self.0.into())
    }
}

/// A store path that owns its name; cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StorePath(Arc<str>);

impl StorePath {
    /// The store path with the base name `base`.
    ///
    /// # Errors
    /// `base` is not `HASH-NAME`.
    pub fn parse(base: &str) -> Result<Self, StorePathError> {
        StorePathRef::parse(base).map(StorePathRef::to_path)
    }

    /// The same path, borrowed.
    #[must_use]
    pub fn as_ref(&self) -> StorePathRef<'_> {
        StorePathRef(&self.0)
    }

    /// `HASH-NAME`.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.0
    }

    /// The name after the hash part.
    #[must_use]
    pub fn name(&self) -> &str {
        self.as_ref().name()
    }

    /// The 32 characters that servers know the item by.
    #[must_use]
    pub fn hash_part(&self) -> HashPart {
        self.as_ref().hash_part()
    }
}

impl<'a> From<&'a StorePath> for StorePathRef<'a> {
    fn from(path: &'a StorePath) -> Self {
        path.as_ref()
    }
}

impl fmt::Display for StorePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for StorePathRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// The hash part of a store path: 32 nix-base32 characters, kept as they are spelt.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HashPart([u8; HASH_PART_LEN]);

impl HashPart {
    /// The hash part spelt `text`.
    ///
    /// # Errors
    /// `text` is not 32 nix-base32 characters.
    pub fn parse(text: &str) -> Result<Self, StorePathError> {
        match <[u8; HASH_PART_LEN]>::try_from(text.as_bytes()) {
            Ok(part) if part.iter().all(|&byte| base32::is_digit(byte)) => Ok(Self(part)),
            _ => Err(StorePathError::HashPart(text.to_owned())),
        }
    }

    /// The 32 characters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("a hash part is made of ASCII digits only")
    }
}

impl fmt::Display for HashPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for HashPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HashPart({self})")
    }
}

/// `Iterator::all` without its early exit: nearly every name is valid, and without a branch for
/// each byte a whole narinfo parses in a fifth less time.
fn all_bytes(bytes: &[u8], is_valid: impl Fn(u8) -> bool) -> bool {
    bytes.iter().fold(true, |all, &byte| all & is_valid(byte))
}

/// Whether `text` has bytes that are neither blanks nor part of any base name. Computed without
/// branches instead of looked up, which a processor does for many bytes at once: narinfos with many
/// references parse in a fifth less time than with every name looked at by itself.
pub(super) fn has_foreign_bytes(text: &str) -> bool {
    let is_known = |byte: u8| {
        byte.is_ascii_alphanumeric()
            | (byte == b' ')
            | (byte == b'+')
            | (byte == b'-')
            | (byte == b'.')
            | (byte == b'_')
            | (byte == b'?')
            | (byte == b'=')
            | (byte == b'\t')
    };
    !all_bytes(text.as_bytes(), is_known)
}

const IS_NAME_BYTE: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        #[expect(clippy::cast_possible_truncation, reason = "byte < 256")]
        let b = byte as u8;
        table[byte] =
            b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.' | b'_' | b'?' | b'=');
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "0f9qzp1g3jy45al4zspzqah9f8d5bisp-debconf-1.0";

    #[test]
    fn parses_and_displays_with_a_store_dir() {
        let dir = StoreDir::parse("/gnu/store").unwrap();
        let full = format!("/gnu/store/{BASE}");
        let path = dir.parse_path(&full).unwrap();
        assert_eq!(path.name(), "debconf-1.0");
        assert_eq!(path.hash_part().as_str(), &BASE[..32]);
        assert_eq!(dir.display(path).to_string(), full);
        assert_eq!(dir.full_name(&path.to_path()), full);
    }

    #[test]
    fn refuses_paths_outside_the_store() {
        let dir = StoreDir::parse("/gnu/store").unwrap();
        for path in [
            format!("/nix/store/{BASE}"),
            format!("/gnu/store{BASE}"),
            format!("/gnu/store//{BASE}"),
            BASE.to_owned(),
        ] {
            assert!(dir.parse_path(&path).is_err(), "{path}");
        }
    }

    #[test]
    fn refuses_hostile_base_names() {
        let hash = &BASE[..32];
        for base in [
            "",
            "-",
            hash,
            &format!("{hash}-"),
            &format!("{hash}-.hidden"),
            &format!("{hash}-a/b"),
            &format!("{hash}-a b"),
            &format!("{hash}-a\0"),
            &format!("{hash}-é"),
            &format!("{hash}_a"),
            &format!("e{}-a", &hash[1..]),
            &format!("{hash}-{}", "a".repeat(NAME_MAX + 1)),
        ] {
            assert!(StorePath::parse(base).is_err(), "{base}");
        }
        assert!(StorePath::parse(&format!("{hash}-{}", "a".repeat(NAME_MAX))).is_ok());
    }

    #[test]
    fn a_byte_is_foreign_when_it_is_neither_blank_nor_of_a_name() {
        for byte in 0..=127u8 {
            let known = byte == b' ' || byte == b'\t' || IS_NAME_BYTE[usize::from(byte)];
            for position in [0, 15, 16, 39] {
                let mut text = [b'a'; 40];
                text[position] = byte;
                let text = std::str::from_utf8(&text).unwrap();
                assert_eq!(has_foreign_bytes(text), !known, "{byte} at {position}");
            }
        }
        assert!(has_foreign_bytes("é"));
    }

    #[test]
    fn refuses_odd_store_dirs() {
        for dir in ["", "/", "gnu/store", "/gnu/store/", "/gnu/../store", "/gnu//store"] {
            assert!(StoreDir::parse(dir).is_err(), "{dir}");
        }
    }
}
