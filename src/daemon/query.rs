//! `--query`: which items can be substituted.
//!
//! The daemon walks a closure by asking about one item, reading its references, and asking
//! about those, one after another. The first question sets off the lookup of everything below
//! it, so that the others are answered from memory; and of everything that the client names.

use std::sync::Arc;

use crate::format::store_path::{StoreDir, StorePath};
use crate::substitute::lookup::{LookupScope, Resolver, SkipFilter};

use super::log::ClientLog;
use super::prefetch::prefetcher::Prefetcher;
use super::prefetch::server::PrefetchServer;
use super::progress::ClientProgress;
use super::reply;
use super::request::{QueryKind, QueryRequest, RequestError};
use super::serve::RequestHandler;

/// Answers `have` and `info`.
pub(crate) struct QueryHelper {
    /// The store that items are for.
    pub(crate) store_dir: StoreDir,
    /// Who knows.
    pub(crate) resolver: Arc<Resolver>,
    /// Tells what is there already, when that can be told.
    pub(crate) skip: Option<SkipFilter>,
    /// What the client names, while none of it has been asked about: see [`super::client_items`].
    pub(crate) named: Vec<StorePath>,
    /// Who fetches ahead, if anybody does, and where it is asked.
    pub(crate) ahead: Option<(Arc<Prefetcher>, PrefetchServer)>,
    /// Tells how far lookups are.
    pub(crate) progress: Arc<ClientProgress>,
    /// For words.
    pub(crate) log: Arc<ClientLog>,
}

impl RequestHandler for QueryHelper {
    fn answer(&mut self, line: Result<&[u8], RequestError>) -> String {
        let query = match line.and_then(|line| QueryRequest::parse(line, &self.store_dir)) {
            Ok(query) => query,
            Err(error) => {
                self.log.error(&error.to_string());
                return reply::have(&[], &self.store_dir);
            }
        };
        for error in &query.refused {
            self.log.error(&error.to_string());
        }
        let ahead = LookupScope::Closure(self.skip.clone());
        self.resolver.prefetch(query.items.clone(), ahead.clone());
        if query.items.iter().any(|item| self.named.contains(item)) {
            let named = self.take_named();
            self.resolver.prefetch(named, ahead);
        }
        let resolution = self
            .progress
            .while_asked(|| self.resolver.resolve(query.items, LookupScope::ItemsOnly));
        match query.question {
            QueryKind::Have => reply::have(&resolution.items, &self.store_dir),
            QueryKind::Info => {
                if let Some((reader, _)) = &self.ahead {
                    reader.note(&resolution.items);
                }
                reply::info(&resolution.items, &self.store_dir)
            }
        }
    }
}

impl QueryHelper {
    /// The items named by the client that are not there yet.
    fn take_named(&mut self) -> Vec<StorePath> {
        let mut named = std::mem::take(&mut self.named);
        if let Some(skip) = &self.skip {
            let present = skip(&named);
            named.retain(|item| !present.contains(item));
        }
        named
    }
}
