//! The caller's side of the lookups: questions in.

use std::sync::Arc;

use super::engine::Engine;
use super::error::{HttpError, HttpErrorKind};
use super::events::{self, EventSender, LookupEvent, LookupEvents};
use super::options::ServerSpec;
use crate::format::store_path::HashPart;

/// Asks servers about items; the answers come out of the [`LookupEvents`]. Cheap to clone. When
/// the last handle is gone, the connections end.
#[derive(Debug, Clone)]
pub struct Lookups {
    servers: Arc<[ServerSpec]>,
    events: EventSender,
}

impl Lookups {
    /// Asks the server with this place in the list about `item`. Never blocks.
    ///
    /// # Panics
    /// There is no such server.
    pub fn ask(&self, server: usize, item: HashPart) {
        let url = self.servers[server].url.narinfo_url(&item);
        let answer = Err(HttpError::new(&url, HttpErrorKind::Cancelled));
        self.events.send(LookupEvent::Answer { server, item, answer });
    }

    /// Gives the server up: what is not answered yet, and what will be asked, is answered as
    /// cancelled. For a server that turns out to be of no use.
    ///
    /// # Panics
    /// There is no such server.
    pub fn close(&self, server: usize) {
        assert!(server < self.servers.len());
    }

    pub(super) fn ask_cache_info(&self, server: usize) {
        let error =
            HttpError::new(&self.servers[server].url.cache_info_url(), HttpErrorKind::Cancelled);
        self.events.send(LookupEvent::CacheInfo { server, info: Err(error) });
    }
}

pub(super) fn open(engine: &Arc<Engine>, servers: Vec<ServerSpec>) -> (Lookups, LookupEvents) {
    let (sender, events) = events::queue(Arc::clone(engine));
    (Lookups { servers: servers.into(), events: sender }, events)
}
