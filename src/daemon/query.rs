//! `--query`: which items can be substituted.
//!
//! The daemon explores a closure by querying one item, reading its references, and querying those,
//! one after another. The first query starts the lookup of the item's whole closure, so that the
//! others are answered from memory, and of all items on the client's command line.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tracing::debug;

use crate::format::server_list::ServerIndex;
use crate::format::store_path::{StoreDir, StorePath};
use crate::substitute::cancel::Cancel;
use crate::substitute::item_lookup::ItemStatus;
use crate::substitute::lookup::{LookupScope, Resolution, ResolveError, Resolver, SkipFilter};
use crate::substitute::outcome::{LookupOutcome, short_key_name};
use crate::substitute::preparation::PreparationWait;
use crate::trust::verdict::Refusal;

use super::log::ClientLog;
use super::prefetch::prefetcher::Prefetcher;
use super::prefetch::server::PrefetchServer;
use super::progress::ClientProgress;
use super::reply;
use super::request::{QueryKind, QueryRequest, RequestError};
use super::serve::{RequestHandler, ServeError};

/// Handles `have` and `info`.
pub(crate) struct QueryHelper {
    /// The store that items are for.
    pub(crate) store_dir: StoreDir,
    /// Looks up items.
    pub(crate) resolver: Arc<Resolver>,
    /// Filters out what is valid already, if the database can be read.
    pub(crate) skip: Option<SkipFilter>,
    /// The items on the client's command line, until one of them is queried: see
    /// [`super::client_items`].
    pub(crate) client_items: Vec<StorePath>,
    /// The prefetcher and its socket, if nars are prefetched.
    pub(crate) prefetch: Option<(Arc<Prefetcher>, PrefetchServer)>,
    /// How long items are waited for that servers are preparing.
    pub(crate) wait: Duration,
    /// Ends the waiting.
    pub(crate) cancel: Cancel,
    /// Reports the progress of lookups to the client.
    pub(crate) progress: Arc<ClientProgress>,
    /// Messages for the client.
    pub(crate) log: Arc<ClientLog>,
    /// How the owner of a key becomes trusted, for a sentence.
    pub(crate) trust_key: String,
    /// The servers whose unauthorized keys were reported.
    pub(crate) reported_keys: BTreeSet<ServerIndex>,
    /// Whether it was reported that the policy refuses an item.
    pub(crate) is_policy_reported: bool,
}

impl RequestHandler for QueryHelper {
    fn handle(&mut self, line: Result<&[u8], RequestError>) -> Result<String, ServeError> {
        let query = match line.and_then(|line| QueryRequest::parse(line, &self.store_dir)) {
            Ok(query) => query,
            Err(error) => {
                self.log.error(&error.to_string());
                return Ok(reply::have(&[], &self.store_dir));
            }
        };
        for error in &query.refused {
            self.log.error(&error.to_string());
        }

        let closure = LookupScope::Closure(self.skip.clone());
        self.resolver.prefetch(query.items.clone(), closure.clone());
        let mut items = query.items.iter();

        if items.any(|item| self.client_items.contains(item)) {
            let items = self.take_client_items();
            debug!(
                items = items.len(),
                "looking up the items of the client's command line"
            );
            self.resolver.prefetch(items, closure);
        }

        let resolution = self.look_up(&query.items)?;
        self.report_unauthorized_keys(&resolution);
        self.report_policy(&resolution);
        Ok(match query.kind {
            QueryKind::Have => reply::have(&resolution.items, &self.store_dir),
            QueryKind::Info => {
                if let Some((prefetcher, _)) = &self.prefetch {
                    prefetcher.add_queried(&resolution.items);
                }
                reply::info(&resolution.items, &self.store_dir)
            }
        })
    }
}

impl QueryHelper {
    /// What servers have of `items`, after a while if they are still preparing some.
    fn look_up(&self, items: &[StorePath]) -> Result<Resolution, ResolveError> {
        let mut wait = PreparationWait::new(self.wait, self.cancel.clone());
        loop {
            let resolution = self.progress.during_lookup(|| {
                self.resolver
                    .resolve(items.to_vec(), LookupScope::ItemsOnly)
            })?;
            let preparing: Vec<StorePath> = resolution
                .items
                .iter()
                .filter(|item| item.status == ItemStatus::Preparing)
                .map(|item| item.path.clone())
                .collect();
            if preparing.is_empty() || !wait.has_time() {
                return Ok(resolution);
            }

            wait.wait(preparing.len(), &*self.progress);
            for item in preparing {
                self.resolver.discard(item);
            }
        }
    }

    /// Reports each server whose key is not authorized, once: without the items that it alone has,
    /// packages are built for no visible reason.
    fn report_unauthorized_keys(&mut self, resolution: &Resolution) {
        let items = resolution.items.iter();
        for item in items.filter(|item| item.status == ItemStatus::Refused) {
            for (index, answer) in item.answers.enumerated() {
                if let LookupOutcome::Refused(Refusal::UnauthorizedKey { key }) = &answer.outcome
                    && self.reported_keys.insert(index)
                {
                    self.report_unauthorized_key(&resolution.servers[index].url, key);
                }
            }
        }
    }

    /// Reports the first item that the policy refuses: of a closure there may be thousands.
    fn report_policy(&mut self, resolution: &Resolution) {
        if self.is_policy_reported {
            return;
        }
        let mut items = resolution.items.iter();
        let refused = items.find_map(|item| Some((item, item.policy_refusal()?)));
        if let Some((item, refusal)) = refused {
            self.is_policy_reported = true;
            let path = self.store_dir.display(&item.path);
            // Clients may name any directory, and this process may read more than they.
            let mut servers = resolution.servers.iter();
            let why = match servers.any(|server| server.url.starts_with("file:")) {
                true => refusal.reason().to_owned(),
                false => refusal.to_string(),
            };
            self.log.warn(&format!(
                "{path} is not substituted, and others may not be either: {why}; \
                 `subst query --closure` shows all that the policy refuses"
            ));
        }
    }

    fn report_unauthorized_key(&self, server: &str, key: &str) {
        // Clients may name any directory, and this process may read more than they.
        let key = match server.starts_with("file:") {
            true => "the key".to_owned(),
            false => format!("the key {}", short_key_name(key)),
        };
        let trust_key = &self.trust_key;
        self.log.warn(&format!(
            "substitutes of {server} are not used: {key} that signed them is not authorized; if you \
             trust it, {trust_key}"
        ));
    }

    /// The items on the client's command line that are not valid yet.
    fn take_client_items(&mut self) -> Vec<StorePath> {
        let mut items = std::mem::take(&mut self.client_items);
        if let Some(skip) = &self.skip {
            let present = skip(&items);
            items.retain(|item| !present.contains(item));
        }
        items
    }
}
