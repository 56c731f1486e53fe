//! Exit codes: how a run ended, for scripts.

use std::process::ExitCode;

use crate::substitute::install::FailureClass;

/// How a run ended. When several apply, the largest one wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Exit {
    /// Everything asked for was done.
    Done = 0,
    /// Something is not available: a definite no.
    NotAvailable = 1,
    /// The command line or a setting is wrong.
    Usage = 2,
    /// Refused: trust or integrity.
    Refused = 3,
    /// The network: no definite answer, or a download that failed everywhere.
    Network = 4,
    /// This machine: disk, permissions, database, locks.
    Local = 5,
    /// The user stopped it.
    Interrupted = 130,
}

impl Exit {
    /// All exit codes.
    pub(crate) const ALL: &'static [Self] = &[
        Self::Done,
        Self::NotAvailable,
        Self::Usage,
        Self::Refused,
        Self::Network,
        Self::Local,
        Self::Interrupted,
    ];

    /// What it means, for help.
    #[must_use]
    pub(crate) fn meaning(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::NotAvailable => "something is not available",
            Self::Usage => "wrong usage, or a wrong setting",
            Self::Refused => "refused: trust or integrity",
            Self::Network => "network: no definite answer, or a download failed everywhere",
            Self::Local => "local: disk, permissions, database, lock",
            Self::Interrupted => "interrupted",
        }
    }
}

impl From<FailureClass> for Exit {
    fn from(class: FailureClass) -> Self {
        match class {
            FailureClass::Absent => Self::NotAvailable,
            FailureClass::Refused => Self::Refused,
            FailureClass::Transient => Self::Network,
            FailureClass::Local => Self::Local,
            FailureClass::Interrupted => Self::Interrupted,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_exit_code_wins() {
        let all = [Exit::NotAvailable, Exit::Network, Exit::Refused];
        assert_eq!(all.into_iter().max(), Some(Exit::Network));
        assert_eq!(Exit::Interrupted as u8, 130);
    }
}
