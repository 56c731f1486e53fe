//! What is known of one server's answer about one item.
//!
//! Only the first answer of a server counts, unless it came from the lookup cache and was requested
//! again: then it counts until the server has answered, also if that fails. So a server that is down or
//! too slow does not take back what it stated before.

use crate::substitute::outcome::{AnswerOrigin, LookupOutcome, ServerAnswer};

/// What is known of one server's answer.
#[derive(Debug, Clone)]
pub(super) enum AnswerSlot {
    /// Nothing yet; it can be requested.
    Open,
    /// The lookup cache has a narinfo; its signature is being checked.
    Cached,
    /// It has been requested from the server.
    Requested,
    /// The lookup cache had this answer, and another one has been requested from the server.
    RequestedAgain(ServerAnswer),
    /// Known.
    Answered(ServerAnswer),
}

impl AnswerSlot {
    /// The answer so far.
    pub(super) fn known(&self) -> Option<&ServerAnswer> {
        match self {
            Self::Answered(answer) | Self::RequestedAgain(answer) => Some(answer),
            Self::Open | Self::Cached | Self::Requested => None,
        }
    }

    /// Whether the server owes an answer.
    pub(super) fn is_owed(&self) -> bool {
        matches!(self, Self::Requested | Self::RequestedAgain(_))
    }

    /// Takes `answer`, if it counts; whether it does.
    pub(super) fn accept(&mut self, answer: ServerAnswer) -> bool {
        let earlier = match self {
            Self::Answered(_) => return false,
            Self::RequestedAgain(earlier) if !answer.outcome.is_from_server() => earlier.clone(),
            Self::Open | Self::Cached | Self::Requested | Self::RequestedAgain(_) => {
                *self = Self::Answered(answer);
                return true;
            }
        };
        *self = Self::Answered(earlier);
        false
    }

    /// Opens it again if the server was skipped; whether it was.
    pub(super) fn reopen(&mut self) -> bool {
        let known = self.known().map(|answer| &answer.outcome);
        let is_skipped = matches!(known, Some(LookupOutcome::Skipped(_)));
        if is_skipped {
            *self = Self::Open;
        }
        is_skipped
    }

    /// Notes that the answer is requested again if it came from the lookup cache; whether it did.
    pub(super) fn request_again(&mut self) -> bool {
        let Self::Answered(answer) = self else {
            return false;
        };
        let is_cached = matches!(answer.origin, AnswerOrigin::Cache { .. });
        if is_cached {
            *self = Self::RequestedAgain(answer.clone());
        }
        is_cached
    }
}
