//! What an item's download will be, before a worker takes the item.

use crate::format::store_path::StorePath;
use crate::http::RateDemand;
use crate::substitute::download::candidate::DownloadCandidate;
use crate::substitute::download::choice;
use crate::substitute::install::installer::Installer;
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
}
