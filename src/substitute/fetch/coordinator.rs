//! Runs a plan: hands items to workers, and registers what they bring, references first.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};

use crate::format::nar::EntryName;
use crate::format::store_path::{StorePath, StorePathRef};
use crate::store::unpack::{Checked, Destination, open_directory};
use crate::store::{ItemLock, Layout, Registration};
use crate::substitute::chain;
use crate::substitute::install::{ItemError, Order};
use crate::substitute::progress::Event;
use crate::substitute::renew;

use super::plan::{Incomplete, Plan, PlannedItem, total};
use super::{Fetch, OnFailure, Outcome, TICK};

/// What a worker brings back for an item.
enum Brought {
    /// The tree, and the right to register it.
    Tree(Box<(Checked, ItemLock)>),
    /// It is valid: somebody else was faster.
    Valid,
    /// Somebody else is making it; try again later.
    Busy,
    /// It cannot be had.
    Failed(ItemError),
}

/// How far an item is.
enum State {
    /// Waiting for a worker.
    Waiting,
    /// A worker has it.
    Working,
    /// Unpacked; its references are not all valid yet.
    Ready(Box<(Checked, ItemLock)>),
    /// Valid.
    Valid,
    /// Cannot be had.
    Failed,
}

pub(super) fn run(fetch: &Fetch, mut plan: Plan, valid: &mut dyn FnMut(&StorePath)) -> Outcome {
    for path in &plan.valid {
        valid(path);
    }
    let incomplete = std::mem::take(&mut plan.incomplete);
    let mut outcome = carry_out(fetch, plan, valid);
    for item in incomplete {
        settle(item, &mut outcome, valid);
    }
    outcome
}

/// A valid item is complete if what was missing has been fetched again.
fn settle(item: Incomplete, outcome: &mut Outcome, valid: &mut dyn FnMut(&StorePath)) {
    let Incomplete { path, gaps } = item;
    match gaps.into_iter().find(|gap| !outcome.registered.contains(gap)) {
        None => {
            valid(&path);
            outcome.valid.push(path);
        }
        Some(gap) => outcome.failed.push((path, ItemError::Reference(gap))),
    }
}

fn carry_out(fetch: &Fetch, plan: Plan, valid: &mut dyn FnMut(&StorePath)) -> Outcome {
    let download_size = plan.download_size();
    let Plan { items, failed, valid: complete, .. } = plan;
    let outcome = Outcome { failed, valid: complete, ..Outcome::default() };
    if items.is_empty() || (!outcome.failed.is_empty() && fetch.on_failure == OnFailure::Stop) {
        return outcome;
    }
    let directory = match open_directory(fetch.store.layout().store()) {
        Ok(directory) => directory,
        Err(source) => {
            let path = fetch.store.layout().store().to_owned();
            return refuse_all(outcome, &items, ItemError::Open { path, source });
        }
    };
    if let Some(error) = lack_of_space(fetch, &items) {
        return refuse_all(outcome, &items, error);
    }
    fetch.progress.event(Event::Planned { items: items.len(), download_size });
    let outcome = work_off(fetch, &items, outcome, &directory, valid);
    fetch.progress.event(Event::Finished);
    outcome
}

/// Starts the workers and coordinates them until everything is done or given up.
fn work_off(
    fetch: &Fetch,
    items: &[PlannedItem],
    outcome: Outcome,
    directory: &Arc<std::os::fd::OwnedFd>,
    valid: &mut dyn FnMut(&StorePath),
) -> Outcome {
    let jobs = fetch.jobs.clamp(1, items.len());
    let (work, to_do) = bounded::<usize>(jobs);
    let (brought, results) = unbounded();
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            let (to_do, brought) = (to_do.clone(), brought.clone());
            scope.spawn(move || {
                let worker = Worker { fetch, directory };
                for index in to_do {
                    let result = worker.bring(&items[index]);
                    if brought.send((index, result)).is_err() {
                        break;
                    }
                }
            });
        }
        drop((to_do, brought));
        Coordinator::new(fetch, items, outcome, valid).run(work, &results)
    })
}

fn refuse_all(mut outcome: Outcome, items: &[PlannedItem], error: ItemError) -> Outcome {
    let mut error = Some(error);
    for item in items {
        let error = error.take().unwrap_or(ItemError::NotTried);
        outcome.failed.push((item.path.clone(), error));
    }
    outcome
}

