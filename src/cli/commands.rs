//! The commands: one file each.

pub(crate) mod authorize;
pub(crate) mod cache;
pub(crate) mod challenge;
pub(crate) mod config;
pub(crate) mod endorse;
pub(crate) mod fetch;
pub(crate) mod gc;
pub(crate) mod mirror;
pub(crate) mod query;
pub(crate) mod roots;
pub(crate) mod run;
pub(crate) mod servers;
pub(crate) mod substitute;
pub(crate) mod verify;
