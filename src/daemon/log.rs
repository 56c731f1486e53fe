//! Descriptor 2: what the client gets to see.
//!
//! With `--query` the daemon forwards it line by line (a carriage return ends a line too), with
//! `--substitute` as it comes. It reads only while it waits for a reply, so what is said must
//! be short and must not be said in between. Each message is one write: several processes
//! share the pipe.

use std::borrow::Cow;
use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard};

use crate::format::escape::printable;
use crate::sync::lock;

/// Where words for the client go; threads may share it.
pub(crate) struct ClientLog {
    state: Mutex<State>,
}

struct State {
    sink: Box<dyn Write + Send>,
    /// The last thing written was a line that is to be written over.
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
            state: Mutex::new(State {
                sink,
                is_line_open: false,
            }),
        }
    }

    /// Something that may be wrong. What strangers said in it is escaped.
    pub(crate) fn warn(&self, text: &str) {
        self.state()
            .line(&format!("subst: warning: {}\n", printable(&short(text))));
    }

    /// Something that could not be done.
    pub(crate) fn error(&self, text: &str) {
        self.state()
            .line(&format!("subst: error: {}\n", printable(&short(text))));
    }

    /// Finished lines, as they are.
    pub(crate) fn lines(&self, text: &str) {
        self.state().line(text);
    }

    /// A line that the next one is written over, until it is [ended](ClientLog::end_line).
    pub(crate) fn open_line(&self, text: &str) {
        let mut state = self.state();
        state.write(&format!("{ERASE_LINE}{text}"));
        state.is_line_open = true;
    }

    /// Ends the open line, if there is one.
    pub(crate) fn end_line(&self) {
        self.state().line("");
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl State {
    fn line(&mut self, text: &str) {
        if std::mem::take(&mut self.is_line_open) {
            self.write(&format!("\n{text}"));
        } else {
            self.write(text);
        }
    }

    fn write(&mut self, text: &str) {
        // A client that does not listen any more is no reason to fail.
        let _ = self.sink.write_all(text.as_bytes());
    }
}

/// `text`, without its middle when it is longer than anybody would read: a request may be of
/// megabytes, and is quoted when it is wrong.
fn short(text: &str) -> Cow<'_, str> {
    if text.len() <= WORDS_MAX_BYTES {
        return Cow::Borrowed(text);
    }
    let boundary_at = |start: usize| (start..).find(|&at| text.is_char_boundary(at));
    let head = boundary_at(WORDS_MAX_BYTES / 2).and_then(|end| text.get(..end));
    let tail = boundary_at(text.len() - WORDS_MAX_BYTES / 2).and_then(|start| text.get(start..));
    Cow::Owned(format!(
        "{} ... {}",
        head.unwrap_or_default(),
        tail.unwrap_or_default()
    ))
}

const WORDS_MAX_BYTES: usize = 2000;
const ERASE_LINE: &str = "\r\u{1b}[K";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_would_read_is_left_out() {
        let text = format!("begin{}end", "é".repeat(1 << 20));
        let short = short(&text);
        assert!(short.len() < WORDS_MAX_BYTES + 10, "{}", short.len());
        assert!(short.starts_with("begin") && short.ends_with("end") && short.contains(" ... "));
        assert!(matches!(super::short("brief"), Cow::Borrowed("brief")));
    }
}
