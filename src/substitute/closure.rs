//! A closure comes into the store: plan, then unpack several items at once, then register.

mod coordinator;
mod failure;
mod fetch;
mod plan;
mod planner;
mod registrar;
mod registration;
mod replan;
mod sorting;
mod store_view;
mod worker;

pub(crate) use fetch::{ClosureFetch, FetchOutcome, OnFailure, TICK};
pub(crate) use plan::{FetchPlan, PlannedItem, References};
pub(crate) use planner::Planner;
pub(crate) use store_view::{MissingTrees, StoreView};
