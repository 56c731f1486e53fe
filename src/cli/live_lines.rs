//! The lines at the bottom of the terminal on standard error that change while the program works.
//!
//! Whatever else is written meanwhile goes above them. The cursor rests at the start of the first of
//! them: a terminal that is resized may wrap its rows anew, and moves the cursor along with its text,
//! so that everything from the cursor on can always be erased. Wrapping is switched off while the lines
//! are written, for a window that becomes narrower at that moment.
//!
//! The terminal may be gone at any moment, when its window is closed or a connection ends. That must not
//! end the run, so failures to write are ignored.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::sync::Mutex;

use crate::sync::lock;

/// Erases from the cursor to the end of the screen.
const ERASE: &str = "\r\x1b[J";
const WRAPPING_OFF: &str = "\x1b[?7l";
const WRAPPING_ON: &str = "\x1b[?7h";
/// The size of a terminal that does not report one, such as a serial line.
const USUAL_SIZE: TerminalSize = TerminalSize {
    rows: 24,
    columns: 80,
};

static LIVE_LINES: Mutex<LiveLines> = Mutex::new(LiveLines { lines: Vec::new() });

/// The size of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TerminalSize {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
}

impl TerminalSize {
    /// The present size of the terminal on standard error.
    #[must_use]
    pub(crate) fn of_standard_error() -> Self {
        match rustix::termios::tcgetwinsize(io::stderr()) {
            Ok(size) if size.ws_row > 0 && size.ws_col > 0 => Self {
                rows: usize::from(size.ws_row),
                columns: usize::from(size.ws_col),
            },
            _ => USUAL_SIZE,
        }
    }
}

/// Shows `lines` instead of those that are shown. Each must fit into a row, and all of them on the screen.
pub(crate) fn show(lines: Vec<String>) {
    let mut live = lock(&LIVE_LINES);
    let text = live.replace(lines);
    write_to_standard_error(&text);
}

/// Writes `line` to standard error, above the lines that are shown.
pub(crate) fn write_above(line: &str) {
    let live = lock(&LIVE_LINES);
    write_to_standard_error(&live.above(line));
}

/// Calls `write`, which writes to a standard stream, without the lines that are shown. It must not use this module.
pub(crate) fn while_hidden<T>(write: impl FnOnce() -> T) -> T {
    let live = lock(&LIVE_LINES);
    if live.lines.is_empty() {
        return write();
    }
    write_to_standard_error(ERASE);
    let result = write();
    write_to_standard_error(&live.text());
    result
}

fn write_to_standard_error(text: &str) {
    if !text.is_empty() {
        let _ = io::stderr().lock().write_all(text.as_bytes());
    }
}

/// The lines that are shown.
struct LiveLines {
    lines: Vec<String>,
}

impl LiveLines {
    /// Replaces the lines; what changes the screen accordingly.
    fn replace(&mut self, lines: Vec<String>) -> String {
        if lines.is_empty() && !self.lines.is_empty() {
            self.lines.clear();
            return ERASE.to_owned();
        }
        self.lines = lines;
        self.text()
    }

    /// What writes `line` above the lines.
    fn above(&self, line: &str) -> String {
        if self.lines.is_empty() {
            return format!("{line}\n");
        }
        format!("{ERASE}{line}\n{}", self.text())
    }

    /// What writes the lines, erases what is behind and below them, and moves the cursor back.
    fn text(&self) -> String {
        let Some((last, others)) = self.lines.split_last() else {
            return String::new();
        };

        let mut text = format!("\r{WRAPPING_OFF}");
        for line in others {
            // Writing to a string does not fail.
            let _ = write!(text, "{line}\x1b[K\r\n");
        }
        let _ = write!(text, "{last}\x1b[J{WRAPPING_ON}\r");
        if !others.is_empty() {
            let _ = write!(text, "\x1b[{}A", others.len());
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(lines: &[&str]) -> LiveLines {
        LiveLines {
            lines: lines.iter().map(|line| (*line).to_owned()).collect(),
        }
    }

    #[test]
    fn the_cursor_returns_to_the_first_line() {
        let one = "\r\x1b[?7la\x1b[J\x1b[?7h\r";
        assert_eq!(live(&["a"]).text(), one);
        let two = "\r\x1b[?7la\x1b[K\r\nb\x1b[J\x1b[?7h\r\x1b[1A";
        assert_eq!(live(&["a", "b"]).text(), two);
    }

    #[test]
    fn messages_are_written_above() {
        assert_eq!(live(&[]).above("message"), "message\n");
        let shown = live(&["a"]);
        let expected = format!("\r\x1b[Jmessage\n{}", shown.text());
        assert_eq!(shown.above("message"), expected);
    }

    #[test]
    fn nothing_is_written_for_no_lines() {
        let mut shown = live(&["a"]);
        assert_eq!(shown.replace(Vec::new()), ERASE);
        assert_eq!(shown.replace(Vec::new()), "");
    }
}
