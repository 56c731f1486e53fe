//! The caller's side of the lookups: requests go in here.

use std::fmt;
use std::sync::Arc;

use super::dispatch;
use super::events::{LookupEvents, event_queue};
use super::file::FileServer;
use super::queue::QueueStopReason;
use super::server::HttpServer;
use crate::format::server_list::{PerServer, ServerIndex};
use crate::format::store_path::HashPart;
use crate::http::error::HttpError;
use crate::http::net::runtime::HttpRuntime;
use crate::http::options::ServerSpec;

/// Looks up items on servers; the answers come out of the [`LookupEvents`]. Cheap to clone. When
/// the last handle is gone, the connections end, and with them the unanswered requests.
#[derive(Debug, Clone)]
pub(crate) struct Lookups {
    servers: Arc<ServerHandles>,
}

struct ServerHandles(PerServer<ServerHandle>);

enum ServerHandle {
    Network(Arc<HttpServer>),
    File(FileServer),
}

impl Lookups {
    /// Looks up `item` on `server`. Never blocks.
    pub(crate) fn request(&self, server: ServerIndex, item: HashPart) {
        self.send(server, Some(item));
    }

    /// Sends requests to `server` again, which was down or not to be used.
    pub(crate) fn reopen(&self, server: ServerIndex) {
        match &self.servers.0[server] {
            ServerHandle::Network(server) => {
                server.queue().reopen();
                server.notify();
            }
            ServerHandle::File(server) => server.reopen(),
        }
    }

    /// Requests for items that were sent so far, to all servers, each as often as it was.
    #[must_use]
    pub(crate) fn sent(&self) -> u64 {
        let counts = self.servers.0.iter().map(|server| match server {
            ServerHandle::Network(server) => server.sent(),
            ServerHandle::File(server) => server.sent(),
        });
        counts.sum()
    }

    /// Requests the server's `nix-cache-info`, if it is needed and was not requested yet.
    pub(super) fn request_cache_info(&self, server: ServerIndex) {
        self.send(server, None);
    }

    fn send(&self, server: ServerIndex, item: Option<HashPart>) {
        match &self.servers.0[server] {
            ServerHandle::Network(server) => server.request(item),
            ServerHandle::File(server) => server.request(item),
        }
    }
}

/// Opens lookups on `servers`.
pub(in crate::http) fn open(
    runtime: &Arc<HttpRuntime>,
    servers: PerServer<ServerSpec>,
) -> Result<(Lookups, LookupEvents), HttpError> {
    let (sender, events) = event_queue(Arc::clone(runtime));
    let handles = servers.indices().zip(servers).map(|(index, spec)| {
        if spec.url.is_file() {
            return FileServer::open(runtime, index, spec, sender.clone()).map(ServerHandle::File);
        }
        let (options, setup) = (runtime.options(), runtime.setup());
        let server = Arc::new(HttpServer::new(index, spec, options, setup, sender.clone()));
        runtime.handle().spawn(dispatch::run(Arc::clone(&server)));
        Ok(ServerHandle::Network(server))
    });
    let handles = handles.collect::<Result<_, _>>()?;

    let lookups = Lookups {
        servers: Arc::new(ServerHandles(handles)),
    };
    Ok((lookups, events))
}

impl Drop for ServerHandles {
    fn drop(&mut self) {
        for server in &self.0 {
            if let ServerHandle::Network(server) = server {
                server.stop(QueueStopReason::CallerGone);
            }
        }
    }
}

impl fmt::Debug for ServerHandles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let urls = self.0.iter().map(|server| match server {
            ServerHandle::Network(server) => server.url.as_str(),
            ServerHandle::File(server) => server.url().as_str(),
        });
        f.debug_list().entries(urls).finish()
    }
}
