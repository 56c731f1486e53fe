//! The runtime that everything asynchronous runs on, and what all requests share.

use std::future::Future;
use std::sync::{Arc, OnceLock};

use tokio::runtime::{Builder, Handle, Runtime};

use super::error::HttpError;
use super::options::Options;
use super::tls::Tls;

/// The runtime, the options, and what is made from them when first needed.
#[derive(Debug)]
pub(super) struct Engine {
    options: Arc<Options>,
    shared: Arc<Shared>,
    /// Always there; taken out only to be shut down.
    runtime: Option<Runtime>,
}

/// What connections need, apart from the runtime: a task must not own the runtime it runs on.
#[derive(Debug, Default)]
pub(super) struct Shared {
    tls: OnceLock<Result<Tls, HttpError>>,
    web: OnceLock<Result<reqwest::Client, HttpError>>,
}

impl Engine {
    pub(super) fn new(options: Options) -> Result<Self, HttpError> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .thread_name("subst-http")
            .enable_all()
            .build()
            .map_err(|cause| HttpError::setup("the HTTP client", cause))?;
        let shared = Arc::default();
        Ok(Self { options: Arc::new(options.bounded()), shared, runtime: Some(runtime) })
    }

    pub(super) fn options(&self) -> &Arc<Options> {
        &self.options
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(super) fn handle(&self) -> &Handle {
        self.runtime.as_ref().expect("the runtime is only taken out on drop").handle()
    }

    /// Runs `future` to its end on the calling thread.
    pub(super) fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.handle().block_on(future)
    }
}

impl Shared {
    /// The TLS settings, made once.
    pub(super) fn tls(&self, options: &Options) -> Result<&Tls, HttpError> {
        self.tls.get_or_init(|| Tls::new(options)).as_ref().map_err(Clone::clone)
    }

    /// The ordinary HTTP client: for nars, and for what lookups are redirected to.
    pub(super) fn web(&self, options: &Options) -> Result<&reqwest::Client, HttpError> {
        self.web
            .get_or_init(|| super::web::client(options, self.tls(options)?))
            .as_ref()
            .map_err(Clone::clone)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // A host name may still be looked up on a thread that cannot be interrupted.
            runtime.shutdown_background();
        }
    }
}

/// Threads that move bytes. With a second one lookups were no faster, and nars slower (2.5 instead
/// of 3.6 GB/s, 0.65 instead of 0.85 with TLS, on two cores): it competes with those who unpack.
const WORKERS: usize = 1;
