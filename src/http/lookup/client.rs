//! The caller's side of the lookups: questions in.

use std::fmt;
use std::sync::Arc;

use super::dispatch;
use super::events::{self, LookupEvents};
use super::file::FileServer;
use super::queue::Over;
use super::server::Server;
use crate::format::store_path::HashPart;
use crate::http::error::HttpError;
use crate::http::net::runtime::HttpRuntime;
use crate::http::options::ServerSpec;

/// Asks servers about items; the answers come out of the [`LookupEvents`]. Cheap to clone. When
/// the last handle is gone, the connections end, and with them what is not answered yet.
#[derive(Debug, Clone)]
pub(crate) struct Lookups {
    desks: Arc<Desks>,
}

/// Where questions are handed in, by server.
struct Desks(Vec<Desk>);

enum Desk {
    Network(Arc<Server>),
    File(FileServer),
}

impl Lookups {
    /// Asks the server with this place in the list about `item`. Never blocks.
    ///
    /// # Panics
    /// There is no such server.
    pub(crate) fn request(&self, server: usize, item: HashPart) {
        match &self.desks.0[server] {
            Desk::Network(server) => server.ask(Some(item)),
            Desk::File(server) => server.ask(Some(item)),
        }
    }

    /// Requests about items that were sent so far, to all servers, each as often as it was.
    #[must_use]
    pub(crate) fn sent(&self) -> u64 {
        let sent = self.desks.0.iter().map(|desk| match desk {
            Desk::Network(server) => server.sent(),
            Desk::File(server) => server.sent(),
        });
        sent.sum()
    }

    /// Asks what the server says of itself, if that is to be asked and was not asked yet.
    pub(super) fn request_cache_info(&self, server: usize) {
        match &self.desks.0[server] {
            Desk::Network(server) => server.ask(None),
            Desk::File(server) => server.ask(None),
        }
    }
}

pub(in crate::http) fn open(
    runtime: &Arc<HttpRuntime>,
    servers: Vec<ServerSpec>,
) -> Result<(Lookups, LookupEvents), HttpError> {
    let (sender, events) = events::event_queue(Arc::clone(runtime));
    let (options, shared) = (runtime.options(), runtime.setup());
    let desks = servers.into_iter().enumerate().map(|(index, spec)| {
        if spec.url.is_file() {
            return FileServer::open(runtime, index, spec, sender.clone()).map(Desk::File);
        }
        let server = Server::new(index, spec, options, shared, sender.clone());
        let server = Arc::new(server);
        runtime.handle().spawn(dispatch::run(Arc::clone(&server)));
        Ok(Desk::Network(server))
    });
    let desks = desks.collect::<Result<_, _>>()?;
    Ok((
        Lookups {
            desks: Arc::new(Desks(desks)),
        },
        events,
    ))
}

impl Drop for Desks {
    fn drop(&mut self) {
        for desk in &self.0 {
            if let Desk::Network(server) = desk {
                server.stop(Over::Forgotten);
            }
        }
    }
}

impl fmt::Debug for Desks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let urls = self.0.iter().map(|desk| match desk {
            Desk::Network(server) => server.url.as_str(),
            Desk::File(server) => server.url().as_str(),
        });
        f.debug_list().entries(urls).finish()
    }
}
