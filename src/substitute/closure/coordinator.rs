//! Runs a plan: hands items to workers, and registers what they unpack, references first.
//!
//! When no server has the nar of an item's build and another server has a build with other
//! references, the item is planned again while everything else goes on: see `replan`.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, Sender, bounded, select, tick, unbounded};

use crate::format::store_path::StorePath;
use crate::store::{Checked, ItemLock};
use crate::substitute::closure::downloads::DownloadSchedule;
use crate::substitute::closure::fetch::{ClosureFetch, FetchOutcome, OnFailure, TICK};
use crate::substitute::closure::plan::{
    FetchPlan, IncompleteItem, PlannedItem, References, work_order,
};
use crate::substitute::closure::planner::Planner;
use crate::substitute::closure::registrar::Registrar;
use crate::substitute::closure::worker::{UnpackTask, Worker, WorkerResult};
use crate::substitute::install::ItemError;
use crate::substitute::install::item::UnpackFailure;
use crate::substitute::progress::ProgressEvent;
use crate::trust::verdict::AuthorizedNarInfo;

/// How far an item is.
pub(super) enum PlannedItemState {
    /// Waiting for a worker.
    Waiting,
    /// A worker has it; the number of workers when it was handed out.
    Working(usize),
    /// Unpacked; its references are not all valid yet.
    Ready(Box<(Checked, ItemLock)>),
    /// Published, and being registered.
    Registering,
    /// Valid.
    Valid,
    /// Cannot be had.
    Failed,
    /// Cannot be had, and no build in use refers to it any more.
    Unneeded,
}

impl ClosureFetch {
    /// Carries `plan` out; `planner`, which made it, plans items again that another server has in
    /// another build. `valid` is called for every item that becomes valid, when it does.
    #[must_use]
    pub(crate) fn run(
        &self,
        planner: &Planner,
        mut plan: FetchPlan,
        valid: &mut dyn FnMut(&StorePath),
    ) -> FetchOutcome {
        for path in &plan.valid {
            valid(path);
        }
        let planned = plan.items.iter().map(|item| &item.path);
        self.items_ahead.keep_only(&planned.collect());
        let incomplete = std::mem::take(&mut plan.incomplete);
        let mut outcome = carry_out(self, planner, plan, valid);
        // What is left after a failure.
        self.items_ahead.clear();
        for item in incomplete {
            settle(item, &mut outcome, valid);
        }
        outcome
    }
}

/// A valid item is complete if what was missing has been fetched again.
fn settle(item: IncompleteItem, outcome: &mut FetchOutcome, valid: &mut dyn FnMut(&StorePath)) {
    let IncompleteItem { path, gaps } = item;
    match gaps
        .into_iter()
        .find(|gap| !outcome.registered.contains(gap))
    {
        None => {
            valid(&path);
            outcome.valid.push(path);
        }
        Some(gap) => outcome.failed.push((path, ItemError::Reference(gap))),
    }
}

fn carry_out(
    fetch: &ClosureFetch,
    planner: &Planner,
    plan: FetchPlan,
    valid: &mut dyn FnMut(&StorePath),
) -> FetchOutcome {
    let download_size = plan.download_size();
    let FetchPlan {
        items,
        failed,
        valid: complete,
        references,
        has_successor,
        ..
    } = plan;
    fetch.report_failures(&failed);
    let outcome = FetchOutcome {
        failed,
        valid: complete,
        ..FetchOutcome::default()
    };

    if items.is_empty() || (!outcome.failed.is_empty() && fetch.on_failure == OnFailure::Stop) {
        return outcome;
    }
    let items: Vec<Arc<PlannedItem>> = items.into_iter().map(Arc::new).collect();
    let to_unpack = items.iter().map(|item| &**item);
    let to_unpack = to_unpack.filter(|item| !fetch.items_ahead.has_unpacked(item));
    if let Err(error) = check_space(fetch, to_unpack) {
        return refuse_all(outcome, &items, error);
    }
    fetch.progress.event(ProgressEvent::Planned {
        items: items.len(),
        download_size,
    });
    let replanning = Replanning {
        planner,
        references,
        has_successor,
    };

    let _write_ahead = fetch.store.write_ahead(&fetch.installer.writers);
    let workers = AtomicUsize::new(0);
    let outcome = match Registrar::start(&fetch.store, fetch.clock) {
        Ok(registrar) => {
            let coordinator = Coordinator::new(
                fetch, replanning, items, &workers, registrar, outcome, valid,
            );
            work_off(fetch, coordinator)
        }
        Err(error) => refuse_all(outcome, &items, ItemError::Threads(error)),
    };
    fetch.progress.event(ProgressEvent::Finished);
    outcome
}

