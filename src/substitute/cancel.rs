//! Interrupts, by the user or by a failure of what all work is for: a flag that all work checks, and whether an interrupt
//! by the user ends the program at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

/// Whether the work has been interrupted, shared by everything that works or waits.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cancel {
    is_canceled: Arc<AtomicBool>,
    ends_at_once: Arc<AtomicBool>,
}

impl Cancel {
    /// Handles interrupts: the user interrupts or ends the program, or closes its terminal. A signal
    /// that is ignored, as after `nohup`, stays so.
    ///
    /// The program ends at once, whatever it waits for, unless there is [work to
    /// stop](Cancel::begin_work).
    ///
    /// # Errors
    /// The system refuses the signal handlers.
    pub(crate) fn on_interrupt(&self) -> std::io::Result<()> {
        const EXIT: i32 = 130;
        self.end_at_once();
        let ignored = ignored_signals();
        let signals = [SIGINT, SIGTERM, SIGHUP].into_iter();
        for signal in signals.filter(|signal| ignored & (1 << (signal - 1)) == 0) {
            // In this order: the first signal finds the second flag down, and raises both.
            flag::register_conditional_shutdown(signal, EXIT, Arc::clone(&self.ends_at_once))?;
            flag::register(signal, Arc::clone(&self.is_canceled))?;
            flag::register(signal, Arc::clone(&self.ends_at_once))?;
        }
        Ok(())
    }

    /// From now on there is work that has to be stopped in order, and checks the flag: the first
    /// interrupt only raises it, the second one ends the program.
    pub(crate) fn begin_work(&self) {
        self.ends_at_once.store(false, Ordering::Relaxed);
    }

    /// From now on there is no such work.
    pub(crate) fn end_at_once(&self) {
        self.ends_at_once.store(true, Ordering::Relaxed);
    }

    /// Raises the flag, as an interrupt does.
    pub(crate) fn cancel(&self) {
        self.is_canceled.store(true, Ordering::Relaxed);
    }

    /// The flag itself, for code that waits for something else meanwhile.
    #[must_use]
    pub(crate) fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.is_canceled)
    }

    /// Whether the flag is up.
    #[must_use]
    pub(crate) fn is_canceled(&self) -> bool {
        self.is_canceled.load(Ordering::Relaxed)
    }
}

/// The signals that this process was started to ignore, one bit for each, the lowest for signal 1.
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let digits = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    // Where the system does not say, none is taken to be ignored.
    digits
        .and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok())
        .unwrap_or_default()
}
