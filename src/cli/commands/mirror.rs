//! `subst mirror`: copies narinfos and nars of servers to a directory or a bucket, and takes care of them.

mod gc;
mod hint;
mod items;
mod report;
mod run;
mod target;
mod verify;
mod verify_view;

use crate::cli::args::{MirrorCommand, MirrorInvocation};
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;

/// Does what `invocation` says.
///
/// # Errors
/// Those of what is done.
pub(crate) fn run(context: &Context, invocation: &MirrorInvocation) -> Result<Exit, CliError> {
    match (&invocation.command, &invocation.copy) {
        (Some(_), Some(_)) => Err(CliError::Usage(
            "a copy and a command: give `verify` and `gc` their own options, behind their names"
                .to_owned(),
        )),
        (Some(MirrorCommand::Verify(args)), None) => verify::run(context, args),
        (Some(MirrorCommand::Gc(args)), None) => gc::run(context, args),
        (None, Some(args)) => run::run(context, args),
        (None, None) => unreachable!("an argument of a copy is required without a command"),
    }
}
