//! The HTTP client, made when it is first needed.
//!
//! Loading certificates and starting a runtime takes longer than answering a question from
//! the lookup cache, and much that people ask needs no network at all.

use std::sync::{Arc, OnceLock};

use crate::http::{Client, HttpError, Options};

/// A client that is made on first use.
pub struct Network {
    options: Options,
    client: OnceLock<Result<Arc<Client>, Arc<HttpError>>>,
}

impl Network {
    /// Will make a client with `options`.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self { options, client: OnceLock::new() }
    }

    /// The client.
    ///
    /// # Errors
    /// It could not be made; the same error each time.
    pub fn client(&self) -> Result<Arc<Client>, Arc<HttpError>> {
        let make = || Client::new(self.options.clone()).map(Arc::new).map_err(Arc::new);
        self.client.get_or_init(make).clone()
    }
}
