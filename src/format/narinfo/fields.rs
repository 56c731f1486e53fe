//! The fields of a narinfo: the only place that knows their names and how often each may occur.
//!
//! Grouped by who vouches for them. *Description*: `StorePath`, `NarHash`, `NarSize`,
//! `References`; a signature covers these. *Origin*: `Deriver`, `System`, `CA`; Guix signs them
//! along with the rest, Nix does not. *Download*: `URL` and what follows it; never vouched for.
//! *Proof*: `Signature` (Guix), `Sig` (Nix).

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

/// How often a field may occur, and what the further occurrences mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Occurs {
    /// Once; a second one is an error in Nix's dialect and without effect in Guix's.
    Once,
    /// The first one counts in both dialects.
    FirstCounts,
    /// Once per download.
    PerDownload,
    /// Any number of times.
    Many,
}

const TABLE: [(&str, Field, Occurs); Field::COUNT] = [
    ("StorePath", Field::StorePath, Occurs::Once),
    ("NarHash", Field::NarHash, Occurs::Once),
    ("NarSize", Field::NarSize, Occurs::Once),
    ("References", Field::References, Occurs::Once),
    ("Deriver", Field::Deriver, Occurs::FirstCounts),
    ("System", Field::System, Occurs::FirstCounts),
    ("CA", Field::Ca, Occurs::FirstCounts),
    ("Signature", Field::Signature, Occurs::FirstCounts),
    ("URL", Field::Url, Occurs::PerDownload),
    ("Compression", Field::Compression, Occurs::PerDownload),
    ("FileHash", Field::FileHash, Occurs::PerDownload),
    ("FileSize", Field::FileSize, Occurs::PerDownload),
    ("Sig", Field::Sig, Occurs::Many),
];

impl Field {
    /// How many fields there are.
    pub(super) const COUNT: usize = 13;
    /// How many stand in front of the table because they occur at most once in effect.
    pub(super) const SCALARS: usize = 8;

    /// The field called `name`, exactly so spelled.
    pub(super) fn named(name: &str) -> Option<Self> {
        TABLE
            .iter()
            .find(|(known, ..)| *known == name)
            .map(|&(_, field, _)| field)
    }

    /// The name that narinfos use.
    pub(super) const fn name(self) -> &'static str {
        TABLE[self as usize].0
    }

    /// How often the field may occur.
    pub(super) const fn occurs(self) -> Occurs {
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
            let is_scalar = matches!(occurs, Occurs::Once | Occurs::FirstCounts);
            assert_eq!(is_scalar, position < Field::SCALARS, "{name}");
        }
        assert_eq!(Field::named("storepath"), None);
    }
}
