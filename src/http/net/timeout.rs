//! Timeouts that count only time in which this process runs.
//!
//! After a pause of the process (SIGSTOP and SIGCONT, a frozen control group, a suspended virtual
//! machine) timers fire before the data that has arrived meanwhile is seen. A timer that fires late
//! says nothing about the server, so the wait starts over. A server cannot cause that.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use tokio::time::Instant;

/// Waits for `future` for up to `limit`; none: it did not end.
pub(in crate::http) async fn timeout<F: Future>(limit: Duration, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    loop {
        let start = Instant::now();
        if let Ok(output) = tokio::time::timeout(limit, future.as_mut()).await {
            return Some(output);
        }
        if !has_paused(start.elapsed(), limit) {
            return None;
        }
    }
}

/// Whether a wait of up to `limit` took so much longer that this process was stopped meanwhile.
pub(in crate::http) fn has_paused(waited: Duration, limit: Duration) -> bool {
    waited > limit.saturating_add(LATENESS_MAX)
}

/// How late a timer may fire in a process that runs.
const LATENESS_MAX: Duration = Duration::from_millis(200);
