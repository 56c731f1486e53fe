//! How the process was started, where the Rust runtime changes that before `main`: it ignores SIGPIPE,
//! and opens /dev/null in place of standard streams that are closed. A program that takes the place of
//! this process finds both as they were.

#![expect(
    unsafe_code,
    reason = "system calls before `main` and between signals, which need no invariants"
)]

use std::io;
use std::mem;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::ptr;
use std::sync::atomic::{AtomicU8, Ordering};

use nix::libc;
use rustix::io::{FdFlags, fcntl_setfd};

/// The bits of [`START_STATE`] for the three standard streams, if they are closed.
const CLOSED_STREAMS: [u8; 3] = [1 << 0, 1 << 1, 1 << 2];
/// The bit of [`START_STATE`] for SIGPIPE, if it is ignored.
const SIGPIPE_IGNORED: u8 = 1 << 3;

/// What was noted.
static START_STATE: AtomicU8 = AtomicU8::new(0);

/// The C library calls what is in this section before `main`.
#[used]
#[unsafe(link_section = ".init_array")]
static NOTE_BEFORE_MAIN: extern "C" fn() = note;

extern "C" fn note() {
    let mut state = 0;
    for (descriptor, bit) in (0..).zip(CLOSED_STREAMS) {
        // SAFETY: it takes two integers, and changes nothing.
        if unsafe { libc::fcntl(descriptor, libc::F_GETFD) } == -1 {
            state |= bit;
        }
    }

    // SAFETY: all of its fields are integers, and a function that may be absent.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    // SAFETY: both pointers are valid for what the call does with them: it reads nothing, and writes `action`.
    let found = unsafe { libc::sigaction(libc::SIGPIPE, ptr::null(), &raw mut action) };
    if found == 0 && action.sa_sigaction == libc::SIG_IGN {
        state |= SIGPIPE_IGNORED;
    }
    START_STATE.store(state, Ordering::Relaxed);
}

/// Has `command` take the place of this process, with SIGPIPE and the standard streams as they were. Returns
/// if it cannot be executed.
pub(crate) fn execute(command: &mut Command) -> io::Error {
    let state = START_STATE.load(Ordering::Relaxed);
    let (input, output, error) = (io::stdin(), io::stdout(), io::stderr());
    let streams = [input.as_fd(), output.as_fd(), error.as_fd()];
    for (stream, bit) in streams.into_iter().zip(CLOSED_STREAMS) {
        if state & bit != 0 {
            // Without it the program finds /dev/null.
            let _ = fcntl_setfd(stream, FdFlags::CLOEXEC);
        }
    }

    if state & SIGPIPE_IGNORED != 0 {
        // SAFETY: `ignore_sigpipe` makes a system call and nothing else.
        unsafe { command.pre_exec(ignore_sigpipe) };
    }
    command.exec()
}

/// After the standard library has given SIGPIPE its default effect.
fn ignore_sigpipe() -> io::Result<()> {
    // SAFETY: it is one of the signals that may be ignored, and no handler is set.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    Ok(())
}
