//! The HTTP client, made when it is first needed, and whether it may be used at all.
//!
//! Loading certificates and starting a runtime takes longer than a lookup in the lookup cache, and
//! many commands need no network at all.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use url::Url;

use crate::format::server_list::{ServerIndex, ServerList};
use crate::http::{Client, HttpError, LineRate, Options, RateLimit, RetryObserver};
use crate::substitute::progress::{Progress, ProgressEvent};
use crate::substitute::servers::{ServerHealth, is_due};
use crate::sync::lock;

/// Which servers a run may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NetworkReach {
    /// Every server.
    AllServers,
    /// Directories only: no network access.
    FilesOnly,
}

/// A client that is made on first use.
pub(crate) struct Network {
    servers: ServerList,
    options: Options,
    reach: NetworkReach,
    client: OnceLock<Result<Arc<Client>, Arc<HttpError>>>,
    health: Arc<ServerHealth>,
}

impl Network {
    /// Will make a client with `options`, for those within `reach`.
    #[must_use]
    pub(crate) fn new(options: Options, reach: NetworkReach, servers: ServerList) -> Self {
        Self {
            servers,
            options,
            reach,
            client: OnceLock::new(),
            health: Arc::default(),
        }
    }

    /// The servers, in the user's order.
    #[must_use]
    pub(crate) fn servers(&self) -> &ServerList {
        &self.servers
    }

    /// Whether what is at `url` may be requested.
    #[must_use]
    pub(crate) fn reaches(&self, url: &Url) -> bool {
        self.reach == NetworkReach::AllServers || url.scheme() == "file"
    }

    /// What the run has seen of each server.
    #[must_use]
    pub(crate) fn health(&self) -> &Arc<ServerHealth> {
        &self.health
    }

    /// How fast each server sends, whatever the limit of the rate.
    #[must_use]
    pub(crate) fn line_rates(&self) -> HashMap<ServerIndex, LineRate> {
        let servers = self.servers.enumerated();
        servers
            .map(|(index, server)| (index, self.options.lines.rate(&server.base().origin())))
            .collect()
    }

    /// How fast each server is expected to send, under the limit of the rate.
    #[must_use]
    pub(crate) fn expected_line_rates(&self) -> HashMap<ServerIndex, LineRate> {
        let mut rates = self.line_rates();
        if let Some(limit) = self.options.rate_limit.filter(RateLimit::applies_at_start) {
            for rate in rates.values_mut() {
                rate.bytes_per_second = rate.bytes_per_second.min(limit.bytes_per_second as f64);
            }
        }
        rates
    }

    /// Notes how fast a server has sent in an earlier run.
    pub(crate) fn note_earlier_rate(&self, server: ServerIndex, bytes_per_second: u64) {
        let origin = self.servers[server].base().origin();
        self.options.lines.note_earlier(origin, bytes_per_second);
    }

    /// Reports now and then that `server` is retried, after it failed with `error` and delivered nothing for this time.
    pub(crate) fn report_retry(
        &self,
        progress: &dyn Progress,
        server: ServerIndex,
        error: &HttpError,
        failing_for: Duration,
    ) {
        if self.health.is_retry_report_due(server) {
            progress.event(ProgressEvent::Retrying {
                server: &self.servers[server].host_and_port(),
                reason: format_args!("{}", error.without_url()),
                is_too_busy: error.is_overload(),
                failing_for,
            });
        }
    }

    /// Reports that `server` has neither a `nix-cache-info` nor any item that was looked up: its address may be
    /// mistyped.
    pub(crate) fn report_doubtful_address(&self, progress: &dyn Progress, server: ServerIndex) {
        let text = format!(
            "{} has no nix-cache-info and none of the items: is its address right?",
            self.servers[server].as_str()
        );
        progress.event(ProgressEvent::Warning(&text));
    }

    /// The client, to request what is at `url`.
    ///
    /// # Errors
    /// That is out of reach; or the client could not be made, and then the error is the same
    /// each time.
    pub(crate) fn client_for(&self, url: &Url) -> Result<Arc<Client>, Arc<HttpError>> {
        self.client_for_all([url])
    }

    /// The client, to request what is at any of `urls`.
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
        self.client.get_or_init(|| self.make_client()).clone()
    }

    fn make_client(&self) -> Result<Arc<Client>, Arc<HttpError>> {
        let client = Client::new(self.options.clone());
        client.map(Arc::new).map_err(Arc::new)
    }
}

/// Reports now and then that the object store `server` is retried.
pub(crate) fn retry_observer(progress: Arc<dyn Progress>, server: String) -> RetryObserver {
    let reported_at = Mutex::new(None);
    RetryObserver::new(move |error, failing_for| {
        if is_due(&mut lock(&reported_at)) {
            progress.event(ProgressEvent::Retrying {
                server: &server,
                reason: format_args!("{}", error.without_url()),
                is_too_busy: error.is_overload(),
                failing_for,
            });
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::error_text::chain;

    #[test]
    fn without_a_network_only_files_are_reached() {
        let (file, http) = ("file:///srv/nar", "http://127.0.0.1:1/nar");
        let [file, http] = [file, http].map(|url| Url::parse(url).unwrap());
        let network = Network::new(Options::default(), NetworkReach::FilesOnly, Arc::default());
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
            Network::new(Options::default(), NetworkReach::AllServers, Arc::default())
                .client_for(&http)
                .is_ok()
        );
    }
}
