//! Text for people and data for scripts; the only place that writes to standard streams.
//!
//! Data goes to standard output, everything else to standard error. Control characters and invisible
//! ones are escaped in messages, tables and JSON: they may come from servers and nars.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt::Display;
use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::path::Path;

use serde::Serialize;
use serde_json::{Value, json};

use crate::format::credentials::without_credentials;
use crate::format::error_text;
pub(crate) use crate::format::units::{bytes, part_of_bytes};

pub(crate) use crate::format::escape::printable;

use crate::substitute::clock::Clock;

use super::json_writer::EscapingWriter;
use super::live_lines;

/// How much is printed on standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verbosity {
    /// Errors only.
    Quiet,
    /// Warnings and a summary too.
    Normal,
    /// Choices and retries too.
    Verbose,
}

/// The form of what goes to standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Messages {
    /// Lines for people.
    Text,
    /// Events with the time of this clock, one JSON object a line.
    Events(Clock),
}

/// The version of the events. It changes when a field is removed or gets another meaning.
const EVENT_VERSION: u64 = 1;

/// Writes to the standard streams of a run.
pub(crate) struct Output {
    verbosity: Verbosity,
    messages: Messages,
}

impl Output {
    /// Writes to this process's standard streams.
    #[must_use]
    pub(crate) fn new(verbosity: Verbosity, messages: Messages) -> Self {
        Self {
            verbosity,
            messages,
        }
    }

    /// The form of what goes to standard error.
    #[must_use]
    pub(crate) fn messages(&self) -> Messages {
        self.messages
    }

    /// How wide the terminal is that data goes to; `None` when it goes elsewhere.
    #[must_use]
    pub(crate) fn terminal_width(&self) -> Option<usize> {
        let stdout = io::stdout();
        let size = stdout
            .is_terminal()
            .then(|| rustix::termios::tcgetwinsize(&stdout))?;

        // A serial line is a terminal and knows no size.
        let columns = size.map_or(0, |size| usize::from(size.ws_col));
        Some(if columns == 0 { USUAL_WIDTH } else { columns })
    }

    /// One line of data, visible at once.
    ///
    /// # Errors
    /// The output is a file, and the disk is full.
    pub(crate) fn line(&self, text: &str) -> io::Result<()> {
        write_data(|stdout| writeln!(stdout, "{text}"))
    }

    /// Many lines of data, escaped.
    ///
    /// # Errors
    /// As for [`Output::line`].
    pub(crate) fn lines<'a>(
        &self,
        lines: impl IntoIterator<Item = Cow<'a, str>>,
    ) -> io::Result<()> {
        write_data(|stdout| {
            for line in lines {
                writeln!(stdout, "{}", printable(&line))?;
            }
            Ok(())
        })
    }

    /// `value` as JSON, indented for people.
    ///
    /// # Errors
    /// As for [`Output::line`].
    pub(crate) fn json(&self, value: &impl Serialize) -> io::Result<()> {
        write_data(|stdout| {
            serde_json::to_writer_pretty(EscapingWriter(&mut *stdout), value)?;
            writeln!(stdout)
        })
    }

    /// Raw data.
    ///
    /// # Errors
    /// As for [`Output::line`].
    pub(crate) fn raw(&self, bytes: &[u8]) -> io::Result<()> {
        write_data(|stdout| stdout.write_all(bytes))
    }

    /// Information, unless it is to be quiet.
    pub(crate) fn note(&self, text: &str) {
        self.message("note", text, json!({ "text": text }));
    }

    /// Whether `--verbose` was given.
    #[must_use]
    pub(crate) fn is_verbose(&self) -> bool {
        self.verbosity >= Verbosity::Verbose
    }

    /// What only `--verbose` shows.
    pub(crate) fn detail(&self, text: &str) {
        if self.is_verbose() {
            self.note(text);
        }
    }

    /// The result of the whole run, unless it is to be quiet: as `text`, or as `data`, with the time it took.
    pub(crate) fn summary(&self, text: &str, data: &impl Serialize) {
        let mut data = json!(data);
        if let (Messages::Events(clock), None) = (self.messages, data.get("seconds")) {
            data["seconds"] = clock.elapsed().as_secs_f64().into();
        }
        self.message("summary", text, data);
    }

    /// Something that may be wrong, unless it is to be quiet.
    pub(crate) fn warn(&self, text: &str) {
        self.message(
            "warning",
            &format!("warning: {text}"),
            json!({ "text": text }),
        );
    }

    fn message(&self, name: &str, text: &str, data: Value) {
        match self.messages {
            _ if self.verbosity == Verbosity::Quiet => {}
            Messages::Text => say(&format!("subst: {text}")),
            Messages::Events(clock) => event(&clock, name, data),
        }
    }

    /// Says what is read from standard input if somebody has to type it, who might wait for the program.
    pub(crate) fn announce_input(&self, what: &str) {
        if io::stdin().is_terminal() {
            self.note(&format!("reading {what} from the terminal; Ctrl-D ends it"));
        }
    }

    /// What could not be done, why, and what the user can do about it.
    pub(crate) fn error(&self, error: &dyn std::error::Error, hint: Option<&str>) {
        self.failure(&error_text::message(error), error.source(), hint);
    }

    /// The same for one of several items: `what` could not be done because of `error`.
    pub(crate) fn item_error(&self, what: &str, error: &dyn std::error::Error, hint: Option<&str>) {
        self.failure(what, Some(error), hint);
    }

    fn failure(&self, what: &str, cause: Option<&dyn std::error::Error>, hint: Option<&str>) {
        let causes = std::iter::successors(cause, |error| error.source());
        // Libraries repeat the text of a cause in the error about it.
        let mut last = what.to_owned();
        let causes = causes
            .map(error_text::message)
            .filter(|cause| !cause.ends_with(&std::mem::replace(&mut last, cause.clone())));
        if let Messages::Events(clock) = self.messages {
            let causes: Vec<String> = causes.collect();
            return event(
                &clock,
                "error",
                json!({ "text": what, "causes": causes, "hint": hint }),
            );
        }

        let mut text = format!("subst: error: {what}");
        for cause in causes {
            text.push_str(&format!("\n  caused by: {cause}"));
        }
        if let Some(hint) = hint {
            text.push_str(&format!("\n  hint: {hint}"));
        }

        say(&text);
    }
}

