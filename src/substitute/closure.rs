//! Fetches a closure into the store: plan, then unpack several items at once, then register.
//!
//! Workers unpack items in any order; the coordinator gives them their names and registers
//! them, references first, as many at a time as are ready. An item that has not been
//! registered when something goes wrong is removed; what is registered stays, and is complete.

mod ahead;
mod coordinator;
mod downloads;
mod early;
mod early_trees;
mod failure;
mod fetch;
mod plan;
mod planner;
mod preparing;
mod registrar;
mod registration;
mod replan;
mod schedule;
mod sorting;
mod store_view;
mod worker;

pub(crate) use ahead::ItemsAhead;
pub(crate) use downloads::{ClosureDownloads, ItemToDownload, plan_downloads};
pub(crate) use fetch::{ClosureFetch, FetchOutcome, OnFailure, TICK};
pub(crate) use plan::{FetchPlan, PlanError, PlannedItem, References};
pub(crate) use planner::Planner;
pub(crate) use store_view::{MissingTrees, StoreView};
