//! The HTTP client, made when it is first needed, and whether it may be used at all.
//!
//! Loading certificates and starting a runtime takes longer than answering a question from
//! the lookup cache, and much that people ask needs no network at all.

use std::sync::{Arc, OnceLock};

use url::Url;

use crate::format::server_url::redacted;
use crate::http::{Client, HttpError, Options};
use crate::substitute::download::choice::DownloadCandidate;
use crate::substitute::install::ItemError;
use crate::substitute::servers::ServerHealth;

/// Whom a run may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NetworkReach {
    /// Every server.
    AllServers,
    /// Directories only: nobody is connected to.
    FilesOnly,
}

/// A client that is made on first use.
pub(crate) struct Network {
    options: Options,
    reach: NetworkReach,
    client: OnceLock<Result<Arc<Client>, Arc<HttpError>>>,
    health: Arc<ServerHealth>,
}

impl Network {
    /// Will make a client with `options`, for those within `reach`.
    #[must_use]
    pub(crate) fn new(options: Options, reach: NetworkReach) -> Self {
        Self {
            options,
            reach,
            client: OnceLock::new(),
            health: Arc::default(),
        }
    }

    /// Whether what is at `url` may be asked for.
    #[must_use]
    pub(crate) fn reaches(&self, url: &Url) -> bool {
        self.reach == NetworkReach::AllServers || url.scheme() == "file"
    }

    /// What the run has seen of each server.
    #[must_use]
    pub(crate) fn health(&self) -> &Arc<ServerHealth> {
        &self.health
    }

    /// Those of `candidates` that may be asked for.
    ///
    /// # Errors
    /// There are some, but none that may be.
    pub(crate) fn within_reach(
        &self,
        mut candidates: Vec<DownloadCandidate>,
    ) -> Result<Vec<DownloadCandidate>, ItemError> {
        let first = candidates.first().map(|candidate| redacted(&candidate.url));
        candidates.retain(|candidate| self.reaches(&candidate.url));
        match first {
            Some(url) if candidates.is_empty() => Err(ItemError::Offline(url)),
            _ => Ok(candidates),
        }
    }

    /// The client, to ask for what is at `url`.
    ///
    /// # Errors
    /// That is out of reach; or the client could not be made, and then the error is the same
    /// each time.
    pub(crate) fn client_for(&self, url: &Url) -> Result<Arc<Client>, Arc<HttpError>> {
        self.client_for_all([url])
    }

    /// The client, to ask for what is at any of `urls`.
    ///
    /// # Errors
    /// As for [`Network::client_for`].
    pub(crate) fn client_for_all<'a>(
        &self,
        urls: impl IntoIterator<Item = &'a Url>,
    ) -> Result<Arc<Client>, Arc<HttpError>> {
        if let Some(url) = urls.into_iter().find(|url| !self.reaches(url)) {
            return Err(Arc::new(HttpError::offline(url)));
        }
        let make = || {
            Client::new(self.options.clone())
                .map(Arc::new)
                .map_err(Arc::new)
        };
        self.client.get_or_init(make).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::substitute::chain;

    #[test]
    fn without_a_network_only_files_are_reached() {
        let (file, http) = ("file:///srv/nar", "http://127.0.0.1:1/nar");
        let [file, http] = [file, http].map(|url| Url::parse(url).unwrap());
        let network = Network::new(Options::default(), NetworkReach::FilesOnly);
        assert!(network.client_for(&file).is_ok());
        let error = network
            .client_for(&http)
            .err()
            .map(|error| chain(&*error))
            .unwrap();
        assert_eq!(
            error,
            "requesting http://127.0.0.1:1/nar: offline: network access is not allowed"
        );
        assert!(
            Network::new(Options::default(), NetworkReach::AllServers)
                .client_for(&http)
                .is_ok()
        );
    }
}
