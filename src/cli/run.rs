//! A run of the program: from its arguments to its exit code.
//!
//! Every error of a command is printed here and nowhere else, with what the user can do about it.

use std::borrow::Cow;
use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::num::NonZero;
use std::sync::Arc;

use crate::format::credentials::without_credentials;
use crate::format::escape::is_printable;
use crate::format::server_url::ServerUrl;
use crate::substitute::cancel::Cancel;
use crate::substitute::clock::Clock;

use super::args::{Cli, Command, MirrorCommand};
use super::command_line;
use super::commands::substitute::Inherited;
use super::completion::completion_text;
use super::context::Context;
use super::diagnostics::{self, LogDestination, StandardError};
use super::dispatch;
use super::env::Environment;
use super::error::CliError;
use super::exit::Exit;
use super::guessed_words::instead_of;
use super::output::{self, Messages, Output, Verbosity};
use super::progress::{self, TerminalStyle};
use super::settings::{self, ProgressMode, Settings, SettingsFindings};
use super::{commands, manual, process, system_clock};

/// Runs the program with these arguments, of which the first one is its name.
pub(super) fn run_command(arguments: Vec<OsString>) -> Exit {
    let environment = Environment::of_process();
    let arguments = match dispatch::by_name(arguments, &environment) {
        Ok(arguments) => arguments,
        Err(error) => {
            Output::new(Verbosity::Normal, Messages::Text).error(&error, None);
            return Exit::Local;
        }
    };

    match command_line::parse(&arguments) {
        Ok(cli) => {
            // A program that is executed later inherits all of it.
            if !matches!(cli.command, Command::Run(_)) {
                process::prepare();
            }
            execute(&cli, &arguments, &environment)
        }
        Err(error) => {
            print_usage_error(&error);
            if error.use_stderr() {
                Exit::Usage
            } else {
                Exit::Done
            }
        }
    }
}

/// Prints help, or what is wrong with the arguments: without the password of a URL among them, and
/// without control characters.
fn print_usage_error(error: &clap::Error) {
    let text = error.to_string();
    let shown = without_credentials(&text);
    if matches!(shown, Cow::Borrowed(_)) && text.chars().all(is_printable) {
        // Fails only when the terminal is gone.
        drop(error.print());
    } else {
        output::say(shown.trim_end());
    }
}

/// Carries out the command; errors are printed.
fn execute(cli: &Cli, arguments: &[OsString], environment: &Environment) -> Exit {
    let clock = clock();
    let progress = settings::early_progress(&cli.common, environment);
    let messages = messages(progress, &cli.command, clock);
    let early_output = Output::new(Verbosity::Normal, messages);
    if let Some(done) = carry_out_without_settings(cli, environment, &early_output) {
        return match done {
            Ok(exit) => exit,
            Err(error) => fail(&early_output, &error, None),
        };
    }

    // First of all: whatever is opened now may get the number of the daemon's descriptor.
    let inherited = match &cli.command {
        Command::Substitute(_) => match Inherited::take(environment) {
            Ok(inherited) => Some(inherited),
            Err(error) => return fail(&early_output, &error, None),
        },
        _ => None,
    };

    let mut context =
        match prepare_context(cli, environment, inherited.as_ref(), clock, early_output) {
            Ok(context) => context,
            Err((output, errors)) => return fail_early(&output, &errors, inherited.is_some()),
        };
    context.settings.invocation.words = shown_words(arguments);

    match carry_out(&mut context, &cli.command, inherited) {
        Ok(exit) => exit,
        Err(error) if error.is_daemon_gone() => Exit::Done,
        Err(error) => {
            let hint = guess(&error, &context).or_else(|| error.hint(&context.settings.advice()));
            fail(&context.output, &error, hint.as_deref())
        }
    }
}

