//! Layer 6: people and scripts.

mod advice;
mod args;
mod cache_directory;
mod command_help;
mod command_line;
mod commands;
mod completion;
mod confinement;
mod context;
mod diagnostics;
mod dispatch;
mod download_summary;
mod env;
mod error;
mod exit;
mod file_trust;
mod guessed_words;
mod item_argument;
mod item_failures;
mod item_hint;
mod json_writer;
mod key_advice;
mod keys;
mod live_lines;
mod local_time;
mod manual;
mod mirror_place;
pub(crate) mod nix_conf;
mod output;
mod output_file;
mod process;
mod program_error;
mod progress;
mod run;
mod settings;
mod shell_command;
mod start_state;
mod store_hint;
mod store_observer;
mod store_to_read;
mod suggestion;
mod system_clock;
mod text;

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs the program with these arguments (the first one is its name), and returns its exit code.
///
/// It reads the environment and settings files, prints to standard output and standard error, and
/// handles signals, as the program does. Call it once in a process: before it connects to a server, it
/// confines the process to the files that the command needs.
#[must_use]
pub fn run(arguments: Vec<OsString>) -> ExitCode {
    run::run_command(arguments).into()
}