/// Starts the workers and coordinates them until everything is done or given up.
fn work_off(fetch: &ClosureFetch, coordinator: Coordinator<'_>) -> FetchOutcome {
    let jobs = fetch.jobs.clamp(1, coordinator.items.len());
    let (work, to_do) = bounded::<UnpackTask>(jobs);
    let (finished, results) = unbounded();
    std::thread::scope(|scope| {
        for number in 0..jobs {
            let worker = Worker {
                fetch,
                workers: coordinator.workers,
            };
            match worker.start(scope, number, to_do.clone(), finished.clone()) {
                Ok(()) => {}
                Err(error) if number == 0 => {
                    let Coordinator { items, outcome, .. } = coordinator;
                    return refuse_all(outcome, &items, ItemError::Threads(error));
                }
                Err(_) => break,
            }
        }
        drop((to_do, finished));
        coordinator.run(work, &results)
    })
}

fn refuse_all(
    mut outcome: FetchOutcome,
    items: &[Arc<PlannedItem>],
    error: ItemError,
) -> FetchOutcome {
    let mut error = Some(error);
    for item in items {
        let error = error.take().unwrap_or(ItemError::NotTried);
        outcome.failed.push((item.path.clone(), error));
    }
    outcome
}

/// Everything has to fit before anything of it is downloaded.
pub(super) fn check_space<'a>(
    fetch: &ClosureFetch,
    items: impl Iterator<Item = &'a PlannedItem>,
) -> Result<(), ItemError> {
    let narinfos: Vec<&AuthorizedNarInfo> = items.map(|item| &*item.authorized).collect();
    fetch.installer.check_space(
        fetch.store.layout().store(),
        &|| fetch.store.free_space(),
        narinfos.into_iter(),
    )
}

/// With what items are planned again.
pub(super) struct Replanning<'a> {
    pub(super) planner: &'a Planner,
    pub(super) references: References,
    /// As in the plan.
    pub(super) has_successor: bool,
}

pub(super) struct Coordinator<'a> {
    pub(super) fetch: &'a ClosureFetch,
    pub(super) replanning: Replanning<'a>,
    /// References first, as long as nothing was planned again.
    pub(super) items: Vec<Arc<PlannedItem>>,
    pub(super) states: Vec<PlannedItemState>,
    /// Items that no worker has yet, in the order of the plan.
    pub(super) waiting: VecDeque<usize>,
    /// How their downloads are planned.
    pub(super) schedule: DownloadSchedule,
    /// Items that another process is installing; tried again after a while.
    pub(super) busy: Vec<usize>,
    pub(super) working: usize,
    /// How many workers there are, busy or not.
    pub(super) workers: &'a AtomicUsize,
    pub(super) has_stopped: bool,
    /// Registers what is published.
    pub(super) registrar: Registrar,
    /// Why earlier builds of items could not be had, which were planned again.
    pub(super) earlier: HashMap<usize, ItemError>,
    pub(super) outcome: FetchOutcome,
    pub(super) valid: &'a mut dyn FnMut(&StorePath),
}

impl<'a> Coordinator<'a> {
    fn new(
        fetch: &'a ClosureFetch,
        replanning: Replanning<'a>,
        items: Vec<Arc<PlannedItem>>,
        workers: &'a AtomicUsize,
        registrar: Registrar,
        outcome: FetchOutcome,
        valid: &'a mut dyn FnMut(&StorePath),
    ) -> Self {
        let states: Vec<PlannedItemState> = items
            .iter()
            .map(|item| match fetch.items_ahead.take_unpacked(item) {
                Some(tree) => PlannedItemState::Ready(Box::new(tree)),
                None => PlannedItemState::Waiting,
            })
            .collect();
        let mut waiting = work_order(&items, |item| fetch.items_ahead.has_started(item));
        waiting.retain(|index| matches!(states[*index], PlannedItemState::Waiting));

        Self {
            fetch,
            replanning,
            states,
            waiting,
            schedule: DownloadSchedule::new(items.iter().map(|item| &**item)),
            items,
            busy: Vec::new(),
            working: 0,
            workers,
            has_stopped: false,
            registrar,
            earlier: HashMap::new(),
            outcome,
            valid,
        }
    }

