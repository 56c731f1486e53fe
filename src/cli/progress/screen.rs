//! The terminal on standard error that bars are drawn on.
//!
//! It may be gone at any moment, when its window is closed or a connection ends: writing to it
//! then fails, and that must not end the run, so no call here fails.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::sync::Mutex;

use indicatif::TermLike;

use crate::sync::lock;

/// The terminal, and what is to be written to it with the next flush.
#[derive(Debug, Default)]
pub(super) struct Screen(Mutex<String>);

impl Screen {
    fn add(&self, text: std::fmt::Arguments<'_>) -> io::Result<()> {
        let mut pending = lock(&self.0);
        // Writing to a string does not fail.
        let _ = pending.write_fmt(text);
        Ok(())
    }

    /// Moves the cursor `n` places; the terminal takes no places for one.
    fn move_cursor(&self, n: usize, direction: char) -> io::Result<()> {
        if n == 0 {
            Ok(())
        } else {
            self.add(format_args!("\x1b[{n}{direction}"))
        }
    }

    /// Rows and columns; the usual ones of a terminal that does not say, such as a serial line.
    fn size() -> (u16, u16) {
        let size = rustix::termios::tcgetwinsize(io::stderr());
        match size.map(|size| (size.ws_row, size.ws_col)) {
            Ok((rows, columns)) if rows > 0 && columns > 0 => (rows, columns),
            _ => USUAL_SIZE,
        }
    }
}

impl TermLike for Screen {
    fn width(&self) -> u16 {
        Self::size().1
    }

    fn height(&self) -> u16 {
        Self::size().0
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        self.move_cursor(n, 'A')
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        self.move_cursor(n, 'B')
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        self.move_cursor(n, 'C')
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        self.move_cursor(n, 'D')
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.add(format_args!("{text}\n"))
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.add(format_args!("{text}"))
    }

    fn clear_line(&self) -> io::Result<()> {
        self.add(format_args!("\r\x1b[2K"))
    }

    fn flush(&self) -> io::Result<()> {
        let mut pending = lock(&self.0);
        let mut stderr = io::stderr().lock();
        let _ = stderr
            .write_all(pending.as_bytes())
            .and_then(|()| stderr.flush());
        pending.clear();
        Ok(())
    }
}

const USUAL_SIZE: (u16, u16) = (24, 80);
