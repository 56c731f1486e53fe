//! How many lookups may be in flight at a server that refuses some for being too many. Pure.
//!
//! Such a server answers a number of requests in a burst or in a second, and refuses the others, whoever sends
//! them. So a refusal says nothing about the item, and after one fewer requests are sent at once: half as many,
//! found anew from a single one, as TCP finds its congestion window (RFC 5681).

use std::time::Duration;

/// The limit of the requests in flight at one server; none before it has refused any.
#[derive(Debug)]
pub(super) struct SendWindow {
    /// Requests in flight at once.
    size: usize,
    /// Up to this size each answer makes room for one more; then each `size` answers do.
    threshold: usize,
    /// Answers since the size last grew.
    answers_at_size: usize,
    /// Answers since the last pause.
    answers: u64,
    /// The length of the last pause.
    pause: Duration,
    /// Whether there were answers enough between the last two pauses.
    is_progressing: bool,
}

impl SendWindow {
    pub(super) fn new() -> Self {
        Self {
            size: usize::MAX,
            threshold: usize::MAX,
            answers_at_size: 0,
            answers: 0,
            pause: Duration::ZERO,
            is_progressing: false,
        }
    }

    /// Whether one more request may be sent while `in_flight` are unanswered.
    pub(super) fn has_room(&self, in_flight: usize) -> bool {
        in_flight < self.size
    }

    /// The server answered a request.
    pub(super) fn answered(&mut self) {
        self.answers += 1;
        self.answers_at_size += 1;
        if self.size < self.threshold || self.answers_at_size >= self.size {
            self.size = self.size.saturating_add(1);
            self.answers_at_size = 0;
        }
    }

    /// The server refused a request for being one too many, while `in_flight` others were unanswered: nothing is
    /// sent for the time of `pause`.
    pub(super) fn paused(&mut self, pause: Duration, in_flight: usize) {
        // A server that answers hardly anything between long pauses is down rather than busy.
        self.is_progressing = self.answers > self.pause.as_secs();
        self.threshold = self.size.min(in_flight + 1) / 2;
        self.size = 1;
        (self.answers, self.answers_at_size) = (0, 0);
        self.pause = pause;
    }

    /// Whether one request at a time is sent: after a pause, until one is answered.
    pub(super) fn is_probing(&self) -> bool {
        self.size == 1
    }

    /// Whether the server is busy with what it answers, so that a refused request can be sent again as if it never
    /// was: there is more than one answer in each second of a pause.
    pub(super) fn is_progressing(&self) -> bool {
        self.is_progressing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_millis(500);

    fn room(window: &SendWindow) -> usize {
        (0..).find(|&count| !window.has_room(count)).unwrap()
    }

    fn answered(window: &mut SendWindow, count: usize) {
        (0..count).for_each(|_| window.answered());
    }

    #[test]
    fn a_server_that_refuses_nothing_has_no_limit() {
        let mut window = SendWindow::new();
        answered(&mut window, 1000);
        assert!(window.has_room(usize::MAX - 1));
    }

    #[test]
    fn the_window_grows_quickly_to_a_half_and_slowly_from_there() {
        let mut window = SendWindow::new();
        answered(&mut window, 20);
        window.paused(PAUSE, 39);
        assert!(window.is_probing() && room(&window) == 1);
        answered(&mut window, 19);
        assert_eq!(room(&window), 20);
        answered(&mut window, 20 + 21);
        assert_eq!(room(&window), 22);
        window.paused(PAUSE, 21);
        answered(&mut window, 10);
        assert_eq!(room(&window), 11);
    }

    #[test]
    fn answers_between_the_pauses_are_progress() {
        let mut window = SendWindow::new();
        window.paused(PAUSE, 10);
        assert!(!window.is_progressing());
        answered(&mut window, 1);
        window.paused(Duration::from_secs(10), 10);
        assert!(window.is_progressing());
        answered(&mut window, 10);
        window.paused(PAUSE, 10);
        assert!(!window.is_progressing(), "ten answers in ten seconds");
        answered(&mut window, 1);
        window.paused(PAUSE, 10);
        assert!(window.is_progressing());
    }
}