    fn run(
        mut self,
        work: Sender<UnpackTask>,
        results: &Receiver<(UnpackTask, WorkerResult)>,
    ) -> FetchOutcome {
        let registered = self.registrar.results().clone();
        // Not a timeout, which would begin anew with each of many small items.
        let ticks = tick(TICK);
        let ended_thread = loop {
            self.hand_out(&work);
            self.register_ready();
            if self.is_done() {
                break None;
            }

            select! {
                recv(results) -> result => {
                    let Ok(result) = result else { break Some("unpacks items") };
                    let others = std::iter::from_fn(|| results.try_recv().ok());
                    for (task, finished) in std::iter::once(result).chain(others) {
                        self.take(&task, finished);
                    }
                }
                recv(registered) -> batch => {
                    let Ok(batch) = batch else { break Some("registers items") };
                    self.registered(batch);
                }
                recv(ticks) -> _ => {
                    self.fetch.installer.report_progress();
                    self.waiting.extend(self.busy.drain(..));
                }
            }
        };

        drop(work);
        self.give_up_rest(ended_thread);
        self.outcome
    }

    /// Whether nothing more can become valid.
    fn is_done(&self) -> bool {
        self.working == 0
            && self.waiting.is_empty()
            && self.busy.is_empty()
            && !self.registrar.is_busy()
    }

    fn hand_out(&mut self, work: &Sender<UnpackTask>) {
        if self.has_stopped || self.fetch.installer.cancel.is_canceled() {
            self.waiting.clear();
            self.busy.clear();
            self.fetch.items_ahead.clear();
            return;
        }

        if !self.waiting.is_empty() {
            self.plan_downloads();
            self.start_ahead();
        }
        while let Some(place) = self.next_waiting() {
            let index = self.waiting[place];
            if self.is_settled(index) {
                self.waiting.remove(place);
                continue;
            }
            let item = Arc::clone(&self.items[index]);
            if work.try_send(UnpackTask { index, item }).is_err() {
                break;
            }
            self.states[index] = PlannedItemState::Working(self.workers.load(Ordering::Relaxed));
            self.working += 1;
            self.waiting.remove(place);
        }
    }

    fn take(&mut self, task: &UnpackTask, finished: WorkerResult) {
        self.working -= 1;
        let index = task.index;
        // What was unpacked for an item that has failed meanwhile, or has another build, is removed.
        if self.is_settled(index) || !Arc::ptr_eq(&self.items[index], &task.item) {
            return;
        }

        match finished {
            WorkerResult::Ready(tree) => self.states[index] = PlannedItemState::Ready(tree),
            WorkerResult::Valid => self.becomes_valid(index),
            WorkerResult::Busy => self.try_later(index),
            // Workers end for a shortage, so there may be enough soon.
            WorkerResult::Failed(UnpackFailure { error, .. })
                if error.is_shortage() && self.had_company(index) =>
            {
                self.try_later(index);
            }
            WorkerResult::Failed(UnpackFailure {
                error,
                is_superseded: true,
            }) if !self.has_stopped => {
                let failures = self.replan(index, error);
                self.fail_all(failures.unwrap_or_else(|error| vec![(index, error)]));
            }
            WorkerResult::Failed(UnpackFailure { error, .. }) => self.fail(index, error),
        }
    }

    fn try_later(&mut self, index: usize) {
        self.states[index] = PlannedItemState::Waiting;
        self.busy.push(index);
    }

    /// The item is settled, or has another build: its nar is not needed any more.
    pub(super) fn discard_ahead(&mut self, index: usize) {
        self.fetch.items_ahead.discard(&self.items[index].path);
    }

    /// Whether the item was tried while there was more than one worker.
    fn had_company(&self, index: usize) -> bool {
        matches!(self.states[index], PlannedItemState::Working(workers) if workers > 1)
    }

    pub(super) fn becomes_valid(&mut self, index: usize) {
        self.states[index] = PlannedItemState::Valid;
        self.discard_ahead(index);
        let item = &self.items[index].path;
        self.fetch
            .progress
            .event(ProgressEvent::Registered { item });
        self.fetch.installer.item_is_complete(item);
        self.outcome.registered.push(item.clone());
        (self.valid)(item);
    }
}
