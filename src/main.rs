//! The `subst` program: call the command line, turn its result into a process exit.

use std::process::ExitCode;

fn main() -> ExitCode {
    subst::cli::run(std::env::args_os().collect())
}
