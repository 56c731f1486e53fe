//! What an item's answers mean for the user.

use crate::substitute::answer::{Found, Origin, Said, Status};

/// Kinds of misses, gravest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Group {
    /// Narinfos, but none that may be used.
    Refused,
    /// A definite no everywhere.
    Missing,
    /// A server is preparing it.
    Preparing,
    /// No definite answer.
    Unknown,
    /// From another server than the first.
    Elsewhere,
    /// From the first server, which had to be asked.
    AskedFirst,
    /// From the first server, known from the lookup cache: nothing was missed.
    Cached,
}

impl Group {
    /// In the order in which they are told.
    pub(super) const ALL: [Self; 7] = [
        Self::Refused,
        Self::Missing,
        Self::Preparing,
        Self::Unknown,
        Self::Elsewhere,
        Self::AskedFirst,
        Self::Cached,
    ];

    pub(super) fn of(found: &Found) -> Self {
        match found.status {
            Status::Refused => return Self::Refused,
            Status::Missing => return Self::Missing,
            Status::Preparing => return Self::Preparing,
            Status::Unknown => return Self::Unknown,
            Status::Available => {}
        }
        match found.answers.first() {
            Some(first) if first.said == Said::Authorized => match first.origin {
                Origin::Cache { .. } => Self::Cached,
                Origin::Network => Self::AskedFirst,
            },
            _ => Self::Elsewhere,
        }
    }

    /// The word for scripts.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Missing => "missing",
            Self::Preparing => "preparing",
            Self::Unknown => "unknown",
            Self::Elsewhere => "not-from-first-server",
            Self::AskedFirst => "not-in-lookup-cache",
            Self::Cached => "cached",
        }
    }

    /// The heading for people.
    pub(super) const fn heading(self) -> &'static str {
        match self {
            Self::Refused => "REFUSED: servers have these, but nobody trusted vouches for them",
            Self::Missing => "MISSING: no server has these; they have to be built",
            Self::Preparing => "PREPARING: a server is making these available right now",
            Self::Unknown => "UNKNOWN: no server gave a definite answer about these",
            Self::Elsewhere => "ELSEWHERE: available, but not from the first server",
            Self::AskedFirst => "ASKED: available from the first server, which had to be asked",
            Self::Cached => "CACHED: available, and known from the lookup cache",
        }
    }

    pub(super) const fn hint(self) -> &'static str {
        match self {
            Self::Refused => {
                "authorise the key with `subst authorize` if you trust it; a bad signature or \
                 another item's narinfo is the server's fault: tell its administrator"
            }
            Self::Missing => {
                "name more servers with --substitute-urls, or build; a remembered no is asked \
                 again with --refresh"
            }
            Self::Preparing => "try again in a few minutes; until then they would be built",
            Self::Unknown => {
                "see `subst servers`; a server that was down is tried again after a minute, or \
                 at once with --refresh"
            }
            Self::Elsewhere => "if it matters, change the order of --substitute-urls",
            Self::AskedFirst | Self::Cached => "nothing to do",
        }
    }

    /// Whether `guix build` would have to build it now.
    pub(super) const fn must_be_built(self) -> bool {
        matches!(self, Self::Refused | Self::Missing | Self::Preparing | Self::Unknown)
    }
}
