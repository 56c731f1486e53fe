//! How many requests to an object store are under way: more while it keeps up, half as many when it says that they
//! are too many (503 `SlowDown`, 429).

use std::sync::Mutex;

use tokio::sync::Notify;

use crate::sync::lock;

/// Limits the requests that are under way.
#[derive(Debug)]
pub(super) struct RequestGate {
    state: Mutex<GateState>,
    changed: Notify,
}

#[derive(Debug)]
struct GateState {
    under_way: usize,
    limit: f64,
    /// The store has said that there were too many.
    was_overloaded: bool,
}

/// One request that is under way, until it is dropped.
pub(super) struct GatePass<'a>(&'a RequestGate);

/// The limit at the start, and the highest one.
const LIMIT_FIRST: f64 = 16.0;
const LIMIT_MAX: f64 = 128.0;

impl RequestGate {
    pub(super) fn new() -> Self {
        let state = GateState {
            under_way: 0,
            limit: LIMIT_FIRST,
            was_overloaded: false,
        };
        Self {
            state: Mutex::new(state),
            changed: Notify::new(),
        }
    }

    /// Waits until one more request may be under way.
    pub(super) async fn enter(&self) -> GatePass<'_> {
        loop {
            let changed = self.changed.notified();
            if self.try_enter() {
                return GatePass(self);
            }
            changed.await;
        }
    }

    fn try_enter(&self) -> bool {
        let mut state = lock(&self.state);
        let may_enter = (state.under_way as f64) < state.limit;
        state.under_way += usize::from(may_enter);
        may_enter
    }

    /// Notes that a request has succeeded: the limit doubles with every round of them, and grows by one a round after
    /// the store was overloaded.
    pub(super) fn note_success(&self) {
        let mut state = lock(&self.state);
        let step = if state.was_overloaded {
            1.0 / state.limit
        } else {
            1.0
        };
        state.limit = (state.limit + step).min(LIMIT_MAX);
        drop(state);
        self.changed.notify_one();
    }

    /// Notes that the store is overloaded.
    pub(super) fn note_overload(&self) {
        let mut state = lock(&self.state);
        state.limit = (state.limit / 2.0).max(1.0);
        state.was_overloaded = true;
    }
}

impl Drop for GatePass<'_> {
    fn drop(&mut self) {
        lock(&self.0.state).under_way -= 1;
        self.0.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(gate: &RequestGate) -> usize {
        let mut count = 0;
        while gate.try_enter() {
            count += 1;
        }
        lock(&gate.state).under_way -= count;
        count
    }

    #[test]
    fn the_limit_grows_with_successes_and_halves_with_overloads() {
        let gate = RequestGate::new();
        assert_eq!(room(&gate), 16);
        (0..200).for_each(|_| gate.note_success());
        assert_eq!(room(&gate), 128);
        gate.note_overload();
        assert_eq!(room(&gate), 64);
        // From now on by one a round.
        (0..64).for_each(|_| gate.note_success());
        assert_eq!(room(&gate), 65);
        (0..20).for_each(|_| gate.note_overload());
        assert_eq!(room(&gate), 1);
    }
}
