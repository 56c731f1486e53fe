//! A closure comes into the store: plan, then unpack several items at once, then register.
//!
//! Workers unpack items in any order; the coordinator gives them their names and registers
//! them, references first, as many at a time as are ready. An item that has not been
//! registered when something goes wrong is removed; what is registered stays, and is complete.

mod coordinator;
mod plan;
mod present;

use std::sync::Arc;
use std::time::Duration;

use crate::format::server_url::ServerUrl;
use crate::format::store_path::StorePath;
use crate::store::{Store, StoreError};

use super::clock::Clock;
use super::install::{Class, Installer, ItemError};
use super::lookup::Resolver;
use super::network::Network;
use super::progress::Progress;

pub(crate) use plan::{Plan, PlannedItem, refusal};
pub(crate) use present::{MissingTrees, Present};

/// Whether what an item refers to is fetched as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum References {
    /// Yes, transitively.
    #[default]
    Fetch,
    /// No: they must be valid already.
    MustBeValid,
}

/// What to do with the rest when an item cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnFailure {
    /// Finish what has been started, and stop.
    Stop,
    /// Go on with everything that does not depend on it.
    KeepGoing,
}

/// Everything that a plan needs.
pub(crate) struct Planner {
    /// What is there.
    pub(crate) present: Present,
    /// What to do about valid items whose trees are missing.
    pub(crate) missing_trees: MissingTrees,
    /// Who has the rest.
    pub(crate) resolver: Arc<Resolver>,
    /// Whom to reach.
    pub(crate) network: Arc<Network>,
    /// The servers, in the user's order.
    pub(crate) servers: Vec<ServerUrl>,
}

impl Planner {
    /// Finds out what is missing for `paths` to be valid, and who has it.
    ///
    /// # Errors
    /// The store cannot be read, or refuses temp roots.
    pub(crate) fn plan(
        &self,
        paths: &[StorePath],
        references: References,
    ) -> Result<Plan, StoreError> {
        plan::make(self, paths, references)
    }
}

/// Everything that fetching needs.
pub(crate) struct Fetch {
    /// Where items go.
    pub(crate) store: Arc<Store>,
    /// Who has them.
    pub(crate) resolver: Arc<Resolver>,
    /// Unpacks them.
    pub(crate) installer: Arc<Installer>,
    /// Whom to tell.
    pub(crate) progress: Arc<dyn Progress>,
    /// The time.
    pub(crate) clock: Clock,
    /// Items unpacked at the same time.
    pub(crate) jobs: usize,
    /// What to do with the rest when an item cannot be had.
    pub(crate) on_failure: OnFailure,
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Items asked for that were valid already, with everything they refer to; or are now,
    /// because trees that were missing are in place again.
    pub(crate) valid: Vec<StorePath>,
    /// Items that have become valid now.
    pub(crate) registered: Vec<StorePath>,
    /// Items that could not be had, and why; what depends on them comes after them.
    pub(crate) failed: Vec<(StorePath, ItemError)>,
    /// Items that were planned again, with another server's build, or came to the plan with one.
    pub(crate) replanned: Vec<Arc<PlannedItem>>,
}

impl Outcome {
    /// The gravest failure.
    #[must_use]
    pub(crate) fn class(&self) -> Option<Class> {
        self.failed.iter().map(|(_, error)| error.class()).max()
    }
}

impl Fetch {
    /// Carries `plan` out; `planner`, which made it, plans items again that another server has in
    /// another build. `valid` is called for every item that becomes valid, when it does.
    #[must_use]
    pub(crate) fn run(
        &self,
        planner: &Planner,
        plan: Plan,
        valid: &mut dyn FnMut(&StorePath),
    ) -> Outcome {
        coordinator::run(self, planner, plan, valid)
    }
}

/// How often progress is told, and the coordinator looks at locks.
pub(crate) const TICK: Duration = Duration::from_millis(100);
