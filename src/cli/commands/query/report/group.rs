//! What an item's answers mean for the user: one kind of miss, with one thing to do about it.

use crate::substitute::answer::{Answer, Found, Origin, Said, Status};
use crate::trust::verdict::Refusal;

/// Kinds of misses, gravest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Group {
    /// A narinfo whose signature does not hold, or is about something else.
    BadSignature,
    /// The narinfo of another item.
    WrongItem,
    /// A narinfo that cannot be read, or names no download that can be used.
    Unusable,
    /// A narinfo without a signature.
    Unsigned,
    /// A narinfo signed by a key that is not authorised.
    UnauthorizedKey,
    /// A definite no everywhere, said just now by somebody.
    Missing,
    /// A definite no everywhere, all of it remembered.
    MissingRemembered,
    /// A server is preparing it.
    Preparing,
    /// No definite answer: servers are down, or were a moment ago.
    ServerDown,
    /// No definite answer: a server answers with an error about this item.
    ServerError,
    /// Not in the lookup cache, and nothing else was to be asked.
    Offline,
    /// From another server than the first.
    Elsewhere,
    /// From the first server, which had to be asked.
    AskedFirst,
    /// From the first server, known from the lookup cache: nothing was missed.
    Cached,
}

impl Group {
    /// In the order in which they are told.
    pub(super) const ALL: [Self; 14] = [
        Self::BadSignature,
        Self::WrongItem,
        Self::Unusable,
        Self::Unsigned,
        Self::UnauthorizedKey,
        Self::Missing,
        Self::MissingRemembered,
        Self::Preparing,
        Self::ServerDown,
        Self::ServerError,
        Self::Offline,
        Self::Elsewhere,
        Self::AskedFirst,
        Self::Cached,
    ];

    pub(super) fn of(found: &Found) -> Self {
        let all = &found.answers;
        match found.status {
            Status::Available => Self::of_available(found),
            Status::Refused => all.iter().find_map(Self::of_refused).unwrap_or(Self::Unusable),
            Status::Preparing => Self::Preparing,
            Status::Missing if all.iter().all(is_remembered) => Self::MissingRemembered,
            Status::Missing => Self::Missing,
            Status::Unknown if all.iter().any(|answer| answer.said == Said::Offline) => {
                Self::Offline
            }
            // Words of a server about the item are remembered for it; that it is down is not.
            Status::Unknown if all.iter().any(is_error_of_server) => Self::ServerError,
            Status::Unknown => Self::ServerDown,
        }
    }

    fn of_available(found: &Found) -> Self {
        match found.answers.first() {
            Some(first) if first.said == Said::Authorized => match first.origin {
                Origin::Cache { .. } => Self::Cached,
                Origin::Network => Self::AskedFirst,
            },
            _ => Self::Elsewhere,
        }
    }

    fn of_refused(answer: &Answer) -> Option<Self> {
        match &answer.said {
            Said::Refused(Refusal::WrongItem { .. }) => Some(Self::WrongItem),
            Said::Refused(Refusal::Unsigned) => Some(Self::Unsigned),
            Said::Refused(Refusal::UnauthorizedKey { .. }) => Some(Self::UnauthorizedKey),
            Said::Refused(
                Refusal::SignedHashMismatch
                | Refusal::InvalidSignature
                | Refusal::CorruptSignature { .. },
            ) => Some(Self::BadSignature),
            Said::Unusable | Said::Unreadable(_) => Some(Self::Unusable),
            _ => None,
        }
    }

