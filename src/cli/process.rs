//! What belongs to the process as a whole, set once before anything else happens.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit, umask};

use super::error::CliError;
use super::exit::Exit;

/// With what the process begins: what it keeps of a store is for every user.
const OWN_UMASK: Mode = Mode::from_bits_truncate(0o022);

/// The umask that the caller has set, for files that are the caller's own.
static CALLER_UMASK: OnceLock<Mode> = OnceLock::new();

/// The mode of a new file that the caller wants besides the store, and may keep from others.
#[must_use]
pub(crate) fn mode_of_caller_files() -> Mode {
    Mode::from_bits_truncate(0o644) - *CALLER_UMASK.get().unwrap_or(&OWN_UMASK)
}

/// Files of store items are created with their final mode, which the umask must not touch;
/// each directory that is being unpacked is held open; and memory that was used goes back. Too
/// little memory ends with the exit code of this machine's faults, not with a core dump. A file
/// that would be larger than the limit allows is an error, as on a full disk, and no reason to be
/// killed in the middle of everything.
pub(super) fn prepare() {
    // A handler, because a signal that is ignored is ignored by programs executed later too.
    // Without it the limit kills as it did.
    let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::default());

    // Memory that cannot be allocated ends the process with SIGABRT, after a message.
    let _ = signal_hook::flag::register_conditional_shutdown(
        signal_hook::consts::SIGABRT,
        Exit::Local as i32,
        Arc::new(AtomicBool::new(true)),
    );

    let _ = CALLER_UMASK.set(umask(OWN_UMASK));

    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.unwrap_or(OPEN_FILES).min(OPEN_FILES);
    if limit.current.is_some_and(|current| current < wanted) {
        // Without it only very deep trees fail, and say so.
        let raised = Rlimit {
            current: Some(wanted),
            maximum: limit.maximum,
        };
        let _ = setrlimit(Resource::Nofile, raised);
    }

    give_large_blocks_back();
    prepare_for_little_memory();
}

/// Checks the limits of memory, if there are any, for a command that fetches or looks up.
///
/// # Errors
/// [`CliError::MemoryLimit`].
pub(super) fn check_memory_limit() -> Result<(), CliError> {
    match memory_limit() {
        Some(limit) if limit < MEMORY_MIN => Err(CliError::MemoryLimit {
            limit: limit >> 10,
            needed: MEMORY_MIN >> 10,
        }),
        _ => Ok(()),
    }
}

/// The lowest limit of the memory of this process.
fn memory_limit() -> Option<u64> {
    [Resource::As, Resource::Data]
        .into_iter()
        .filter_map(|resource| getrlimit(resource).current)
        .min()
}

/// With a limit of memory, all threads share one arena: glibc reserves 64 MiB of addresses for each
/// other one.
fn prepare_for_little_memory() {
    if memory_limit().is_some() {
        share_one_arena();
    }
}

#[cfg(target_env = "gnu")]
#[expect(
    unsafe_code,
    reason = "a C library call that only sets a number of the allocator"
)]
fn share_one_arena() {
    // SAFETY: as in `give_large_blocks_back`.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

#[cfg(not(target_env = "gnu"))]
fn share_one_arena() {}

/// Has the allocator give every large block back when it is freed.
///
/// Without this glibc raises its threshold with the first large block that is freed, and then
/// keeps blocks of megabytes in the arena of each thread that ever used one: a third of all the
/// memory of a fetch with ten items in flight (107 MB instead of 73, at the same speed).
#[cfg(target_env = "gnu")]
#[expect(
    unsafe_code,
    reason = "a C library call that only sets a number of the allocator"
)]
fn give_large_blocks_back() {
    // SAFETY: mallopt takes two integers and changes nothing but the allocator's policy; no
    // other thread runs yet. When it refuses, memory use is higher, that is all.
    unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES) };
}

#[cfg(not(target_env = "gnu"))]
fn give_large_blocks_back() {}

/// Above the 400 KiB that the HTTP client reads into at a time: taking those from the system, and
/// faulting them in, cost a twentieth of all processor time.
#[cfg(target_env = "gnu")]
const LARGE_BLOCK_BYTES: i32 = 512 << 10;

const OPEN_FILES: u64 = 65_536;

/// A fetch of nars with ordinary windows takes less than 100 MiB, of the decoders' memory a half; the program itself, its
/// libraries and the stacks of its threads take the rest. Measured: with 100 MB of addresses a closure is fetched.
const MEMORY_MIN: u64 = 128 << 20;
