//! Progress for people (bars, lines) and for scripts (JSON events), all on standard error.

mod bars;
mod json;
mod plain;
mod screen;
mod tally;

use std::sync::Arc;

use crate::substitute::download::choice::DownloadChoice;
use crate::substitute::progress::{Progress, ProgressEvent};

use super::output::{self, Verbosity, printable, say};
use super::settings::ProgressMode;

/// What shows progress as `mode` says. Bars need a terminal.
#[must_use]
pub(crate) fn choose(
    mode: ProgressMode,
    verbosity: Verbosity,
    is_terminal: bool,
) -> Arc<dyn Progress> {
    match mode {
        ProgressMode::Auto if is_terminal && verbosity > Verbosity::Quiet => {
            Arc::new(bars::Bars::new(verbosity))
        }
        ProgressMode::Auto | ProgressMode::None => Arc::new(Warnings { verbosity }),
        ProgressMode::Plain => Arc::new(plain::Plain::new(verbosity)),
        ProgressMode::Json => Arc::new(json::JsonProgress),
    }
}

/// The words for events that deserve a line of their own; `None` for those that do not.
fn words(event: &ProgressEvent<'_>, verbosity: Verbosity) -> Option<String> {
    let line = match event {
        ProgressEvent::ServerDown { server, reason } => {
            format!(
                "subst: warning: {} is not used: {}",
                printable(server),
                printable(&reason.to_string())
            )
        }
        ProgressEvent::Retrying {
            server,
            failing_for,
            ..
        } => {
            let seconds = failing_for.as_secs();
            format!(
                "subst: {} does not answer, retrying ({seconds} s)",
                printable(server)
            )
        }
        ProgressEvent::Warning(text) => format!("subst: warning: {}", printable(text)),
        ProgressEvent::SourceFailed { item, url, reason } => {
            format!(
                "subst: warning: {item} from {}: {}",
                printable(url),
                printable(&reason.to_string())
            )
        }
        ProgressEvent::Started {
            item, url, choice, ..
        } if verbosity >= Verbosity::Verbose => {
            let why = choice.map(|choice| format!(" ({})", choice_words(choice)));
            format!(
                "subst: {item} from {}{}",
                printable(url),
                why.unwrap_or_default()
            )
        }
        _ => return None,
    };
    Some(line)
}

/// Such as `lzip in 40 ms, zstd in 52 ms at 7.5 MiB/s`.
fn choice_words(choice: &DownloadChoice) -> String {
    let expected: Vec<String> = choice
        .expected
        .iter()
        .map(|(method, seconds)| format!("{method} in {}", output::estimate(*seconds)))
        .collect();
    let assumed = if choice.link_is_measured {
        ""
    } else {
        ", assumed"
    };
    format!(
        "{} at {}/s{assumed}",
        expected.join(", "),
        output::bytes(choice.link)
    )
}

/// Shows nothing but warnings.
struct Warnings {
    verbosity: Verbosity,
}

impl Progress for Warnings {
    fn event(&self, event: ProgressEvent<'_>) {
        if self.verbosity > Verbosity::Quiet
            && let Some(line) = words(&event, self.verbosity)
        {
            say(&line);
        }
    }
}
