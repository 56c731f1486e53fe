//! Programs whose standard output is a terminal of a given width.

use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::sandbox::{Run, Running};

/// Runs `command` to its end, with standard output in a terminal of `columns`; what it printed there is
/// `stdout` of the result, with plain line ends.
#[track_caller]
pub(crate) fn run_in_terminal(command: Command, columns: u16) -> Run {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let name = Path::new(std::ffi::OsStr::from_bytes(name.as_bytes())).to_owned();
    let terminal = OpenOptions::new()
        .read(true)
        .write(true)
        .open(name)
        .unwrap();
    let size = Winsize {
        ws_row: 24,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(&terminal, size).unwrap();

    let shown = std::thread::spawn(move || {
        let (mut master, mut bytes) = (File::from(master), Vec::new());
        // Ends with an error when no process has the terminal open.
        let _ = master.read_to_end(&mut bytes);
        String::from_utf8(bytes).unwrap().replace("\r\n", "\n")
    });
    let mut run = Running::start_with(command, Stdio::null(), terminal).end();
    run.stdout = shown.join().unwrap();
    run
}
