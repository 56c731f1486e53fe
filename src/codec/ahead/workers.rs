//! The threads that decode ahead, queue by all nars.
//!
//! A thread is started when there is a task and none is idle, up to a fixed number. Tasks never
//! wait for anything, so that waiting for a task never means waiting for another nar's reader.
//! When the pool is dropped, tasks that have not begun are discarded and the threads joined.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;

use crate::codec::budget::MemoryBudget;
use crate::codec::contexts::ZstdContexts;
use crate::sync::{lock, wait};

/// The threads that decode ahead, and the memory they may take.
#[derive(Clone)]
pub(in crate::codec) struct DecodeAhead {
    pub(in crate::codec) workers: Arc<DecodeWorkers>,
    pub(in crate::codec) budget: Arc<MemoryBudget>,
    /// Cleared when memory is reserved for pieces: idle contexts are not part of the budget.
    pub(in crate::codec) contexts: Arc<ZstdContexts>,
}

/// One piece of work.
pub(super) type Task = Box<dyn FnOnce() + Send>;

/// Threads, and the queue of tasks for them.
pub(in crate::codec) struct DecodeWorkers {
    queue: Arc<TaskQueue>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    threads_max: usize,
}

#[derive(Default)]
struct TaskQueue {
    state: Mutex<TaskQueueState>,
    changed: Condvar,
}

#[derive(Default)]
struct TaskQueueState {
    tasks: VecDeque<Task>,
    idle: usize,
    closed: bool,
}

impl DecodeWorkers {
    /// At most `threads_max` threads, none of them started yet.
    pub(in crate::codec) fn new(threads_max: usize) -> Self {
        Self {
            queue: Arc::default(),
            threads: Mutex::default(),
            threads_max,
        }
    }

    /// How many tasks run at the same time, at most.
    pub(super) fn threads_max(&self) -> usize {
        self.threads_max
    }

    /// Queues `task` for the threads.
    pub(super) fn run(&self, task: Task) {
        let mut state = self.queue.lock();
        state.tasks.push_back(task);
        if state.idle < state.tasks.len() {
            drop(state);
            self.start_one();
        }
        self.queue.changed.notify_one();
    }

    /// Starts another thread, up to the limit. When the system refuses it, the running threads do
    /// the work; if there are none, the calling thread does it.
    fn start_one(&self) {
        let mut threads = lock(&self.threads);
        if threads.len() >= self.threads_max {
            return;
        }

        let queue = Arc::clone(&self.queue);
        let thread = std::thread::Builder::new().name("decode-ahead".to_owned());
        match thread.spawn(move || queue.work()) {
            Ok(thread) => threads.push(thread),
            Err(_) if threads.is_empty() => {
                let task = self.queue.lock().tasks.pop_front();
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

    /// Can be upgraded as long as a thread or the pool exists.
    #[cfg(test)]
    pub(in crate::codec) fn alive(&self) -> std::sync::Weak<impl Sized + use<>> {
        Arc::downgrade(&self.queue)
    }
}

impl TaskQueue {
    fn lock(&self) -> MutexGuard<'_, TaskQueueState> {
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

impl Drop for DecodeWorkers {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        state.closed = true;
        state.tasks.clear();
        drop(state);
        self.queue.changed.notify_all();
        let mut threads = lock(&self.threads);

        for thread in threads.drain(..) {
            // The reader that waits for the result notices a panic: the sender is dropped.
            let _ = thread.join();
        }
    }
}
