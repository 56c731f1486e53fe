//! The shells, and the scripts that they read.

use clap::ValueEnum;

/// A shell with completions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CompletionShell {
    /// GNU bash.
    Bash,
    /// Z shell.
    Zsh,
    /// fish.
    Fish,
}

impl CompletionShell {
    /// What the shell has to read.
    #[must_use]
    pub(crate) fn script(self) -> &'static str {
        match self {
            Self::Bash => include_str!("subst.bash"),
            Self::Zsh => include_str!("subst.zsh"),
            Self::Fish => include_str!("subst.fish"),
        }
    }
}
