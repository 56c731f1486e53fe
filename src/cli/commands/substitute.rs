//! `subst substitute`: serves guix-daemon as its substituter helper.

use crate::cli::args::SubstituteArgs;
use crate::cli::context::Context;
use crate::cli::env::Environment;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;

/// Serves requests until the end of input.
///
/// # Errors
/// What keeps it from even starting.
pub fn run(
    _context: &Context,
    _args: &SubstituteArgs,
    _environment: &Environment,
) -> Result<Exit, CliError> {
    Ok(Exit::Usage)
}
