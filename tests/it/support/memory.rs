//! Runs that may take little memory, whatever a server sends.

use std::process::Command;

use super::sandbox::Running;
use super::{Run, wait_until};

const PEAK_MAX_KIB: u64 = 100_000;

/// Runs `command` to its end, with its peak memory below 100 MB.
#[track_caller]
pub(crate) fn run_with_little_memory(command: Command) -> Run {
    let mut running = Running::start(command, "");
    let status = format!("/proc/{}/status", running.child.id());
    let mut peak_kib = 0;
    wait_until(|| {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let now = line.and_then(|line| line.trim().split(' ').next()?.parse().ok());
        peak_kib = peak_kib.max(now.unwrap_or(0));
        running.child.try_wait().unwrap().is_some()
    });

    eprintln!("peak: {peak_kib} KiB");
    assert!(
        peak_kib > 0 && peak_kib < PEAK_MAX_KIB,
        "it took {peak_kib} KiB"
    );
    running.end()
}
