//! Mutexes and threads as the whole program uses them.
//!
//! A thread that panics while it holds a mutex poisons it. Every critical section of this program
//! leaves its data consistent at each step, and a panic is reported by its own thread, so that
//! others go on with the data: [`lock`] and [`wait`] ignore the poison.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

/// Locks `mutex`, poisoned or not.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for a notification of `condvar`; wakes up spuriously too, like [`Condvar::wait`].
pub(crate) fn wait<'a, T>(condvar: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    condvar.wait(guard).unwrap_or_else(PoisonError::into_inner)
}

/// Waits like [`wait`], for no longer than `time`.
pub(crate) fn wait_for<'a, T>(
    condvar: &Condvar,
    guard: MutexGuard<'a, T>,
    time: Duration,
) -> MutexGuard<'a, T> {
    let waited = condvar.wait_timeout(guard, time);
    waited.unwrap_or_else(PoisonError::into_inner).0
}

/// The result of `work`; `None` when it panics, which the thread has reported by then. For threads whose
/// results others wait for.
pub(crate) fn catch_panic<T>(work: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(work)).ok()
}

/// Makes this thread nicer than `niceness`, that of the process, so that others have the processor before it.
/// Linux keeps it for each thread, and lets only root take it back.
pub(crate) fn give_way(niceness: i32) {
    // Without it the work is the same.
    let _ = rustix::process::setpriority_process(None, (niceness + WAY).min(NICENESS_MAX));
}

/// The niceness of this thread, which those that it starts begin with.
pub(crate) fn niceness() -> i32 {
    rustix::process::getpriority_process(None).unwrap_or(NICENESS_MAX)
}

/// By how much a thread becomes nicer that gives way: others get nine times as much of a processor.
const WAY: i32 = 10;

/// Linux knows no nicer threads.
const NICENESS_MAX: i32 = 19;

/// Threads that all do the same work. Dropping it waits until they have ended, so whatever makes
/// them end (a queue that is closed) has to be dropped before.
pub(crate) struct Threads(Vec<JoinHandle<()>>);

impl Threads {
    /// Starts `count` threads, at least one, named `NAME-0`, `NAME-1`...; each calls `work` once.
    /// When the system refuses more threads, those that were started do the work alone.
    ///
    /// # Errors
    /// The system refuses the first thread.
    pub(crate) fn start<W>(name: &str, count: usize, work: W) -> io::Result<Self>
    where
        W: FnOnce() + Clone + Send + 'static,
    {
        let mut threads = Self(Vec::with_capacity(count));

        for number in 0..count.max(1) {
            let thread = Builder::new().name(format!("{name}-{number}"));
            match thread.spawn(work.clone()) {
                Ok(thread) => threads.0.push(thread),
                Err(error) if threads.0.is_empty() => return Err(error),
                Err(_) => break,
            }
        }

        Ok(threads)
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        for thread in self.0.drain(..) {
            // The thread itself has reported its panic.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn a_poisoned_mutex_can_be_locked() {
        let mutex = Arc::new(Mutex::new(1));
        let poisoning = std::thread::spawn({
            let mutex = Arc::clone(&mutex);
            move || {
                let _guard = lock(&mutex);
                panic!("to poison the mutex");
            }
        });
        assert!(poisoning.join().is_err());
        assert!(mutex.is_poisoned());

        *lock(&mutex) += 1;

        assert_eq!(*lock(&mutex), 2);
    }

    #[test]
    fn only_the_thread_that_gives_way_becomes_nicer() {
        let own = niceness();
        let other = std::thread::spawn(move || {
            give_way(own);
            give_way(own);
            niceness()
        });
        assert_eq!(other.join().unwrap(), (own + 10).min(19));
        assert_eq!(niceness(), own);
    }

    #[test]
    fn a_wait_ends_with_a_notification_after_a_panic_too() {
        let shared = Arc::new((Mutex::new(false), Condvar::new()));
        let panicking = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                let mut is_set = lock(&shared.0);
                *is_set = true;
                shared.1.notify_all();
                panic!("to poison the mutex");
            }
        });

        let mut is_set = lock(&shared.0);
        while !*is_set {
            is_set = wait(&shared.1, is_set);
        }

        assert!(panicking.join().is_err());
    }

    #[test]
    fn dropping_threads_waits_for_all_of_them() {
        let (sender, receiver) = crossbeam_channel::unbounded::<usize>();
        let sum = Arc::new(AtomicUsize::new(0));
        let threads = Threads::start("adder", 3, {
            let sum = Arc::clone(&sum);
            move || {
                let name = std::thread::current().name().map(str::to_owned);
                assert!(name.is_some_and(|name| name.starts_with("adder-")));
                for number in receiver {
                    sum.fetch_add(number, Ordering::Relaxed);
                }
            }
        })
        .unwrap();
        assert_eq!(threads.0.len(), 3);
        (0..100).for_each(|number| sender.send(number).unwrap());

        drop(sender);
        drop(threads);

        assert_eq!(sum.load(Ordering::Relaxed), 4950);
    }

    #[test]
    fn a_panic_in_one_thread_does_not_reach_the_owner() {
        let threads = Threads::start("panicking", 0, || panic!("on purpose")).unwrap();
        assert_eq!(threads.0.len(), 1, "at least one thread");
        drop(threads);
    }

    #[test]
    fn a_caught_panic_gives_nothing() {
        assert_eq!(catch_panic(|| 1), Some(1));
        assert_eq!(catch_panic(|| -> i32 { panic!("on purpose") }), None);
    }
}
