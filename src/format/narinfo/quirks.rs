//! Oddities of real narinfos that are tolerated, and remembered as flags.

use std::fmt;

/// A set of tolerated oddities.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Quirks(u16);

impl Quirks {
    /// Lines end in carriage return and newline.
    pub const CRLF: Self = Self(1);
    /// A field that this program does not know.
    pub const UNKNOWN_FIELD: Self = Self(1 << 1);
    /// The last line does not end in a newline.
    pub const NO_FINAL_NEWLINE: Self = Self(1 << 2);
    /// `Compression` is missing or empty, which means bzip2 to Nix.
    pub const DEFAULTED_COMPRESSION: Self = Self(1 << 3);
    /// There is no `References` line.
    pub const NO_REFERENCES_LINE: Self = Self(1 << 4);
    /// References are not in increasing order, or one is repeated.
    pub const UNSORTED_REFERENCES: Self = Self(1 << 5);
    /// A hash is not spelled in nix-base32.
    pub const HASH_FORM: Self = Self(1 << 6);
    /// `Deriver` says `unknown-deriver`.
    pub const UNKNOWN_DERIVER: Self = Self(1 << 7);
    /// A field occurs more often than it should; the first one counts.
    pub const DUPLICATE_FIELD: Self = Self(1 << 8);
    /// A `FileSize` or `FileHash` cannot be read and is taken as not said.
    pub const UNREADABLE_FILE_FIELD: Self = Self(1 << 9);
    /// A line is empty.
    pub const EMPTY_LINE: Self = Self(1 << 10);

    const NAMES: [&str; 11] = [
        "CRLF line ends",
        "unknown field",
        "no final newline",
        "no compression given",
        "no References line",
        "unsorted references",
        "hash not in nix-base32",
        "unknown deriver",
        "duplicate field",
        "unreadable FileSize or FileHash",
        "empty line",
    ];

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether all of `other` are here.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Adds `other`.
    pub(super) const fn insert(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// The oddities in words, separated by commas.
impl fmt::Display for Quirks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (bit, name) in Self::NAMES.into_iter().enumerate() {
            if self.0 >> bit & 1 == 1 {
                write!(f, "{separator}{name}")?;
                separator = ", ";
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Quirks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Quirks({self})")
    }
}
