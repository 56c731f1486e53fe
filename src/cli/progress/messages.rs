//! Messages about events, for people.

use crate::cli::download_summary;
use crate::cli::output::{self, Verbosity};
use crate::substitute::progress::{DownloadChoice, ProgressEvent};
use crate::substitute::servers::retry_text;

/// The message for an event that has a line of its own; `None` for other events.
pub(super) fn event_message(event: &ProgressEvent<'_>, verbosity: Verbosity) -> Option<String> {
    if verbosity == Verbosity::Quiet {
        return None;
    }

    let line = match event {
        ProgressEvent::ServerDown { server, reason } => {
            format!("subst: warning: {server} is not used: {reason}")
        }
        ProgressEvent::Retrying {
            server,
            is_too_busy,
            failing_for,
            ..
        } => format!("subst: {}", retry_text(server, *is_too_busy, *failing_for)),
        ProgressEvent::Warning(text) => format!("subst: warning: {text}"),
        ProgressEvent::SourceFailed {
            is_repeated: true, ..
        } if verbosity < Verbosity::Verbose => return None,
        ProgressEvent::SourceFailed {
            item, url, reason, ..
        } => {
            format!("subst: warning: {item} from {url}: {reason}")
        }
        ProgressEvent::DownloadsPlanned(summary) if verbosity >= Verbosity::Verbose => {
            format!("subst: plan: {}", download_summary::text(summary))
        }
        ProgressEvent::Started {
            item, url, choice, ..
        } if verbosity >= Verbosity::Verbose => {
            let times = choice.map(|choice| format!(" ({})", expected_times(choice)));
            format!("subst: {item} from {url}{}", times.unwrap_or_default())
        }
        _ => return None,
    };
    Some(line)
}

/// The expected time of each download, such as `lzip in 40 ms, zstd in 52 ms at 7.5 MiB/s`.
fn expected_times(choice: &DownloadChoice) -> String {
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
