//! Requests for the headers of nars: whether the server has the nar, and whether a proxy in front of
//! it has cached it. Several requests are in flight, since each takes a round trip.

use std::collections::HashMap;
use std::sync::Mutex;

use serde::Serialize;
use url::Url;

use crate::format::server_list::{ServerIndex, ServerList};
use crate::format::server_url::redacted;
use crate::format::store_path::StorePath;
use crate::http::Client;
use crate::substitute::download::choice;
use crate::substitute::lookup::Resolution;
use crate::sync::lock;

/// Whether a proxy in front of the server has the nar itself.
#[derive(Debug, Serialize)]
pub(super) struct NarProbe {
    pub(super) url: String,
    pub(super) status: Option<u16>,
    pub(super) proxy_cache: Option<String>,
    pub(super) age: Option<u64>,
    pub(super) error: Option<String>,
}

impl NarProbe {
    fn request(client: &Client, url: &Url) -> Self {
        let shown = redacted(url);
        match client.probe(url) {
            Ok(probe) => Self {
                url: shown,
                status: Some(probe.status),
                proxy_cache: probe.proxy_cache,
                age: probe.age,
                error: None,
            },
            Err(error) => Self {
                url: shown,
                status: error.status(),
                proxy_cache: None,
                age: None,
                error: Some(error.without_url().to_string()),
            },
        }
    }

    /// Whether the server sends it.
    pub(super) fn is_available(&self) -> bool {
        self.status == Some(200)
    }

    /// Whether a proxy's cache had it, if a proxy says so.
    pub(super) fn is_hit(&self) -> Option<bool> {
        if !self.is_available() {
            return None;
        }
        let word = self
            .proxy_cache
            .as_deref()
            .unwrap_or_default()
            .to_ascii_lowercase();

        // Some name every proxy on the way: who had it is enough.
        match () {
            () if word.contains("hit") || self.age.is_some_and(|age| age > 0) => Some(true),
            () if word.is_empty() => None,
            () => Some(false),
        }
    }
}

/// An item and one of its servers.
type ProbeKey = (StorePath, ServerIndex);

/// The results, by item and server.
pub(super) struct NarProbes(HashMap<ProbeKey, NarProbe>);

/// The requests that are not sent yet, and the results of the others.
struct PendingProbes<'a> {
    client: &'a Client,
    requests: Mutex<Vec<(ProbeKey, Url)>>,
    done: Mutex<HashMap<ProbeKey, NarProbe>>,
}

impl PendingProbes<'_> {
    fn send_all(&self) {
        while let Some((key, url)) = self.next() {
            let probe = NarProbe::request(self.client, &url);
            lock(&self.done).insert(key, probe);
        }
    }

    fn next(&self) -> Option<(ProbeKey, Url)> {
        lock(&self.requests).pop()
    }
}

impl NarProbes {
    /// No results: no request was sent.
    pub(super) fn none() -> Self {
        Self(HashMap::new())
    }

    /// Requests the headers of each item's nar from every server that has the item.
    pub(super) fn request(servers: &ServerList, resolution: &Resolution, client: &Client) -> Self {
        let sources = resolution.items.iter().flat_map(|found| {
            found.sources.iter().filter_map(|source| {
                let download = choice::smallest(&source.offer)?;
                let field = source.offer.download_url(download);
                let url = servers[source.server].nar_url(field).ok()?;
                Some(((found.path.clone(), source.server), url))
            })
        });
        let pending = PendingProbes {
            client,
            requests: Mutex::new(sources.collect()),
            done: Mutex::default(),
        };
        let count = lock(&pending.requests).len();

        std::thread::scope(|scope| {
            // This thread sends requests too, so fewer others are enough.
            for _ in 1..THREADS.min(count) {
                let thread = std::thread::Builder::new();
                if thread.spawn_scoped(scope, || pending.send_all()).is_err() {
                    break;
                }
            }
            pending.send_all();
        });
        let done = std::mem::take(&mut *lock(&pending.done));
        Self(done)
    }

    /// The result for the nar of `item` at `server`.
    pub(super) fn take(&mut self, item: &StorePath, server: ServerIndex) -> Option<NarProbe> {
        self.0.remove(&(item.clone(), server))
    }
}

/// Requests in flight at once.
const THREADS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hits_and_misses_of_proxies_are_recognized() {
        let probe = |word: Option<&str>, age| {
            let proxy_cache = word.map(str::to_owned);
            let url = String::new();
            NarProbe {
                url,
                status: Some(200),
                proxy_cache,
                age,
                error: None,
            }
            .is_hit()
        };
        assert_eq!(probe(Some("HIT"), None), Some(true));
        assert_eq!(probe(Some("MISS, HIT"), Some(3)), Some(true));
        assert_eq!(probe(Some("MISS"), Some(0)), Some(false));
        assert_eq!(probe(Some("EXPIRED"), None), Some(false));
        assert_eq!(probe(None, Some(9)), Some(true));
        assert_eq!(probe(None, None), None);
    }

    #[test]
    fn an_error_in_the_cache_of_a_proxy_is_not_a_hit() {
        let (url, proxy_cache, age) = (String::new(), Some("HIT".to_owned()), Some(9));
        let gone = NarProbe {
            url,
            status: Some(404),
            proxy_cache,
            age,
            error: None,
        };
        assert_eq!(gone.is_hit(), None);
    }
}
