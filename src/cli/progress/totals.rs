//! What a run has fetched: from which servers, how much, and what took longest.

use std::time::Duration;

/// Servers that are counted by name; the others are counted together. Servers of a run are few.
const SERVERS_MAX: usize = 32;

/// What a run has fetched so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct FetchTotals {
    /// Items that were downloaded and unpacked.
    pub(crate) items: usize,
    /// Bytes downloaded for them.
    pub(crate) downloaded: u64,
    /// Bytes of their files that are links to files of the store.
    pub(crate) deduplicated: u64,
    /// The servers that they came from, in the order of their first download.
    pub(crate) servers: Vec<ServerTransferTotals>,
    /// The item that took longest.
    pub(crate) slowest: Option<FetchedItem>,
}

/// What came from one server.
#[derive(Debug, Clone)]
pub(crate) struct ServerTransferTotals {
    /// Its address, without credentials.
    pub(crate) url: String,
    /// Items that were downloaded from it and unpacked.
    pub(crate) items: usize,
    /// Bytes downloaded for them.
    pub(crate) downloaded: u64,
    /// How long at least one item was being fetched from it.
    pub(crate) busy: Duration,
    /// Downloads that failed in the way of one that was reported.
    pub(crate) repeated_failures: usize,
}

/// An item that was downloaded and unpacked.
#[derive(Debug, Clone)]
pub(crate) struct FetchedItem {
    /// Its name without the hash.
    pub(crate) name: String,
    /// The address of the server, without credentials.
    pub(crate) server: String,
    /// The name of the compression method.
    pub(crate) method: &'static str,
    /// Bytes downloaded.
    pub(crate) downloaded: u64,
    /// From the start of its first download until it was unpacked.
    pub(crate) duration: Duration,
}

impl ServerTransferTotals {
    /// Bytes per second while something was fetched from the server; `None` when it took no time.
    #[must_use]
    pub(crate) fn rate(&self) -> Option<f64> {
        let seconds = self.busy.as_secs_f64();
        (seconds >= 0.1).then(|| self.downloaded as f64 / seconds)
    }
}

impl FetchTotals {
    /// The place of a server among those that are counted.
    pub(super) fn server(&mut self, url: &str) -> usize {
        if let Some(index) = self.servers.iter().position(|server| server.url == url) {
            return index;
        }

        let is_room = self.servers.len() < SERVERS_MAX;
        let url = if is_room { url } else { "other servers" };
        if !is_room && self.servers.len() > SERVERS_MAX {
            return SERVERS_MAX;
        }
        self.servers.push(ServerTransferTotals {
            url: url.to_owned(),
            items: 0,
            downloaded: 0,
            busy: Duration::ZERO,
            repeated_failures: 0,
        });
        self.servers.len() - 1
    }

    /// Counts a download that failed in the way of an earlier one from the same server.
    pub(super) fn add_repeated_failure(&mut self, server: &str) {
        let place = self.server(server);
        self.servers[place].repeated_failures += 1;
    }

    /// Counts an item that was fetched from the server at this place.
    pub(super) fn add(&mut self, server: usize, item: &FetchedItem, deduplicated: u64) {
        self.items += 1;
        self.downloaded += item.downloaded;
        self.deduplicated += deduplicated;
        if let Some(totals) = self.servers.get_mut(server) {
            totals.items += 1;
            totals.downloaded += item.downloaded;
        }

        let is_slowest = self
            .slowest
            .as_ref()
            .is_none_or(|slowest| slowest.duration < item.duration);
        if is_slowest {
            self.slowest = Some(item.clone());
        }
    }
}

/// A server's address in few words: without its scheme.
#[must_use]
pub(crate) fn short_address(url: &str) -> &str {
    let address = url.split_once("://").map_or(url, |(_, address)| address);
    match address.trim_end_matches('/') {
        "" => address,
        trimmed => trimmed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_beyond_the_limit_are_counted_together() {
        let mut totals = FetchTotals::default();
        for number in 0..100 {
            let place = totals.server(&format!("http://{number}.example"));
            assert_eq!(place, usize::min(number, SERVERS_MAX));
        }
        assert_eq!(totals.servers.len(), SERVERS_MAX + 1);
        assert_eq!(totals.servers[SERVERS_MAX].url, "other servers");
    }

    #[test]
    fn addresses_have_no_scheme() {
        assert_eq!(short_address("https://a.example/"), "a.example");
        assert_eq!(short_address("http://127.0.0.1:80/x"), "127.0.0.1:80/x");
        assert_eq!(short_address("file:///srv/cache"), "/srv/cache");
        assert_eq!(short_address("file:///"), "/");
    }
}