/// Columns of a terminal that does not report its width.
const USUAL_WIDTH: usize = 80;

/// Has `write` write data to standard output, visible at once. A reader that has ended, as in `subst ... | head`,
/// wants no more of it; the rest of the run matters all the same.
fn write_data(
    write: impl FnOnce(&mut BufWriter<io::StdoutLock<'_>>) -> io::Result<()>,
) -> io::Result<()> {
    let stdout = io::stdout();
    let is_terminal = stdout.is_terminal();
    let mut writer = BufWriter::new(stdout.lock());
    let written = if is_terminal {
        live_lines::while_hidden(|| write(&mut writer).and_then(|()| writer.flush()))
    } else {
        write(&mut writer).and_then(|()| writer.flush())
    };
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// An event on standard error, with the fields that `data` has.
fn event(clock: &Clock, name: &str, data: Value) {
    let mut fields = serde_json::Map::from_iter([("event".to_owned(), name.into())]);
    if let Value::Object(data) = data {
        fields.extend(data);
    }
    say_json(clock, Value::from(fields));
}

/// One event on standard error, with its version and the time.
pub(crate) fn say_json(clock: &Clock, mut event: Value) {
    event["version"] = EVENT_VERSION.into();
    let milliseconds = clock.since_epoch().as_millis() as f64;
    event["time"] = (milliseconds / 1e3).into();

    let mut line = Vec::new();
    // Writing to memory does not fail.
    let _ = serde_json::to_writer(EscapingWriter(&mut line), &event);
    say(&String::from_utf8_lossy(&line));
}

/// One line of diagnostics on standard error.
pub(crate) fn log_line(messages: Messages, line: &str) {
    match messages {
        Messages::Text => say(line),
        Messages::Events(clock) => event(&clock, "log", json!({ "text": line })),
    }
}

/// One line (or more) on standard error, escaped. A terminal that is gone is no reason to fail.
pub(crate) fn say(text: &str) {
    live_lines::write_above(&printable(text));
}

/// The name of a file for messages; it may be a URL with a password, given in the wrong place.
pub(crate) fn shown_path(path: &Path) -> String {
    without_credentials(&path.display().to_string()).into_owned()
}

/// A number of seconds as a duration, such as `2 h 5 min`.
#[must_use]
pub(crate) fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86400 => match seconds / 60 % 60 {
            0 => format!("{} h", seconds / 3600),
            minutes => format!("{} h {minutes} min", seconds / 3600),
        },
        _ => format!("{} d {} h", seconds / 86400, seconds / 3600 % 24),
    }
}

/// A time that was estimated, such as `40 ms` or `2.1 s`.
#[must_use]
pub(crate) fn estimate(seconds: f64) -> String {
    if seconds < 1.0 {
        format!("{:.0} ms", seconds * 1e3)
    } else {
        format!("{seconds:.1} s")
    }
}

/// `count` things, with the right ending.
#[must_use]
pub(crate) fn count<N>(count: N, one: &str, many: &str) -> String
where
    N: Display + PartialEq + From<u8>,
{
    format!("{count} {}", if count == N::from(1) { one } else { many })
}

/// What has to be downloaded: `size` bytes with these compression methods, and `unsized_downloads` whose size
/// servers do not say.
#[must_use]
pub(crate) fn to_download(
    size: u64,
    unsized_downloads: usize,
    methods: &BTreeSet<&'static str>,
) -> String {
    let size = match (size, unsized_downloads) {
        (_, 0) => bytes(size),
        (0, _) => "an unknown size".to_owned(),
        _ => format!("at least {}", bytes(size)),
    };
    let methods = methods.iter().copied();
    let methods: Vec<&str> = methods.filter(|&method| method != "none").collect();
    if methods.is_empty() {
        format!("{size} to download")
    } else {
        format!("{size} to download as {}", methods.join(", "))
    }
}

/// What is said of unfinished downloads that are kept.
pub(crate) fn kept_text(kept: u64) -> String {
    match kept {
        0 => String::new(),
        _ => format!(", {} kept for the next run", bytes(kept)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_have_units() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(5 << 30), "5.0 GiB");
        let no_methods = BTreeSet::new();
        assert_eq!(to_download(9, 0, &no_methods), "9 B to download");
        assert_eq!(to_download(9, 1, &no_methods), "at least 9 B to download");
        assert_eq!(
            to_download(0, 1, &no_methods),
            "an unknown size to download"
        );
        assert_eq!(duration(59), "59 s");
        assert_eq!(duration(3600), "1 h");
        assert_eq!(duration(129_600), "1 d 12 h");
        assert_eq!(estimate(0.0404), "40 ms");
        assert_eq!(estimate(61.25), "61.2 s");
    }
}
