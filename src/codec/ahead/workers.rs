//! The threads that decode ahead, shared by all nars.
//!
//! A thread is started when there is a task and none is idle, up to a fixed number. Tasks
//! never wait for anything, so that whoever waits for one of them does not wait for a reader
//! somewhere else. When the pool is dropped, tasks that have not begun are forgotten and the
//! threads joined.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;

use crate::sync::{lock, wait};

/// What a worker does.
pub(super) type Task = Box<dyn FnOnce() + Send>;

/// Threads and the tasks in front of them.
pub(in crate::codec) struct Workers {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    threads_max: usize,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    tasks: VecDeque<Task>,
    idle: usize,
    closed: bool,
}

impl Workers {
    /// At most `threads_max` threads, none of them started yet.
    pub(in crate::codec) fn new(threads_max: usize) -> Self {
        Self {
            shared: Arc::default(),
            threads: Mutex::default(),
            threads_max,
        }
    }

    /// How many tasks are worked on at the same time.
    pub(super) fn threads_max(&self) -> usize {
        self.threads_max
    }

    /// Has `task` done by one of the threads.
    pub(super) fn run(&self, task: Task) {
        let mut state = self.shared.lock();
        state.tasks.push_back(task);
        if state.idle < state.tasks.len() {
            drop(state);
            self.start_one();
        }
        self.shared.changed.notify_one();
    }

    /// Starts another thread, if there may be more. A system that has none to give leaves the
    /// work to those there are; without any it is done here.
    fn start_one(&self) {
        let mut threads = lock(&self.threads);
        if threads.len() >= self.threads_max {
            return;
        }
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::Builder::new().name("decode-ahead".to_owned());
        match thread.spawn(move || shared.work()) {
            Ok(thread) => threads.push(thread),
            Err(_) if threads.is_empty() => {
                let task = self.shared.lock().tasks.pop_front();
                task.into_iter().for_each(|task| task());
            }
            Err(_) => {}
        }
    }

    /// How many threads have been started.
    #[cfg(test)]
    pub(in crate::codec) fn started(&self) -> usize {
        self.threads.lock().unwrap().len()
    }

    /// Can be upgraded for as long as a thread or the pool is there.
    #[cfg(test)]
    pub(in crate::codec) fn alive(&self) -> std::sync::Weak<impl Sized + use<>> {
        Arc::downgrade(&self.shared)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn work(&self) {
        let mut state = self.lock();
        while !state.closed {
            if let Some(task) = state.tasks.pop_front() {
                drop(state);
                task();
                state = self.lock();
                continue;
            }
            state.idle += 1;
            state = wait(&self.changed, state);
            state.idle -= 1;
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.closed = true;
        state.tasks.clear();
        drop(state);
        self.shared.changed.notify_all();
        let mut threads = lock(&self.threads);
        for thread in threads.drain(..) {
            // A panic is told by the result that never came.
            let _ = thread.join();
        }
    }
}
