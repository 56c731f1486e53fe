//! Layer 5: guix-daemon's substituter helper.
//!
//! The daemon starts `guix substitute --query` and `guix substitute --substitute`, writes
//! requests to descriptor 0, one line each, and reads replies from descriptor 4; what is
//! written to descriptor 2 is shown to the client. One process serves any number of requests. A
//! request that fails gets a reply that says so; it never ends the process.
//!
//! The daemon holds the item's lock and its temp root, and registers it, so nothing here does.
//! [`query`] and [`substitute`] handle requests, [`serve`] is the loop around them.

pub(crate) mod client_items;
pub(crate) mod item_sync;
pub(crate) mod log;
pub(crate) mod options;
pub(crate) mod prefetch;
mod process;
pub(crate) mod progress;
pub(crate) mod query;
pub(crate) mod reply;
pub(crate) mod request;
pub(crate) mod serve;
pub(crate) mod substitute;
mod wording;
