//! Items that are decided and looked up once more: on servers that were skipped or not needed, without
//! the cached answers, or without narinfos whose nars cannot be had.

use std::sync::Arc;

use crate::format::narinfo::NarInfo;
use crate::format::server_list::ServerIndex;
use crate::format::store_path::StorePath;
use crate::substitute::lookup::engine::LookupEngine;
use crate::substitute::lookup::servers::ServerState;

impl LookupEngine {
    /// Uses servers after all that were skipped because they were down a short time ago,
    /// when no other server has the item.
    pub(super) fn reopen(&mut self, item: u32) -> bool {
        let mut skipped: Vec<ServerIndex> = self.servers.indices().collect();
        skipped.retain(|&server| matches!(self.servers[server].state, ServerState::Skipped(_)));
        let reopened = self.items[item as usize].item.reopen(&skipped);
        for &server in skipped.iter().filter(|_| reopened) {
            let server = &mut self.servers[server];
            tracing::debug!(
                server = server.url.as_str(),
                "using the skipped server after all"
            );
            server.state = ServerState::NotNeeded;
        }
        reopened
    }

    /// Has the servers asked that were not needed when `path` was decided.
    pub(super) fn require_all_servers(&mut self, path: &StorePath) {
        for index in self.with_hash_part(&path.hash_part()) {
            let entered = &mut self.items[index as usize];
            if entered.item.path == *path && entered.is_decided {
                entered.item.require_all_servers();
                entered.is_decided = false;
                self.undecided += 1;
                self.advance(index);
            }
        }
    }

    /// Goes by other narinfos of `path` from now on than these, whose nars cannot be had.
    pub(super) fn reject(&mut self, path: &StorePath, narinfos: Vec<Arc<NarInfo>>) {
        let same_hash_part = self.with_hash_part(&path.hash_part());
        let is_this = |item: &u32| self.items[*item as usize].item.path == *path;
        let Some(item) = same_hash_part.into_iter().find(is_this) else {
            return;
        };
        for narinfo in narinfos {
            self.items[item as usize].item.reject(&narinfo);
        }
    }

    /// Makes `item` one that has not been looked up.
    pub(super) fn reset(&mut self, item: u32) {
        let is_offline = self.is_offline();
        let entered = &mut self.items[item as usize];
        entered.item = entered.item.renewed();
        if is_offline {
            entered.item.require_all_servers();
        }

        entered.is_decided = false;
        self.undecided += 1;
        self.fresh.push_back(item);
    }

    /// Discards everything that is known of `item`.
    pub(super) fn discard(&mut self, item: &StorePath) {
        self.remove_cached(item);
        for index in self.with_hash_part(&item.hash_part()) {
            if self.items[index as usize].is_decided {
                self.reset(index);
            }
        }
    }

    /// Removes `item` from the lookup cache.
    pub(super) fn remove_cached(&mut self, item: &StorePath) {
        self.write_cache();
        let forgotten = self.setup.cache.remove(None, &[item.hash_part()]);
        self.warn(forgotten.err());
    }
}
