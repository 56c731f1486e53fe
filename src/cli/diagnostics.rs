//! Diagnostics: the `tracing` events of all layers, for bug reports and for developers.
//!
//! Off by default: without `-vv` and `SUBST_LOG` no subscriber is installed, and an event costs one
//! comparison. `SUBST_LOG` selects events in the syntax of `tracing_subscriber::filter::Targets`;
//! `-vv` alone selects `debug`. Events go to the file `SUBST_LOG_FILE`, else to standard error.
//! guix-daemon's helper writes them only to a file: its standard error is the daemon's log.
//!
//! Only events of this crate are written. Libraries may log request headers, and those contain
//! passwords. User names and passwords of URLs are removed from each line, and control characters
//! are escaped.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use tracing_subscriber::filter::{Targets, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::time::uptime;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};

use crate::format::credentials::without_credentials;

use super::env::{self, Environment};
use super::error::CliError;
use super::output::{Messages, log_line, printable};

/// What `-vv` selects.
const VERBOSE_FILTER: &str = "debug";
/// How often `-v` is given for diagnostics.
const VERBOSE_COUNT: u8 = 2;
/// The first part of the targets of this crate's events.
const OWN_TARGET: &str = env!("CARGO_CRATE_NAME");

/// Who reads standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StandardError {
    /// The user or a script.
    Caller(Messages),
    /// guix-daemon, which copies it to its own log.
    Daemon,
}

/// Where diagnostics go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LogDestination {
    /// There are none.
    Nowhere,
    /// The standard error stream.
    StandardError,
    /// The file that `SUBST_LOG_FILE` names.
    File,
    /// They were requested, but guix-daemon's helper has no file to write them to.
    MissingFile,
}

/// Installs the subscriber if `verbose`, the number of `-v` options, or the environment asks for
/// diagnostics.
///
/// # Errors
/// The filter is invalid, or the file cannot be opened.
pub(super) fn start(
    environment: &Environment,
    verbose: u8,
    standard_error: StandardError,
) -> Result<LogDestination, CliError> {
    let Some(filter) = filter(environment, verbose)? else {
        return Ok(LogDestination::Nowhere);
    };

    let (destination, writer) = match (environment.path(env::SUBST_LOG_FILE), standard_error) {
        (Some(path), _) => (LogDestination::File, LogWriter::File(open_private(&path)?)),
        (None, StandardError::Daemon) => return Ok(LogDestination::MissingFile),
        (None, StandardError::Caller(messages)) => (
            LogDestination::StandardError,
            LogWriter::StandardError(messages),
        ),
    };

    let own_events = filter_fn(|metadata| {
        let target = metadata.target();
        target.split("::").next() == Some(OWN_TARGET)
    });
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_timer(uptime())
        .with_writer(writer)
        .log_internal_errors(false)
        .with_filter(own_events);

    let subscriber = tracing_subscriber::registry().with(filter).with(lines);
    // Fails only when there is a subscriber already, and this process sets none but here.
    let _ = tracing::subscriber::set_global_default(subscriber);
    Ok(destination)
}

/// The events that are requested; `None` for no diagnostics.
fn filter(environment: &Environment, verbose: u8) -> Result<Option<Targets>, CliError> {
    let text = match environment.os(env::SUBST_LOG) {
        Some(text) => text.to_string_lossy(),
        None if verbose >= VERBOSE_COUNT => VERBOSE_FILTER.into(),
        None => return Ok(None),
    };
    text.parse::<Targets>().map(Some).map_err(|error| {
        let (name, shown_text) = (env::SUBST_LOG, without_credentials(&text));
        CliError::Usage(format!(
            "{name}: `{shown_text}` is not a filter such as `debug` or `subst::http=trace`: {error}"
        ))
    })
}

/// Opens the file to append to it. A new one is readable only by its owner, since events name
/// the items and servers of a user; a symlink that another user may have put there is not followed.
fn open_private(path: &Path) -> Result<File, CliError> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
        .map_err(CliError::file("open the log file", path))
}

/// Writes each event as one line. A log that cannot be written to does not fail the command.
enum LogWriter {
    StandardError(Messages),
    File(File),
}

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> &'a Self {
        self
    }
}

impl Write for &LogWriter {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let line = clean_line(&String::from_utf8_lossy(event));
        match self {
            LogWriter::StandardError(messages) => log_line(*messages, &line),
            // One call for each line: helpers of one daemon may share the file.
            LogWriter::File(file) => (&*file).write_all(format!("{line}\n").as_bytes())?,
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An event without its line break, passwords and control characters.
fn clean_line(event: &str) -> String {
    let without_passwords = without_credentials(event.trim_end());
    printable(&without_passwords).replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_no_password_and_no_control_character() {
        let line =
            clean_line("TRACE url=http://me:Sesame@a/x text=\x1b[2J\nsubst: error: forged\n");
        assert!(!line.contains("Sesame"), "{line}");
        assert!(!line.contains(['\x1b', '\n']), "{line}");
    }

    #[test]
    fn an_invalid_filter_is_a_usage_error_with_the_reason() {
        let environment = Environment::with([(env::SUBST_LOG, "subst=loud")]);
        let error = filter(&environment, 0).unwrap_err().to_string();
        assert!(
            error.starts_with("SUBST_LOG: `subst=loud` is not a filter"),
            "{error}"
        );
        assert!(filter(&Environment::default(), 1).unwrap().is_none());
        assert!(filter(&Environment::default(), 2).unwrap().is_some());
    }
}