/// Carries out a command that needs no valid settings; `None` for another one.
fn carry_out_without_settings(
    cli: &Cli,
    environment: &Environment,
    output: &Output,
) -> Option<Result<Exit, CliError>> {
    match &cli.command {
        Command::Config(command) => {
            let mut inspection = settings::inspect(&cli.common, environment);
            let started = start_diagnostics(cli, environment, output);
            let errors = inspection.findings.errors.drain(..).map(CliError::from);
            let errors = errors.chain(started.err()).collect();
            let is_json = cli.common.json;
            Some(commands::config::run(
                *command,
                inspection,
                errors,
                is_json,
                output,
                clock(),
            ))
        }
        Command::Completions { shell } => {
            let written = output.raw(shell.script().as_bytes());
            Some(written.map(|()| Exit::Done).map_err(CliError::from))
        }
        Command::CompleteWords { words } => {
            let words = words.iter().map(|word| word.to_string_lossy().into_owned());
            let text = completion_text(&words.collect::<Vec<_>>(), environment);
            let written = output.raw(text.as_bytes());
            Some(written.map(|()| Exit::Done).map_err(CliError::from))
        }
        Command::Man { directory } => {
            let written = manual::write_pages(directory);
            let written =
                written.map_err(CliError::output_file("write manual pages to", directory));
            Some(written.map(|()| Exit::Done))
        }
        _ => None,
    }
}

/// The arguments for hints that repeat them: without the program's name, and without credentials.
fn shown_words(arguments: &[OsString]) -> Vec<String> {
    let words = arguments.iter().skip(1).map(|word| word.to_string_lossy());
    words
        .map(|word| without_credentials(&word).into_owned())
        .collect()
}

/// What to type instead of a word that is no item and no file.
fn guess(error: &CliError, context: &Context) -> Option<String> {
    let words = &context.settings.invocation.words;
    instead_of(&command_line::command(), words, error.rejected_word()?)
}

fn fail(output: &Output, error: &CliError, hint: Option<&str>) -> Exit {
    output.error(error, hint);
    error.exit()
}

/// Prints what keeps a command from starting. The helper of guix-daemon ends then, and the daemon's client fails:
/// going on without some settings could mean other servers or keys. The client's user may not know that it exists.
fn fail_early(output: &Output, errors: &[CliError], is_helper: bool) -> Exit {
    let mut exit = Exit::Usage;
    for (index, error) in errors.iter().enumerate() {
        let is_last = index + 1 == errors.len();
        let hint = match error {
            _ if is_helper => is_last.then_some(HELPER_SETTINGS_HINT),
            CliError::Settings(error) => error.hint(),
            _ => None,
        };
        exit = exit.max(fail(output, error, hint));
    }
    exit
}

/// Where to correct the settings of the helper.
const HELPER_SETTINGS_HINT: &str = "guix-daemon gets no substitutes until this is corrected; \
    `sudo subst config check` checks the settings files, and variables are set in the environment of \
    guix-daemon; `--no-substitutes` does without";

/// Loads the settings and starts diagnostics. Errors come with the output to print them on.
fn prepare_context(
    cli: &Cli,
    environment: &Environment,
    inherited: Option<&Inherited>,
    clock: Clock,
    early_output: Output,
) -> Result<Context, (Output, Vec<CliError>)> {
    let daemon = inherited.map(|inherited| &inherited.options);
    let mut findings = SettingsFindings::default();
    let mut loaded = Settings::load(&cli.common, environment, daemon, &mut findings);
    if let (Some(settings), Some(server)) = (&mut loaded, target_bucket(&cli.command)) {
        settings.add_bucket(server, "--to", environment, &mut findings);
        loaded = loaded.filter(|_| findings.errors.is_empty());
    }
    let output = match &loaded {
        Some(settings) => Output::new(
            settings.verbosity,
            messages(Some(settings.progress), &cli.command, clock),
        ),
        None => early_output,
    };

    for warning in &findings.warnings {
        output.warn(warning);
    }
    warn_of_ignored_store(cli, &findings, &output);

    let Some(settings) = loaded else {
        let errors = findings.errors.into_iter().map(CliError::from);
        return Err((output, errors.collect()));
    };
    if let Err(error) = start_diagnostics(cli, environment, &output) {
        return Err((output, vec![error]));
    }
    log_settings(&settings);

    let terminal = terminal_style(environment);
    let run_progress = progress::for_mode(settings.progress, settings.verbosity, terminal, clock);
    let run_progress = Arc::new(run_progress);
    Ok(Context {
        clock,
        progress: Arc::clone(&run_progress) as _,
        run_progress,
        output,
        cancel: Cancel::default(),
        // Reads files that the sandbox hides.
        cores: std::thread::available_parallelism().map_or(2, NonZero::get),
        settings,
    })
}

