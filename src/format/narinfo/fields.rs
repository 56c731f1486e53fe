//! The fields of a narinfo: the only place with their names and how often each may occur.
//!
//! Grouped by what a signature covers. *Description*: `StorePath`, `NarHash`, `NarSize`,
//! `References`; a signature covers these. *Origin*: `Deriver`, `System`, `CA`; Guix signs them
//! along with the rest, Nix does not. *Download*: `URL` and what follows it; never signed.
//! *Proof*: `Signature` (Guix), `Sig` (Nix).

use super::span::Span;

/// A known field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    StorePath,
    NarHash,
    NarSize,
    References,
    Deriver,
    System,
    Ca,
    Signature,
    Url,
    Compression,
    FileHash,
    FileSize,
    Sig,
}

/// The first occurrence of each field that has at most one value.
pub(super) type Scalars = [Option<Span>; Field::SCALARS];

/// How often a field may occur, and what the further occurrences mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Occurrence {
    /// Once; a second one is an error in Nix's dialect and has no effect in Guix's.
    Once,
    /// The first one counts in both dialects.
    FirstCounts,
    /// Once per download.
    PerDownload,
    /// Any number of times.
    Many,
}

const TABLE: [(&str, Field, Occurrence); Field::COUNT] = [
    ("StorePath", Field::StorePath, Occurrence::Once),
    ("NarHash", Field::NarHash, Occurrence::Once),
    ("NarSize", Field::NarSize, Occurrence::Once),
    ("References", Field::References, Occurrence::Once),
    ("Deriver", Field::Deriver, Occurrence::FirstCounts),
    ("System", Field::System, Occurrence::FirstCounts),
    ("CA", Field::Ca, Occurrence::FirstCounts),
    ("Signature", Field::Signature, Occurrence::FirstCounts),
    ("URL", Field::Url, Occurrence::PerDownload),
    ("Compression", Field::Compression, Occurrence::PerDownload),
    ("FileHash", Field::FileHash, Occurrence::PerDownload),
    ("FileSize", Field::FileSize, Occurrence::PerDownload),
    ("Sig", Field::Sig, Occurrence::Many),
];

impl Field {
    /// The number of fields.
    pub(super) const COUNT: usize = 13;
    /// How many fields at the front of the table have at most one value.
    pub(super) const SCALARS: usize = 8;

    /// The field with exactly this name.
    pub(super) fn named(name: &str) -> Option<Self> {
        TABLE
            .iter()
            .find(|(known, ..)| *known == name)
            .map(|&(_, field, _)| field)
    }

    /// The field's name in narinfos.
    pub(super) const fn name(self) -> &'static str {
        TABLE[self as usize].0
    }

    /// How often the field may occur.
    pub(super) const fn occurrence(self) -> Occurrence {
        TABLE[self as usize].2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_enum() {
        for (position, (name, field, occurs)) in TABLE.into_iter().enumerate() {
            assert_eq!(field as usize, position, "{name}");
            assert_eq!(Field::named(name), Some(field));
            let is_scalar = matches!(occurs, Occurrence::Once | Occurrence::FirstCounts);
            assert_eq!(is_scalar, position < Field::SCALARS, "{name}");
        }
        assert_eq!(Field::named("storepath"), None);
    }
}
