//! The runtime of everything asynchronous, and what all requests share.

use std::future::Future;
use std::io;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use url::Url;

use super::library_client::LibraryClients;
use super::tls::Tls;
use crate::http::error::HttpError;
use crate::http::limit::RateLimiter;
use crate::http::options::Options;
use crate::http::rate::OpenTransfers;

/// The runtime, the options, and what is made from them when first needed.
///
/// One thread moves all bytes. With a second one lookups were no faster, and nars slower (2.5
/// instead of 3.6 GB/s, 0.65 instead of 0.85 with TLS, on two cores): it competes with the
/// threads that unpack.
#[derive(Debug)]
pub(in crate::http) struct HttpRuntime {
    options: Arc<Options>,
    setup: Arc<ConnectionSetup>,
    transfers: OpenTransfers,
    limiter: Option<Arc<RateLimiter>>,
    handle: Handle,
    /// The thread of the runtime ends when this is dropped.
    _alive: oneshot::Sender<()>,
}

/// What connections need, apart from the runtime: a task must not own the runtime it runs on.
#[derive(Debug, Default)]
pub(in crate::http) struct ConnectionSetup {
    tls: OnceLock<Result<Tls, HttpError>>,
    http_clients: LibraryClients,
}

impl HttpRuntime {
    /// Starts the runtime's thread.
    ///
    /// # Errors
    /// The system has no more threads.
    pub(in crate::http) fn new(options: Options) -> Result<Self, HttpError> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(setup_failure)?;
        let handle = runtime.handle().clone();
        let (alive, ended) = oneshot::channel();

        // The library's own threads panic when the system has none to give.
        thread::Builder::new()
            .name("subst-http".to_owned())
            .spawn(move || {
                // Nothing is ever sent.
                let _ = runtime.block_on(ended);
            })
            .map_err(setup_failure)?;

        Ok(Self {
            limiter: options.rate_limit.map(RateLimiter::new).map(Arc::new),
            options: Arc::new(options.bounded()),
            setup: Arc::default(),
            transfers: OpenTransfers::default(),
            handle,
            _alive: alive,
        })
    }

    pub(in crate::http) fn options(&self) -> &Arc<Options> {
        &self.options
    }

    pub(in crate::http) fn setup(&self) -> &Arc<ConnectionSetup> {
        &self.setup
    }

    pub(in crate::http) fn transfers(&self) -> &OpenTransfers {
        &self.transfers
    }

    /// What all transfers have to keep to, if there is a limit.
    pub(in crate::http) fn limiter(&self) -> Option<&Arc<RateLimiter>> {
        self.limiter.as_ref()
    }

    pub(in crate::http) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Runs `future` to its end on the calling thread.
    pub(in crate::http) fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.handle.block_on(future)
    }
}

fn setup_failure(cause: io::Error) -> HttpError {
    HttpError::setup("the HTTP client", cause)
}

impl ConnectionSetup {
    /// The TLS settings, made once.
    pub(in crate::http) fn tls(&self, options: &Options) -> Result<&Tls, HttpError> {
        self.tls
            .get_or_init(|| Tls::new(options))
            .as_ref()
            .map_err(Clone::clone)
    }

    /// The HTTP library's client for requests to `url`, whose connections are made within
    /// `connect_timeout`.
    pub(in crate::http) fn http_client(
        &self,
        url: &Url,
        connect_timeout: Duration,
        options: &Options,
    ) -> Result<reqwest::Client, HttpError> {
        let tls = self.tls(options)?.configs_for(url, options);
        self.http_clients.client_for(tls, connect_timeout, options)
    }
}