fn lack_of_space(fetch: &Fetch, items: &[PlannedItem]) -> Option<ItemError> {
    let needed = total(items.iter().map(|item| item.authorized.narinfo().nar_size()));
    match fetch.store.free_bytes() {
        Ok(free) if free < needed => {
            let path = fetch.store.layout().store().to_owned();
            Some(ItemError::NoSpace { path, needed, free })
        }
        Ok(_) => None,
        Err(error) => Some(error.into()),
    }
}

struct Coordinator<'a> {
    fetch: &'a Fetch,
    items: &'a [PlannedItem],
    states: Vec<State>,
    /// Items that no worker has yet, in the order of the plan.
    waiting: VecDeque<usize>,
    /// Items that somebody else is making; looked at again after a while.
    busy: Vec<usize>,
    working: usize,
    has_stopped: bool,
    outcome: Outcome,
    valid: &'a mut dyn FnMut(&StorePath),
}

impl<'a> Coordinator<'a> {
    fn new(
        fetch: &'a Fetch,
        items: &'a [PlannedItem],
        outcome: Outcome,
        valid: &'a mut dyn FnMut(&StorePath),
    ) -> Self {
        Self {
            fetch,
            items,
            states: items.iter().map(|_| State::Waiting).collect(),
            waiting: order(items),
            busy: Vec::new(),
            working: 0,
            has_stopped: false,
            outcome,
            valid,
        }
    }

