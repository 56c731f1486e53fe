//! What lookups give, and why they give nothing.

use crate::format::server_list::PerServer;
use crate::substitute::item_lookup::ItemLookup;
use crate::substitute::lookup::servers::ServerReport;

/// Why a lookup ended without a resolution: nothing is known about the items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ResolveError {
    /// The user interrupted.
    #[error("interrupted")]
    Interrupted,
    /// The thread of the lookups has ended, by a panic that it has reported.
    #[error("the thread that looks items up has failed")]
    ThreadEnded,
}

/// What was found, in the order in which items came up.
#[derive(Debug, Clone, Default)]
pub(crate) struct Resolution {
    /// One for each item.
    pub(crate) items: Vec<ItemLookup>,
    /// One for each server, in the user's order.
    pub(crate) servers: PerServer<ServerReport>,
    /// Answers that came from the lookup cache.
    pub(crate) cache_hits: u64,
    /// Answers that did not.
    pub(crate) cache_misses: u64,
    /// Requests sent to servers about items, each as often as it was sent.
    pub(crate) requests: u64,
}
