//! Runs that may take little memory, whatever a server sends.

use std::process::Command;

use super::sandbox::Running;
use super::{Run, wait_until};

/// The most memory that such a run may take.
pub(crate) const PEAK_MAX_KIB: u64 = 100_000;

const PROGRAM_NAME: &str = "subst";

/// Runs `command` to its end, with its peak memory below 100 MB.
#[track_caller]
pub(crate) fn run_with_little_memory(command: Command) -> Run {
    let mut running = Running::start(command, "");
    let status = format!("/proc/{}/status", running.child.id());
    let mut peak_kib = 0;
    wait_until(|| {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        peak_kib = peak_kib.max(peak_of(&text).unwrap_or(0));
        running.child.try_wait().unwrap().is_some()
    });

    eprintln!("peak: {peak_kib} KiB");
    assert!(
        peak_kib > 0 && peak_kib < PEAK_MAX_KIB,
        "it took {peak_kib} KiB"
    );
    running.end()
}

/// The peak in KiB that the text of `/proc/PID/status` states for the program.
///
/// `spawn` returns while Linux still replaces the memory of the tests by that of the program, and the
/// peak of the tests is stated until then. The name is replaced after the memory.
fn peak_of(status: &str) -> Option<u64> {
    let field = |name| status.lines().find_map(|line| line.strip_prefix(name));
    if field("Name:")?.trim() != PROGRAM_NAME {
        return None;
    }
    field("VmHWM:")?.trim().split(' ').next()?.parse().ok()
}
