//! Layer 6: people and scripts.

pub(crate) mod advice;
pub(crate) mod args;
pub(crate) mod commands;
pub(crate) mod context;
mod diagnostics;
pub(crate) mod dispatch;
pub(crate) mod env;
pub(crate) mod error;
pub(crate) mod exit;
pub(crate) mod file_trust;
pub(crate) mod nix_conf;
pub(crate) mod output;
mod process;
pub(crate) mod progress;
pub(crate) mod settings;

use std::borrow::Cow;
use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{CommandFactory as _, Parser as _};

use crate::format::credentials::without_credentials;
use crate::format::server_url::ServerUrl;
use crate::substitute::cancel::Cancel;
use crate::substitute::clock::Clock;

use args::{Cli, Command, ProgressMode};
use commands::substitute::Inherited;
use context::Context;
use diagnostics::{Destination, StandardError};
use env::Environment;
use error::CliError;
use exit::Exit;
use output::{Messages, Output};
use settings::{Settings, Verbosity};

/// Runs the program with these arguments (the first one is its name), and returns its exit code.
#[must_use]
pub fn run(arguments: Vec<OsString>) -> ExitCode {
    run_command(arguments).into()
}

fn run_command(arguments: Vec<OsString>) -> Exit {
    let environment = Environment::of_process();
    let arguments = match dispatch::by_name(arguments, &environment) {
        Ok(arguments) => arguments,
        Err(error) => {
            Output::new(Verbosity::Normal, Messages::Words).error(&error, None);
            return Exit::Local;
        }
    };
    process::prepare();
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            print_usage_error(&error);
            return if error.use_stderr() {
                Exit::Usage
            } else {
                Exit::Done
            };
        }
    };
    match execute(&cli, &environment) {
        Ok(exit) => exit,
        Err(error) => {
            let messages = messages(cli.global.progress);
            Output::new(Verbosity::Normal, messages).error(&error, None);
            error.exit()
        }
    }
}

/// Prints help, or what is wrong with the arguments: without the password of a URL among them.
fn print_usage_error(error: &clap::Error) {
    let text = error.to_string();
    match without_credentials(&text) {
        // Fails only when the terminal is gone.
        Cow::Borrowed(_) => drop(error.print()),
        Cow::Owned(text) => output::say(text.trim_end()),
    }
}

/// Carries out what was typed; errors of a command are shown already.
fn execute(cli: &Cli, environment: &Environment) -> Result<Exit, CliError> {
    let inherited = match &cli.command {
        // First of all: whatever is opened now may get the number of its descriptor.
        Command::Substitute(_) => Some(commands::substitute::Inherited::take(environment)?),
        _ => None,
    };
    let options = inherited.as_ref().map(|inherited| &inherited.options);
    let mut warnings = Vec::new();
    let loaded = Settings::load(&cli.global, environment, options, &mut warnings);
    let (verbosity, progress) = match &loaded {
        Ok(settings) => (settings.verbosity, Some(settings.progress)),
        Err(_) => (Verbosity::Normal, cli.global.progress),
    };
    let output = Output::new(verbosity, messages(progress));
    for warning in &warnings {
        output.warn(warning);
    }
    let settings = loaded?;
    let destination = start_diagnostics(cli, environment, &output)?;
    // Lines of diagnostics would tear bars apart.
    let is_terminal = std::io::stderr().is_terminal()
        && environment.has_movable_cursor()
        && destination != Destination::StandardError;
    log_settings(&settings);

    let mut context = Context {
        clock: clock(),
        output,
        progress: progress::choose(settings.progress, settings.verbosity, is_terminal),
        cancel: Cancel::default(),
        settings,
    };
    match carry_out(&mut context, &cli.command, inherited) {
        Ok(exit) => Ok(exit),
        Err(error) if error.is_broken_pipe() => Ok(Exit::Done),
        Err(error) => {
            context
                .output
                .error(&error, error.hint(&context.settings.advice()).as_deref());
            Ok(error.exit())
        }
    }
}

/// Installs diagnostics if they are requested, with a warning where they have no place to go.
fn start_diagnostics(
    cli: &Cli,
    environment: &Environment,
    output: &Output,
) -> Result<Destination, CliError> {
    let standard_error = match cli.command {
        Command::Substitute(_) => StandardError::Daemon,
        _ => StandardError::Caller(output.messages()),
    };
    let destination = diagnostics::start(environment, cli.global.verbose, standard_error)?;
    if destination == Destination::MissingFile {
        output.warn(
            "no diagnostics are written: as the helper of guix-daemon, subst writes them only to \
             the file that SUBST_LOG_FILE names",
        );
    }
    Ok(destination)
}

/// The first event of a run: what a bug report has to begin with.
fn log_settings(settings: &Settings) {
    tracing::debug!(
        version = env!("CARGO_PKG_VERSION"),
        store_dir = settings.store_dir().as_str(),
        root = settings.root.as_ref().map(tracing::field::debug),
        servers = ?settings.servers.iter().map(ServerUrl::as_str).collect::<Vec<_>>(),
        jobs = settings.jobs,
        refresh = settings.refresh,
        offline = settings.offline,
        "settings loaded"
    );
}

/// Who wants events gets nothing else on standard error.
fn messages(progress: Option<ProgressMode>) -> Messages {
    match progress {
        Some(ProgressMode::Json) => Messages::Events,
        _ => Messages::Words,
    }
}

fn carry_out(
    context: &mut Context,
    command: &Command,
    inherited: Option<Inherited>,
) -> Result<Exit, CliError> {
    match command {
        Command::Fetch(args) => {
            context.cancel.on_interrupt().map_err(CliError::Threads)?;
            commands::fetch::run(context, args)
        }
        Command::Query(args) => {
            context.cancel.on_interrupt().map_err(CliError::Threads)?;
            commands::query::run(context, args)
        }
        Command::Substitute(args) => {
            let inherited = inherited.expect("taken when the command was read");
            commands::substitute::run(context, args, inherited)
        }
        Command::Cache(command) => commands::cache::run(context, command),
        Command::Servers => {
            context.cancel.on_interrupt().map_err(CliError::Threads)?;
            context.cancel.end_at_once();
            commands::servers::run(context)
        }
        Command::Authorize(args) => commands::authorize::run(context, args),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "subst", &mut script);
            context.output.raw(&script)?;
            Ok(Exit::Done)
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place where the clock is read"
)]
fn clock() -> Clock {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Clock::starting_at(since_epoch.as_secs())
}
