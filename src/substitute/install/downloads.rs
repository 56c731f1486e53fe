//! Which downloads an item has, and their order: before a worker takes the item, and when one does.

use crate::format::store_path::StorePath;
use crate::http::RateDemand;
use crate::substitute::download::candidate::DownloadCandidate;
use crate::substitute::download::choice;
use crate::substitute::download::retries::ItemRetries;
use crate::substitute::install::attempts::Attempts;
use crate::substitute::install::errors::ItemError;
use crate::substitute::install::installer::{DownloadStart, Installer, UnpackRequest};
use crate::substitute::item_lookup::NarSource;
use crate::sync::lock;

impl Installer {
    /// The download that an attempt at the item begins with, unless a part of another one was kept: the
    /// planned one of the first of `sources` that may be reached and has not failed; and what is demanded of
    /// that server.
    #[must_use]
    pub(crate) fn expected_download(
        &self,
        item: &StorePath,
        sources: &[NarSource],
    ) -> Option<(DownloadCandidate, Option<RateDemand>)> {
        let planned = lock(&self.planned_methods).get(item).copied();
        let servers = self.network.servers();
        let mut ranked = choice::candidates(sources, servers, &self.rates(), planned);
        choice::retain_reachable(&mut ranked, &self.network).ok()?;

        let health = self.network.health();
        ranked.retain(|candidate| !health.is_unreliable(candidate.server));
        let first = ranked.first()?.clone();
        // While items are looked up, other servers that have the item may not have answered yet.
        let retries = self.new_retries(Box::new(Vec::new));
        retries.add_servers(servers.enumerated().map(|(server, _)| server));
        let rate_demand = retries.rate_demand(first.server);
        Some((first, rate_demand))
    }

    /// The downloads of the request, best first, and how the first one starts: those that failed with
    /// an earlier narinfo last, and after those the ones of servers that were unreachable or silent.
    pub(super) fn ranked_downloads(
        &self,
        request: &UnpackRequest<'_>,
        attempts: &Attempts,
        retries: &ItemRetries,
    ) -> Result<(Vec<DownloadCandidate>, DownloadStart), ItemError> {
        let (rates, nar_size) = (self.rates(), request.authorized.narinfo().nar_size());
        let planned = lock(&self.planned_methods).get(request.item).copied();
        let servers = self.network.servers();
        let mut ranked = choice::candidates(request.sources, servers, &rates, planned);
        choice::retain_reachable(&mut ranked, &self.network)
            .map_err(|url| ItemError::offline(&url))?;
        self.put_kept_first(request, &mut ranked);
        attempts.put_failed_last(&mut ranked);
        retries.add_servers(ranked.iter().map(|candidate| candidate.server));

        let prefetched = self
            .prefetcher
            .as_ref()
            .and_then(|prefetcher| prefetcher.take(request.item, &ranked))
            .filter(|(index, _)| *index < ranked.len());
        let first = prefetched.as_ref().map(|(index, _)| ranked.remove(*index));

        // Not before the wait for a response to an earlier request, which may have failed.
        ranked.sort_by_key(|candidate| retries.health().is_unreliable(candidate.server));
        let start = DownloadStart {
            choice: choice::explain(&ranked, nar_size, &rates).filter(|_| first.is_none()),
            prefetched: prefetched.map(|(_, nar)| nar),
            server_stream: None,
        };
        ranked.splice(0..0, first);
        Ok((ranked, start))
    }

    /// The downloads of the same build from all servers that have it.
    pub(super) fn other_downloads(
        &self,
        request: &UnpackRequest<'_>,
        retries: &ItemRetries,
    ) -> Vec<DownloadCandidate> {
        if self.network.servers().len() == 1 {
            return Vec::new();
        }
        let sources = retries.same_build_sources();
        let planned = lock(&self.planned_methods).get(request.item).copied();
        let mut downloads =
            choice::candidates(&sources, self.network.servers(), &self.rates(), planned);
        match choice::retain_reachable(&mut downloads, &self.network) {
            Ok(()) => downloads,
            Err(_) => Vec::new(),
        }
    }
}
