//! The runtime that everything asynchronous runs on, and what all requests share.

use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use super::tls::Tls;
use crate::http::error::HttpError;
use crate::http::options::Options;

/// The runtime, the options, and what is made from them when first needed.
///
/// One thread moves all bytes. With a second one lookups were no faster, and nars slower (2.5
/// instead of 3.6 GB/s, 0.65 instead of 0.85 with TLS, on two cores): it competes with those who
/// unpack.
#[derive(Debug)]
pub(in crate::http) struct Engine {
    options: Arc<Options>,
    shared: Arc<Shared>,
    runtime: Handle,
    /// The thread of the runtime ends when this is dropped.
    _alive: oneshot::Sender<()>,
}

/// What connections need, apart from the runtime: a task must not own the runtime it runs on.
#[derive(Debug, Default)]
pub(in crate::http) struct Shared {
    tls: OnceLock<Result<Tls, HttpError>>,
    web: OnceLock<Result<reqwest::Client, HttpError>>,
}

impl Engine {
    pub(in crate::http) fn new(options: Options) -> Result<Self, HttpError> {
        let failed = |cause| HttpError::setup("the HTTP client", cause);
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(failed)?;
        let handle = runtime.handle().clone();
        let (alive, ended) = oneshot::channel();

        // The library's own threads panic when the system has none to give.
        let thread = thread::Builder::new().name("subst-http".to_owned());
        let run = move || {
            // Nothing is ever sent.
            let _ = runtime.block_on(ended);
        };
        thread.spawn(run).map_err(failed)?;

        let (options, shared) = (Arc::new(options.bounded()), Arc::default());
        Ok(Self {
            options,
            shared,
            runtime: handle,
            _alive: alive,
        })
    }

    pub(in crate::http) fn options(&self) -> &Arc<Options> {
        &self.options
    }

    pub(in crate::http) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(in crate::http) fn handle(&self) -> &Handle {
        &self.runtime
    }

    /// Runs `future` to its end on the calling thread.
    pub(in crate::http) fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.handle().block_on(future)
    }
}

impl Shared {
    /// The TLS settings, made once.
    pub(in crate::http) fn tls(&self, options: &Options) -> Result<&Tls, HttpError> {
        self.tls
            .get_or_init(|| Tls::new(options))
            .as_ref()
            .map_err(Clone::clone)
    }

    /// The ordinary HTTP client: for nars, and for what lookups are redirected to.
    pub(in crate::http) fn web(&self, options: &Options) -> Result<&reqwest::Client, HttpError> {
        self.web
            .get_or_init(|| crate::http::download::client::client(options, self.tls(options)?))
            .as_ref()
            .map_err(Clone::clone)
    }
}
