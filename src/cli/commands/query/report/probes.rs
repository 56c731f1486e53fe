//! What is known of the nars themselves: whether they are there, and whether a proxy in front of
//! the server has them. Asked side by side, since each answer costs a round trip.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::Serialize;
use url::Url;

use crate::format::server_list::{ServerIndex, ServerList};
use crate::format::server_url::redacted;
use crate::format::store_path::StorePath;
use crate::http::Client;
use crate::substitute::download::choice;
use crate::substitute::lookup::Resolution;

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

    /// Whether the server gives it out.
    pub(super) fn is_there(&self) -> bool {
        self.status == Some(200)
    }

    /// Whether a proxy's cache had it, if a proxy says so.
    pub(super) fn is_hit(&self) -> Option<bool> {
        if !self.is_there() {
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

/// The answers, by item and server.
pub(super) struct NarProbes(HashMap<(StorePath, ServerIndex), NarProbe>);

impl NarProbes {
    /// Nobody was asked.
    pub(super) fn none() -> Self {
        Self(HashMap::new())
    }

    /// Asks every server that has an item about its nar.
    pub(super) fn request(servers: &ServerList, resolution: &Resolution, client: &Client) -> Self {
        let sources = resolution.items.iter().flat_map(|found| {
            found.sources.iter().filter_map(|source| {
                let download = choice::smallest(&source.offer)?;
                let field = source.offer.download_url(download);
                let url = servers[source.server].nar_url(field).ok()?;
                Some(((found.path.clone(), source.server), url))
            })
        });
        let questions: Vec<_> = sources.collect();

        let (next, answers) = (AtomicUsize::new(0), Mutex::new(HashMap::new()));
        let work = || {
            while let Some((key, url)) = questions.get(next.fetch_add(1, Ordering::Relaxed)) {
                let probe = NarProbe::request(client, url);
                let mut answers = answers.lock().expect("no thread panics holding it");
                answers.insert(key.clone(), probe);
            }
        };

        std::thread::scope(|scope| {
            // This thread works too, so it may do with fewer than are wanted.
            for _ in 1..THREADS.min(questions.len()) {
                if std::thread::Builder::new()
                    .spawn_scoped(scope, work)
                    .is_err()
                {
                    break;
                }
            }
            work();
        });
        Self(answers.into_inner().expect("no thread panics holding it"))
    }

    /// What `server` said of the nar of `item`.
    pub(super) fn take(&mut self, item: &StorePath, server: ServerIndex) -> Option<NarProbe> {
        self.0.remove(&(item.clone(), server))
    }
}

/// Questions under way at once.
const THREADS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_say_hit_or_miss_in_many_words() {
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
    fn an_error_in_a_proxy_s_cache_is_no_hit() {
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
