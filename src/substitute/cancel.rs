//! A flag that all work checks: the user interrupted, or the result is not needed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

/// A flag that can be raised once, from anywhere.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Raises the flag.
    pub(crate) fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Raises the flag when the user interrupts or ends the program, or closes its terminal. The
    /// second time the program ends at once. A signal that is ignored, as after `nohup`, stays so.
    ///
    /// # Errors
    /// The system refuses the signal handlers.
    pub(crate) fn on_interrupt(&self) -> std::io::Result<()> {
        const EXIT: i32 = 130;
        let ignored = ignored_signals();
        let signals = [SIGINT, SIGTERM, SIGHUP].into_iter();
        for signal in signals.filter(|signal| ignored & (1 << (signal - 1)) == 0) {
            // In this order: the first signal finds the flag down, and raises it.
            flag::register_conditional_shutdown(signal, EXIT, Arc::clone(&self.0))?;
            flag::register(signal, Arc::clone(&self.0))?;
        }
        Ok(())
    }

    /// From now on there is nothing that would have to be finished: the first interrupt ends
    /// the program at once, as the second one does otherwise.
    pub(crate) fn end_at_once(&self) {
        self.cancel();
    }

    /// The flag itself, for code that waits for something else meanwhile.
    #[must_use]
    pub(crate) fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }

    /// Whether the flag is up.
    #[must_use]
    pub(crate) fn is_canceled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
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
