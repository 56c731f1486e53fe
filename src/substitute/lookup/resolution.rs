//! What lookups give.

use crate::format::server_list::PerServer;
use crate::substitute::item_lookup::ItemLookup;
use crate::substitute::lookup::servers::ServerReport;

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