/// The bucket that the command writes to.
fn target_bucket(command: &Command) -> Option<&ServerUrl> {
    match command {
        Command::Mirror(mirror) => match &mirror.command {
            Some(MirrorCommand::Verify(verify)) => verify.to.bucket(),
            Some(MirrorCommand::Gc(gc)) => gc.to.bucket(),
            None => mirror.copy.as_ref()?.to.bucket(),
        },
        _ => None,
    }
}

/// Names the settings that guix-daemon's helper ignores, once for each of the daemon's clients: the
/// daemon sends a query before it starts helpers that substitute.
fn warn_of_ignored_store(cli: &Cli, findings: &SettingsFindings, output: &Output) {
    let is_first = !matches!(&cli.command, Command::Substitute(args) if args.substitute);
    if is_first && let Some(warning) = findings.left_to_daemon_warning() {
        output.warn(&warning);
    }
}

/// What the terminal on standard error can show; `None` when lines on it cannot be changed.
fn terminal_style(environment: &Environment) -> Option<TerminalStyle> {
    let is_live = std::io::stderr().is_terminal()
        && environment.has_movable_cursor()
        && !environment.is_continuous_integration();
    is_live.then(|| TerminalStyle {
        has_color: environment.allows_color(),
        has_unicode: environment.has_unicode(),
    })
}

/// Installs diagnostics if they are requested, with a warning where they have no place to go.
fn start_diagnostics(
    cli: &Cli,
    environment: &Environment,
    output: &Output,
) -> Result<(), CliError> {
    let standard_error = match cli.command {
        Command::Substitute(_) => StandardError::Daemon,
        _ => StandardError::Caller(output.messages()),
    };
    let destination = diagnostics::start(environment, cli.common.verbose, standard_error)?;
    if destination == LogDestination::MissingFile {
        output.warn(
            "no diagnostics are written: as the helper of guix-daemon, subst writes them only to \
             the file that SUBST_LOG_FILE names",
        );
    }
    Ok(())
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

/// With progress as events, standard error has nothing but events. That of guix-daemon's helper is shown
/// to people.
fn messages(progress: Option<ProgressMode>, command: &Command, clock: Clock) -> Messages {
    match progress {
        Some(ProgressMode::Json) if !matches!(command, Command::Substitute(_)) => {
            Messages::Events(clock)
        }
        _ => Messages::Text,
    }
}

fn carry_out(
    context: &mut Context,
    command: &Command,
    inherited: Option<Inherited>,
) -> Result<Exit, CliError> {
    if matches!(
        command,
        Command::Fetch(_)
            | Command::Query(_)
            | Command::Challenge(_)
            | Command::Endorse(_)
            | Command::Mirror(_)
            | Command::Servers
            | Command::Verify(_)
            | Command::Gc(_)
    ) {
        context.cancel.on_interrupt().map_err(CliError::Threads)?;
    }
    if matches!(
        command,
        Command::Fetch(_)
            | Command::Query(_)
            | Command::Mirror(_)
            | Command::Substitute(_)
            | Command::Verify(_)
    ) {
        process::check_memory_limit()?;
    }

    match command {
        Command::Fetch(args) => commands::fetch::run(context, args),
        Command::Query(args) => commands::query::run(context, args),
        Command::Run(args) => commands::run::run(context, args),
        Command::Challenge(args) => commands::challenge::run(context, args),
        Command::Endorse(args) => commands::endorse::run(context, args),
        Command::Mirror(args) => commands::mirror::run(context, args),
        Command::Substitute(args) => {
            let inherited = inherited.expect("execute takes it for this command");
            commands::substitute::run(context, args, inherited)
        }
        Command::Gc(args) => commands::gc::run(context, args),
        Command::Roots(args) => commands::roots::run(context, args),
        Command::Cache(command) => commands::cache::run(context, command),
        Command::Servers => commands::servers::run(context),
        Command::Verify(args) => commands::verify::run(context, args),
        Command::Authorize(args) => commands::authorize::run(context, args),
        Command::Config(_)
        | Command::Completions { .. }
        | Command::CompleteWords { .. }
        | Command::Man { .. } => {
            unreachable!("these commands are carried out without settings")
        }
    }
}

fn clock() -> Clock {
    Clock::starting_at(system_clock::since_epoch())
}
