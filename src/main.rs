//! The `subst` program: call the command line, turn its result into a process exit.

use std::process::ExitCode;

/// musl's own returns each large buffer to the system: a fetch would take a tenth more time.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    subst::cli::run(std::env::args_os().collect())
}
