//! A terminal for programs under test: a pseudoterminal, and the screen that its output makes.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::wait_until;

/// A terminal. It is closed when this is dropped.
pub(crate) struct Terminal {
    master: OwnedFd,
    slave: OwnedFd,
    screen: Arc<Mutex<Screen>>,
}

impl Terminal {
    pub(crate) fn new(rows: usize, columns: usize) -> Self {
        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let slave = rustix::fs::open(name, flags, Mode::empty()).unwrap();

        let terminal = Self {
            master,
            slave,
            screen: Arc::new(Mutex::new(Screen::new(rows, columns))),
        };
        terminal.resize(rows, columns);
        terminal
    }

    /// Shows what is written from now on. Without it nothing reads from the terminal.
    pub(crate) fn show(&self) {
        let mut output = File::from(self.master.try_clone().unwrap());
        let screen = Arc::clone(&self.screen);
        // Ends with an error when all programs have closed the terminal.
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut buffer) {
                screen.lock().unwrap().feed(&buffer[..count]);
            }
        });
    }

    /// What a program writes to, or reads from.
    pub(crate) fn stdio(&self) -> Stdio {
        self.slave.try_clone().unwrap().into()
    }

    /// Changes the size. The text stays where it is, cut on the right.
    pub(crate) fn resize(&self, rows: usize, columns: usize) {
        let mut screen = self.screen.lock().unwrap();
        screen.resize(rows, columns);
        let size = Winsize {
            ws_row: u16::try_from(rows).unwrap(),
            ws_col: u16::try_from(columns).unwrap(),
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(self.master.as_fd(), size).unwrap();
    }

    /// Waits until the screen is as `is_expected` says, and returns its rows down to the last one with text.
    #[track_caller]
    pub(crate) fn wait_for(&self, is_expected: impl Fn(&[String]) -> bool) -> Vec<String> {
        let mut rows = Vec::new();
        let found = wait_until(|| {
            rows = self.screen.lock().unwrap().rows();
            is_expected(&rows)
        });
        assert!(found, "{rows:#?}");
        rows
    }

    /// Everything that was written so far.
    pub(crate) fn output(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().unwrap().output).into_owned()
    }
}

/// Characters in rows and columns, and the output that they come from.
struct Screen {
    output: Vec<u8>,
    /// The beginning of a character whose end was not read yet.
    pending: Vec<u8>,
    rows: Vec<Vec<char>>,
    columns: usize,
    row: usize,
    column: usize,
    wraps: bool,
    /// An escape sequence whose end was not read yet.
    sequence: Option<String>,
}

impl Screen {
    fn new(rows: usize, columns: usize) -> Self {
        Self {
            output: Vec::new(),
            pending: Vec::new(),
            rows: vec![vec![' '; columns]; rows],
            columns,
            row: 0,
            column: 0,
            wraps: true,
            sequence: None,
        }
    }

    fn resize(&mut self, rows: usize, columns: usize) {
        let surplus = (self.row + 1).saturating_sub(rows);
        self.rows.drain(..surplus);
        self.row -= surplus;
        self.rows.resize(rows, Vec::new());
        for row in &mut self.rows {
            row.resize(columns, ' ');
        }
        self.columns = columns;
        self.column = self.column.min(columns - 1);
    }

    fn rows(&self) -> Vec<String> {
        let rows = self.rows.iter().map(String::from_iter);
        let mut rows: Vec<String> = rows.map(|row: String| row.trim_end().to_owned()).collect();
        while rows.pop_if(|row| row.is_empty()).is_some() {}
        rows
    }

    fn feed(&mut self, bytes: &[u8]) {
        self.output.extend_from_slice(bytes);
        self.pending.extend_from_slice(bytes);
        let complete = match std::str::from_utf8(&self.pending) {
            Ok(text) => text.len(),
            Err(error) => error.valid_up_to(),
        };
        let rest = self.pending.split_off(complete);
        let text = std::mem::replace(&mut self.pending, rest);
        for character in String::from_utf8(text).unwrap().chars() {
            self.put(character);
        }
    }

    fn put(&mut self, character: char) {
        if let Some(mut sequence) = self.sequence.take() {
            sequence.push(character);
            if sequence.len() > 1 && character.is_ascii_alphabetic() {
                self.carry_out(&sequence);
            } else {
                self.sequence = Some(sequence);
            }
            return;
        }

        match character {
            '\x1b' => self.sequence = Some(String::new()),
            '\r' => self.column = 0,
            '\n' => self.next_row(),
            _ => {
                if self.column == self.columns && self.wraps {
                    self.column = 0;
                    self.next_row();
                }
                self.column = self.column.min(self.columns - 1);
                self.rows[self.row][self.column] = character;
                self.column += 1;
            }
        }
    }

    fn next_row(&mut self) {
        if self.row + 1 == self.rows.len() {
            self.rows.remove(0);
            self.rows.push(vec![' '; self.columns]);
        } else {
            self.row += 1;
        }
    }

    /// Carries an escape sequence out, of which only the beginning, ESC, is missing.
    fn carry_out(&mut self, sequence: &str) {
        match sequence {
            "[J" => {
                self.rows[self.row][self.column..].fill(' ');
                for row in &mut self.rows[self.row + 1..] {
                    row.fill(' ');
                }
            }
            "[K" => self.rows[self.row][self.column..].fill(' '),
            "[?7l" => self.wraps = false,
            "[?7h" => self.wraps = true,
            _ => match sequence.split_at(sequence.len() - 1) {
                (rows, "A") => self.row = self.row.saturating_sub(rows[1..].parse().unwrap()),
                (_, "m") => {}
                _ => panic!("unexpected sequence: {sequence:?}"),
            },
        }
    }
}