    fn run(mut self, work: Sender<usize>, results: &Receiver<(usize, Brought)>) -> Outcome {
        loop {
            self.hand_out(&work);
            if self.working == 0 && self.waiting.is_empty() && self.busy.is_empty() {
                break;
            }
            match results.recv_timeout(TICK) {
                Ok(result) => {
                    let others = std::iter::from_fn(|| results.try_recv().ok());
                    for (index, brought) in std::iter::once(result).chain(others) {
                        self.take(index, brought);
                    }
                    self.register_ready();
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.fetch.installer.report_progress();
                    self.waiting.extend(self.busy.drain(..));
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        drop(work);
        self.give_up_rest();
        self.outcome
    }

    fn hand_out(&mut self, work: &Sender<usize>) {
        if self.has_stopped || self.fetch.installer.cancel.is_cancelled() {
            self.waiting.clear();
            self.busy.clear();
            return;
        }
        while let Some(&index) = self.waiting.front() {
            if matches!(self.states[index], State::Failed) {
                self.waiting.pop_front();
                continue;
            }
            if work.try_send(index).is_err() {
                break;
            }
            self.states[index] = State::Working;
            self.working += 1;
            self.waiting.pop_front();
        }
    }

    fn take(&mut self, index: usize, brought: Brought) {
        self.working -= 1;
        match brought {
            Brought::Tree(_) if matches!(self.states[index], State::Failed) => {}
            Brought::Tree(tree) => self.states[index] = State::Ready(tree),
            Brought::Valid => self.becomes_valid(index),
            Brought::Busy => {
                self.states[index] = State::Waiting;
                self.busy.push(index);
            }
            Brought::Failed(error) => self.fail(index, error),
        }
    }

    fn becomes_valid(&mut self, index: usize) {
        self.states[index] = State::Valid;
        let item = &self.items[index].path;
        self.fetch.progress.event(Event::Registered { item });
        self.outcome.registered.push(item.clone());
        (self.valid)(item);
    }

    /// An item cannot be had, and so what refers to it cannot either.
    fn fail(&mut self, index: usize, error: ItemError) {
        if matches!(self.states[index], State::Failed) {
            return;
        }
        self.states[index] = State::Failed;
        let item = &self.items[index].path;
        self.fetch.progress.event(Event::Failed { item, reason: &chain(&error) });
        self.outcome.failed.push((item.clone(), error));
        self.has_stopped |= self.fetch.on_failure == OnFailure::Stop;
        // The plan has references first, so one pass finds referrers of referrers too.
        for referrer in index + 1..self.items.len() {
            let is_lost = self.items[referrer].needs.contains(&index);
            if is_lost && !matches!(self.states[referrer], State::Failed | State::Valid) {
                self.fail(referrer, ItemError::Reference(item.clone()));
            }
        }
    }

    /// Registers everything whose references are valid or registered with it.
    fn register_ready(&mut self) {
        let mut batch = Vec::new();
        let mut in_batch = HashSet::new();
        for index in 0..self.items.len() {
            let is_there = |need: &usize| {
                matches!(self.states[*need], State::Valid) || in_batch.contains(need)
            };
            let is_ready = matches!(self.states[index], State::Ready(_));
            if is_ready && self.items[index].needs.iter().all(is_there) {
                in_batch.insert(index);
                batch.push(index);
            }
        }
        let mut published = Vec::new();
        for index in batch {
            let State::Ready(tree) = std::mem::replace(&mut self.states[index], State::Working)
            else {
                continue;
            };
            if let Err(error) = self.fetch.store.publish_item(&self.items[index].path) {
                self.fail(index, error.into());
                continue;
            }
            let (checked, lock) = *tree;
            checked.keep();
            published.push((index, lock));
        }
        self.register(published);
    }

    fn register(&mut self, published: Vec<(usize, ItemLock)>) {
        if published.is_empty() {
            return;
        }
        // A batch with an item that could not be given its name must not have its referrers.
        let (published, orphaned): (Vec<_>, Vec<_>) = published
            .into_iter()
            .partition(|(index, _)| !matches!(self.states[*index], State::Failed));
        drop(orphaned);
        let batch: Vec<Registration> =
            published.iter().map(|(index, _)| registration(&self.items[*index])).collect();
        let now = self.fetch.clock.unix_seconds();
        match self.fetch.store.register(&batch, now) {
            Ok(()) => {
                for (index, lock) in published {
                    drop(lock);
                    self.becomes_valid(index);
                }
            }
            Err(error) => {
                let mut error = Some(error);
                for (index, _lock) in published {
                    // Not registered, so garbage: remove it while the lock is still ours.
                    let removed = self.fetch.store.remove_invalid(&self.items[index].path);
                    let error = error.take().or(removed.err());
                    self.fail(index, error.map_or(ItemError::NotTried, ItemError::from));
                }
            }
        }
    }

    /// What nobody came to, and what waits for references that never became valid.
    fn give_up_rest(&mut self) {
        let is_cancelled = self.fetch.installer.cancel.is_cancelled();
        for index in 0..self.items.len() {
            if !matches!(self.states[index], State::Valid | State::Failed) {
                self.states[index] = State::Failed;
                let error = if is_cancelled { ItemError::Interrupted } else { ItemError::NotTried };
                self.outcome.failed.push((self.items[index].path.clone(), error));
            }
        }
    }
}

/// The order in which workers get the items: that of the plan, references first, so that what
/// is done can be registered soon. But an item that is a good part of all bytes goes ahead:
/// left for last it would be unpacked alone, while every other worker is idle.
fn order(items: &[PlannedItem]) -> VecDeque<usize> {
    const GOOD_PART: u64 = 16;
    let size = |index: &usize| items[*index].authorized.narinfo().nar_size();
    let total: u64 = (0..items.len()).map(|index| size(&index)).sum();
    let (mut large, rest): (Vec<usize>, Vec<usize>) =
        (0..items.len()).partition(|index| size(index) > total / GOOD_PART);
    large.sort_by_key(|index| std::cmp::Reverse(size(index)));
    large.into_iter().chain(rest).collect()
}

fn registration(item: &PlannedItem) -> Registration {
    let narinfo = item.authorized.narinfo();
    Registration {
        path: item.path.clone(),
        nar_hash: narinfo.nar_hash(),
        nar_size: narinfo.nar_size(),
        deriver: narinfo.deriver().map(StorePathRef::to_path),
        references: narinfo.references().map(StorePathRef::to_path).collect(),
        signatures: narinfo.nix_signatures().map(str::to_owned).collect(),
        ca: narinfo.ca().map(str::to_owned),
    }
}

struct Worker<'a> {
    fetch: &'a Fetch,
    directory: &'a Arc<std::os::fd::OwnedFd>,
}

impl Worker<'_> {
    fn bring(&self, item: &PlannedItem) -> Brought {
        self.try_bring(item).unwrap_or_else(Brought::Failed)
    }

    fn try_bring(&self, item: &PlannedItem) -> Result<Brought, ItemError> {
        let store = &self.fetch.store;
        let Some(lock) = store.try_lock(&item.path)? else { return Ok(Brought::Busy) };
        if store.is_complete(&item.path)? {
            return Ok(Brought::Valid);
        }
        store.remove_temporary(&item.path)?;
        let name = Layout::temporary_name(&item.path);
        let parent = store.layout().store().to_owned();
        let name = EntryName::new(name.as_bytes()).expect("a store path's name is an entry name");
        let destination = Destination::new(Arc::clone(self.directory), parent, name);
        let order = Order {
            item: &item.path,
            authorized: &item.authorized,
            sources: &item.sources,
            destination: &destination,
            links: Some(store.links()),
        };
        let checked = renew::unpack(&self.fetch.installer, &self.fetch.resolver, &order)?;
        Ok(Brought::Tree(Box::new((checked, lock))))
    }
}
