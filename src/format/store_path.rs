//! Store paths: the parsed names of store items, and the directory they live in.
//!
//! A store path is `HASH-NAME`: 32 nix-base32 characters, a dash, and a name of 1 to 211
//! characters out of `0-9 a-z A-Z + - . _ ? =` that does not begin with a dot. The store
//! directory is not part of it: [`StoreDir`] is data that parses and displays full names,
//! so that one program serves `/gnu/store` and `/nix/store`.

use std::fmt;
use std::sync::Arc;

use super::base32;
use super::escape::clip;

/// The length of the hash part in characters.
pub const HASH_PART_LEN: usize = 32;

/// The longest name that Guix and Nix accept, in characters.
pub const NAME_MAX: usize = 211;

/// Why a text is not a store path.
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
    /// The text does not begin with 32 nix-base32 characters and a dash.
    #[error(
        "`{}` does not begin with a hash part of 32 nix-base32 characters and a dash",
        .0.escape_debug()
    )]
    HashPart(String),
    /// The name is empty, too long, or has a character that is not allowed in store names.
    #[error("`{}` has no valid name after its hash part", .0.escape_debug())]
    Name(String),
    /// The store directory is not an absolute, normal path.
    #[error(
        "`{}` is not a valid store directory: it has to be an absolute path without `.`, `..` and final `/`",
        .0.escape_debug()
    )]
    StoreDir(String),
}

/// The program whose formats a store uses. It determines the signatures and the layout of the
/// store's state.
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

    /// Parses the name of a store directory.
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
        StorePathRef::parse(base)
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

/// A store path borrowed from a text: the checked base name `HASH-NAME`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StorePathRef<'a>(&'a str);

impl<'a> StorePathRef<'a> {
    /// Parses the base name of a store item.
    ///
    /// # Errors
    /// `base` is not `HASH-NAME`.
    pub fn parse(base: &'a str) -> Result<Self, StorePathError> {
        Self::parse_checked(base, NameCheck::Required)
    }

    #[inline]
    fn parse_checked(base: &'a str, checked: NameCheck) -> Result<Self, StorePathError> {
        let Some((hash, [b'-', name @ ..])) = base.as_bytes().split_at_checked(HASH_PART_LEN)
        else {
            return Err(StorePathError::HashPart(base.to_owned()));
        };
        if !all_bytes(hash, base32::is_digit) {
            return Err(StorePathError::HashPart(base.to_owned()));
        }

        let is_valid = matches!(name, [first, ..] if *first != b'.')
            && name.len() <= NAME_MAX
            && (checked == NameCheck::Done || all_bytes(name, is_name_byte_by_table));
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

    /// The hash part, by which servers name the item's narinfo.
    #[must_use]
    pub fn hash_part(self) -> HashPart {
        let mut part = [0; HASH_PART_LEN];
        part.copy_from_slice(&self.0.as_bytes()[..HASH_PART_LEN]);
        HashPart(part)
    }

    /// An owned copy.
    #[must_use]
    pub fn to_path(self) -> StorePath {
        StorePath(self.0.into())
    }
}

/// A store path that owns its name; cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StorePath(Arc<str>);

impl StorePath {
    /// Parses the base name of a store item.
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

    /// The hash part, by which servers name the item's narinfo.
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

/// The hash part of a store path: 32 nix-base32 characters, not decoded.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HashPart([u8; HASH_PART_LEN]);

impl HashPart {
    /// Parses a hash part.
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

/// `Iterator::all` without its early exit. Nearly every name is valid, and without a branch per byte
/// the benchmark `narinfo_parse` takes a fifth less time.
fn all_bytes(bytes: &[u8], is_valid: impl Fn(u8) -> bool) -> bool {
    bytes.iter().fold(true, |all, &byte| all & is_valid(byte))
}

/// The store paths whose base names `text` lists, separated by blanks and tabs.
///
/// All bytes are checked first, without branches, so that a processor checks many at a time. In the
/// benchmark `narinfo_parse`, narinfos with many references take a seventh less time than with one
/// check per name.
pub(super) fn parse_list(
    text: &str,
) -> impl Iterator<Item = Result<StorePathRef<'_>, StorePathError>> {
    let checked = if all_bytes(text.as_bytes(), |byte| is_name_byte(byte) | is_blank(byte)) {
        NameCheck::Done
    } else {
        NameCheck::Required
    };
    split_blanks(text)
        .map(move |base| StorePathRef::parse_checked(clip(base, BASE_NAME_MAX), checked))
}

/// Whether the bytes of a name still have to be checked.
#[derive(Debug, Clone, Copy, PartialEq)]
enum NameCheck {
    Required,
    /// Every byte is allowed in a name.
    Done,
}

/// No base name has more bytes: the rest is cut off, so that an error does not quote it.
const BASE_NAME_MAX: usize = 256;

/// Splits `text` at blanks and tabs.
pub(super) fn split_blanks(text: &str) -> impl Iterator<Item = &str> + Clone {
    BlankSeparated { rest: text }
}

/// Like `str::split` without the empty parts, but the benchmark `narinfo_parse` takes a third less
/// time.
#[derive(Clone)]
struct BlankSeparated<'t> {
    rest: &'t str,
}

impl<'t> Iterator for BlankSeparated<'t> {
    type Item = &'t str;

    fn next(&mut self) -> Option<&'t str> {
        let blanks = self.rest.bytes().take_while(|&byte| is_blank(byte)).count();
        self.rest = &self.rest[blanks..];
        let end = memchr::memchr2(b' ', b'\t', self.rest.as_bytes());
        let (part, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        (!part.is_empty()).then_some(part)
    }
}

const fn is_blank(byte: u8) -> bool {
    (byte == b' ') | (byte == b'\t')
}

fn is_name_byte_by_table(byte: u8) -> bool {
    IS_NAME_BYTE[usize::from(byte)]
}

/// [`is_name_byte`] as a table, which is faster for short texts.
const IS_NAME_BYTE: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        table[byte as usize] = is_name_byte(byte);
        byte += 1;
    }
    table
};

/// Without branches: see [`parse_list`].
const fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        | (byte == b'+')
        | (byte == b'-')
        | (byte == b'.')
        | (byte == b'_')
        | (byte == b'?')
        | (byte == b'=')
}

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
    fn every_byte_of_a_list_is_looked_at() {
        for byte in 0..=127 {
            let name = format!("{BASE}-{}", char::from(byte));
            let alone = StorePath::parse(&name).is_ok();
            // In front of others and behind them, and where many bytes are looked at at once.
            for list in [
                name.clone(),
                format!("{name} {BASE}"),
                format!("{BASE}\t{BASE}  {name} "),
            ] {
                let all_good = parse_list(&list).all(|path| path.is_ok());
                assert_eq!(
                    all_good,
                    alone || byte == b' ' || byte == b'\t',
                    "{byte} in {list:?}"
                );
            }
        }
        assert!(parse_list(&format!("{BASE} {BASE}é")).any(|path| path.is_err()));
    }

    #[test]
    fn refuses_odd_store_dirs() {
        for dir in [
            "",
            "/",
            "gnu/store",
            "/gnu/store/",
            "/gnu/../store",
            "/gnu//store",
        ] {
            assert!(StoreDir::parse(dir).is_err(), "{dir}");
        }
    }
}