    /// The word for scripts.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::BadSignature => "bad-signature",
            Self::WrongItem => "wrong-item",
            Self::Unusable => "unusable",
            Self::Unsigned => "unsigned",
            Self::UnauthorizedKey => "unauthorized-key",
            Self::Missing => "missing",
            Self::MissingRemembered => "missing-remembered",
            Self::Preparing => "preparing",
            Self::ServerDown => "server-down",
            Self::ServerError => "server-error",
            Self::Offline => "offline",
            Self::Elsewhere => "not-from-first-server",
            Self::AskedFirst => "not-in-lookup-cache",
            Self::Cached => "cached",
        }
    }

    /// The heading for people.
    pub(super) const fn heading(self) -> &'static str {
        match self {
            Self::BadSignature => "REFUSED, the signature is not good",
            Self::WrongItem => "REFUSED, the server answered for another item",
            Self::Unusable => "REFUSED, the server's answer cannot be used",
            Self::Unsigned => "REFUSED, not signed",
            Self::UnauthorizedKey => "REFUSED, signed by a key that is not authorised here",
            Self::Missing => "MISSING, no server has it",
            Self::MissingRemembered => "MISSING, no server had it when asked last",
            Self::Preparing => "PREPARING, a server is making it available",
            Self::ServerDown => "UNKNOWN, who might have it could not be reached",
            Self::ServerError => "UNKNOWN, a server answered with an error",
            Self::Offline => "UNKNOWN, not in the lookup cache",
            Self::Elsewhere => "AVAILABLE, but not from the first server",
            Self::AskedFirst => "AVAILABLE, the first server had to be asked",
            Self::Cached => "AVAILABLE, known from the lookup cache",
        }
    }

    /// What to do about it.
    pub(super) const fn hint(self) -> &'static str {
        match self {
            Self::BadSignature => {
                "the server, or somebody on the way, has changed or damaged what was signed; \
                 nothing of it is used; tell the server's administrator"
            }
            Self::WrongItem => {
                "the server mixes up its items, or a proxy its answers; nothing of it is used; \
                 tell the server's administrator"
            }
            Self::Unusable => "this is no narinfo with a usable URL; tell its administrator",
            Self::Unsigned => "the server does not sign; its administrator has to set up a key",
            Self::UnauthorizedKey => {
                "if you trust this server, get its public key from its administrator and run \
                 `subst authorize FILE` (or `guix archive --authorize`)"
            }
            Self::Missing => "build it, or name a server that has it with --substitute-urls",
            Self::MissingRemembered => {
                "--refresh asks again now; else the answer holds for the time shown"
            }
            Self::Preparing => "ask again in a few minutes; built here it may be sooner or later",
            Self::ServerDown => {
                "`subst servers` shows who is up; --refresh tries them again at once"
            }
            Self::ServerError => "ask again later, or tell the server's administrator",
            Self::Offline => "leave out --offline to ask the servers",
            Self::Elsewhere => {
                "nothing to do; the order of --substitute-urls decides who is preferred"
            }
            Self::AskedFirst | Self::Cached => "nothing to do",
        }
    }

    /// Whether there is something to do that the user may not know.
    pub(super) const fn is_worth_a_hint(self) -> bool {
        !matches!(self, Self::AskedFirst | Self::Cached)
    }

    /// Whether `guix build` would have to build it now.
    pub(super) const fn must_be_built(self) -> bool {
        !matches!(self, Self::Elsewhere | Self::AskedFirst | Self::Cached)
    }
}

fn is_remembered(answer: &Answer) -> bool {
    matches!(answer.origin, Origin::Cache { .. })
}

fn is_error_of_server(answer: &Answer) -> bool {
    matches!(answer.said, Said::Failed(_)) && answer.expires_at.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::store_path::StorePath;
    use crate::substitute::answer::status_without_authority;

    fn group(answers: Vec<Answer>) -> Group {
        let path = StorePath::parse(&format!("{}-x", "0".repeat(32))).unwrap();
        let status = status_without_authority(&answers);
        let (authority, sources) = (None, Vec::new());
        Group::of(&Found { path, status, authority, sources, answers })
    }

    fn remembered(said: Said) -> Answer {
        let origin = Origin::Cache { asked_at: 1, expires_at: 9 };
        Answer { said, origin, expires_at: Some(9) }
    }

    #[test]
    fn every_kind_of_miss_is_told_apart() {
        let key = "E8".to_owned();
        let down = || Answer::of(Said::Failed("connection refused".into()));
        let cases = [
            (vec![Said::Refused(Refusal::InvalidSignature)], Group::BadSignature),
            (vec![Said::Refused(Refusal::Unsigned)], Group::Unsigned),
            (vec![Said::Refused(Refusal::UnauthorizedKey { key })], Group::UnauthorizedKey),
            (vec![Said::Unreadable("no".into())], Group::Unusable),
            (vec![Said::Missing(404), Said::Unusable], Group::Unusable),
            (vec![Said::Missing(404), Said::Baking(404)], Group::Preparing),
            (vec![Said::Missing(404), Said::Skipped("down".into())], Group::ServerDown),
            (vec![Said::Offline], Group::Offline),
        ];
        for (said, expected) in cases {
            assert_eq!(group(said.iter().cloned().map(Answer::of).collect()), expected, "{said:?}");
        }
        assert_eq!(group(vec![down()]), Group::ServerDown);
        assert_eq!(group(vec![remembered(Said::Failed("500".into()))]), Group::ServerError);
        let (old, new) = (remembered(Said::Missing(404)), Answer::of(Said::Missing(404)));
        assert_eq!(group(vec![old.clone(), old.clone()]), Group::MissingRemembered);
        assert_eq!(group(vec![old, new]), Group::Missing);
    }

    #[test]
    fn all_groups_are_told_gravest_first() {
        assert!(Group::ALL.is_sorted());
    }
}
