//! What the help of a command consists of.

use crate::cli::exit::Exit;
use crate::cli::settings::OptionGroup;

/// The help of a command.
pub(crate) struct CommandHelp {
    /// The names that lead to the command; none for the program itself.
    pub(crate) path: &'static [&'static str],
    /// The shared options that it uses.
    pub(crate) groups: &'static [OptionGroup],
    /// What it is typically used for.
    pub(crate) examples: &'static [CommandExample],
    /// How it may end.
    pub(crate) exits: &'static [Exit],
    /// What else a user should know.
    pub(crate) notes: &'static str,
}

/// A command line that works when the placeholders in it are replaced.
pub(crate) struct CommandExample {
    /// What is typed.
    pub(crate) command: &'static str,
    /// What it does.
    pub(crate) purpose: &'static str,
}

/// A command line and its purpose.
pub(super) const fn example(command: &'static str, purpose: &'static str) -> CommandExample {
    CommandExample { command, purpose }
}

/// What a command can end with that only reads or changes local files.
pub(super) const LOCAL_EXITS: &[Exit] = &[Exit::Done, Exit::Usage, Exit::Local];
