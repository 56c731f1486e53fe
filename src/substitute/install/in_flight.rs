//! The transfers under way: how far they are, and what is left of them.

use std::sync::Mutex;

use crate::format::store_path::StorePath;
use crate::substitute::download::candidate::DownloadCandidate;
use crate::substitute::download::plan::PlanLoad;
use crate::substitute::download::rates::MeasuredRates;
use crate::substitute::download::transfer::ReceivedCounter;
use crate::substitute::progress::{Progress, ProgressEvent};
use crate::sync::lock;

/// The transfers under way.
#[derive(Default)]
pub(crate) struct InFlightTransfers(Mutex<Vec<InFlightTransfer>>);

impl InFlightTransfers {
    /// Whether the item's transfer is under way.
    #[must_use]
    pub(crate) fn contains(&self, item: &StorePath) -> bool {
        lock(&self.0).iter().any(|transfer| transfer.item == *item)
    }

    /// Whether no transfer is under way.
    pub(super) fn is_empty(&self) -> bool {
        lock(&self.0).is_empty()
    }

    /// What is left to do of the transfers under way.
    #[must_use]
    pub(crate) fn load(&self, rates: &MeasuredRates, cores: f64) -> PlanLoad {
        let mut load = PlanLoad::new(cores);
        for transfer in lock(&self.0).iter() {
            let cost = rates.cost(&transfer.candidate, transfer.nar_size);
            let received = transfer.received.bytes() as f64 / (cost.bytes as f64).max(1.0);
            load.add(&cost.scaled((1.0 - received).max(0.0)));
        }
        load
    }

    /// Reports how far every transfer is.
    pub(super) fn report_progress(&self, progress: &dyn Progress) {
        let in_flight = lock(&self.0);
        for transfer in in_flight.iter() {
            progress.event(ProgressEvent::Progressed {
                item: &transfer.item,
                downloaded: transfer.received.bytes(),
            });
        }
    }
}

/// A transfer under way.
pub(super) struct InFlightTransfer {
    pub(super) item: StorePath,
    pub(super) candidate: DownloadCandidate,
    pub(super) nar_size: u64,
    pub(super) received: ReceivedCounter,
}

/// A transfer is among those under way for as long as this lives.
pub(super) struct InFlightGuard<'a> {
    all: &'a InFlightTransfers,
    item: StorePath,
}

impl<'a> InFlightGuard<'a> {
    pub(super) fn new(all: &'a InFlightTransfers, transfer: InFlightTransfer) -> Self {
        let item = transfer.item.clone();
        lock(&all.0).push(transfer);
        Self { all, item }
    }
}

impl Drop for InFlightGuard<'_> {
    fn drop(&mut self) {
        let mut all = lock(&self.all.0);
        all.retain(|transfer| transfer.item != self.item);
    }
}
