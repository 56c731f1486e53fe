//! Descriptor 2: messages that the daemon forwards to its client.
//!
//! With `--query` the daemon forwards it line by line (a carriage return ends a line too), with
//! `--substitute` unchanged. It only reads while it waits for a reply, so messages must be short
//! and must not be written in between. Each message is one write: several processes share the
//! pipe.

use std::borrow::Cow;
use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard};

use crate::format::escape::{clip, printable};
use crate::sync::lock;

/// Writes messages for the client; threads may share it.
pub(crate) struct ClientLog {
    state: Mutex<ClientLogState>,
}

struct ClientLogState {
    sink: Box<dyn Write + Send>,
    /// The last line written is one that the next line replaces.
    is_line_open: bool,
}

impl ClientLog {
    /// Writes to standard error.
    #[must_use]
    pub(crate) fn stderr() -> Self {
        Self::to(Box::new(io::stderr()))
    }

    /// Writes to `sink`.
    #[must_use]
    pub(crate) fn to(sink: Box<dyn Write + Send>) -> Self {
        Self {
            state: Mutex::new(ClientLogState {
                sink,
                is_line_open: false,
            }),
        }
    }

    /// Writes a warning; control characters are escaped.
    pub(crate) fn warn(&self, text: &str) {
        self.state().line(&format!(
            "subst: warning: {}\n",
            printable(&shortened(text))
        ));
    }

    /// Writes an error; control characters are escaped.
    pub(crate) fn error(&self, text: &str) {
        self.state()
            .line(&format!("subst: error: {}\n", printable(&shortened(text))));
    }

    /// Writes complete lines unchanged.
    pub(crate) fn lines(&self, text: &str) {
        self.state().line(text);
    }

    /// Writes a line that the next one replaces, unless it is [ended](ClientLog::end_line).
    pub(crate) fn open_line(&self, text: &str) {
        let mut state = self.state();
        state.write(&format!("{ERASE_LINE}{text}"));
        state.is_line_open = true;
    }

    /// Ends the open line, if there is one.
    pub(crate) fn end_line(&self) {
        self.state().line("");
    }

    fn state(&self) -> MutexGuard<'_, ClientLogState> {
        lock(&self.state)
    }
}

impl ClientLogState {
    fn line(&mut self, text: &str) {
        if std::mem::take(&mut self.is_line_open) {
            self.write(&format!("\n{text}"));
        } else {
            self.write(text);
        }
    }

    fn write(&mut self, text: &str) {
        // A client that has closed its end is not a failure of the request.
        let _ = self.sink.write_all(text.as_bytes());
    }
}

/// `text` without its middle if it is long: an invalid request of many megabytes is quoted too.
fn shortened(text: &str) -> Cow<'_, str> {
    if text.len() <= MESSAGE_MAX_BYTES {
        return Cow::Borrowed(text);
    }

    let head = clip(text, MESSAGE_MAX_BYTES / 2);
    let tail_start = (text.len() - MESSAGE_MAX_BYTES / 2..).find(|at| text.is_char_boundary(*at));
    let tail = &text[tail_start.unwrap_or(text.len())..];

    Cow::Owned(format!("{head} ... {tail}"))
}

const MESSAGE_MAX_BYTES: usize = 2000;
const ERASE_LINE: &str = "\r\u{1b}[K";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_a_long_message_is_left_out() {
        let text = format!("begin{}end", "é".repeat(1 << 20));
        let short = shortened(&text);
        assert!(short.len() < MESSAGE_MAX_BYTES + 10, "{}", short.len());
        assert!(short.starts_with("begin") && short.ends_with("end") && short.contains(" ... "));
        assert!(matches!(super::shortened("brief"), Cow::Borrowed("brief")));
    }
}
