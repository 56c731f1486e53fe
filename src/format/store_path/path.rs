//! The base name of a store item, and its parts.

use std::fmt;
use std::sync::Arc;

use super::error::StorePathError;
use crate::format::base32;

/// The length of the hash part in characters.
pub const HASH_PART_LEN: usize = 32;

/// The longest name that Guix and Nix accept, in characters.
pub const NAME_MAX: usize = 211;

/// A store path borrowed from a text: the checked base name `HASH-NAME`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StorePathRef<'a>(&'a str);

impl<'a> StorePathRef<'a> {
    /// Parses the base name of an item in whichever store: see the rules of this module.
    ///
    /// # Errors
    /// `base` is not `HASH-NAME`.
    pub fn parse(base: &'a str) -> Result<Self, StorePathError> {
        Self::parse_checked(base, NameCheck::Required)
    }

    #[inline]
    pub(super) fn parse_checked(base: &'a str, checked: NameCheck) -> Result<Self, StorePathError> {
        let Some((hash, [b'-', name @ ..])) = base.as_bytes().split_at_checked(HASH_PART_LEN)
        else {
            return Err(StorePathError::HashPart(base.to_owned()));
        };
        if !all_bytes(hash, base32::is_digit) {
            return Err(StorePathError::HashPart(base.to_owned()));
        }

        let is_valid = begins_well(name)
            && name.len() <= NAME_MAX
            && (checked == NameCheck::Done || all_bytes(name, is_name_byte_by_table));
        if !is_valid {
            return Err(StorePathError::Name(base.to_owned()));
        }

        Ok(Self(base))
    }

    /// A base name that [`StorePathRef::parse`] has accepted before.
    pub(in crate::format) fn from_checked(base: &'a str) -> Self {
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

    /// Whether it is a derivation: how an item is built, and not an item that is built.
    #[must_use]
    pub fn is_derivation(self) -> bool {
        self.name().ends_with(".drv")
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

    /// Whether it is a derivation: how an item is built, and not an item that is built.
    #[must_use]
    pub fn is_derivation(&self) -> bool {
        self.as_ref().is_derivation()
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

/// Whether the bytes of a name still have to be checked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum NameCheck {
    Required,
    /// Every byte is allowed in a name.
    Done,
}

/// `Iterator::all` without its early exit. Nearly every name is valid, and without a branch per byte
/// the benchmark `narinfo_parse` takes a fifth less time.
pub(super) fn all_bytes(bytes: &[u8], is_valid: impl Fn(u8) -> bool) -> bool {
    bytes.iter().fold(true, |all, &byte| all & is_valid(byte))
}

/// Whether `name` is not empty, and not `.` or `..` before its first dash or its end.
fn begins_well(name: &[u8]) -> bool {
    !matches!(
        name,
        [] | b"." | b".." | [b'.', b'-', ..] | [b'.', b'.', b'-', ..]
    )
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

/// Without branches: see [`super::parse_list`].
pub(super) const fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        | (byte == b'+')
        | (byte == b'-')
        | (byte == b'.')
        | (byte == b'_')
        | (byte == b'?')
        | (byte == b'=')
}
