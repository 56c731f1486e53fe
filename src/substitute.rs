//! Layer 4: the use cases. Lookups, transfers, and bringing closures into a store.

pub(crate) mod cancel;
pub(crate) mod challenge;
pub(crate) mod claims;
pub(crate) mod clock;
pub(crate) mod closure;
pub(crate) mod download;
pub(crate) mod endorse;
pub(crate) mod install;
pub(crate) mod item_lookup;
pub(crate) mod lookup;
pub(crate) mod mirror;
pub(crate) mod network;
pub(crate) mod outcome;
pub(crate) mod preparation;
pub(crate) mod progress;
pub(crate) mod repair;
pub(crate) mod servers;

pub(crate) use crate::format::error_text::chain;
