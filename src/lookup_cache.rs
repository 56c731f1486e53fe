//! The lookup cache: the answers of servers, so that no request is repeated too soon.
//!
//! One SQLite file, `lookups-v1.sqlite`, used by any number of processes at once, any of which
//! may be killed at any moment. It is only a cache, and never a reason to fail: where the
//! file cannot be used, or stops being usable, answers are cached in memory for the rest
//! of the run, and the failure is reported once.
//!
//! A narinfo is kept byte for byte, since its signature covers the bytes. Beside it may stand
//! the authorized key that has signed exactly this text, which saves verifying it again. The key is used only where no other user but root can write the file
//! and its directory, and only while text and key are as they were written.

use std::io;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use tracing::debug;

mod db;
mod entry;
mod error;
mod expiry;
mod known_names;
mod line_rate;
mod open;
mod report;
mod schema;
mod server;

pub(crate) use entry::{AnswerKind, CacheEntry, CachedAnswer, TtlPolicy};
pub(crate) use error::CacheError;
pub(crate) use known_names::{known_items, known_servers};
pub(crate) use line_rate::LineRateRecord;
pub(crate) use report::{CacheStats, ListedEntry};
pub(crate) use server::{
    CacheInfoRecord, Downtime, Pipelining, ServerBehavior, ServerFact, ServerFacts, ServerRow,
};

use crate::format::store_path::HashPart;
use crate::sqlite::is_damage;
use db::CachedVerdicts;
use open::CacheFile;

/// The cached lookups.
///
/// Every error of a method has been dealt with when it is returned: show it, and go on with
/// the same cache as if nothing had been found.
#[derive(Debug)]
pub(crate) struct LookupCache {
    connection: Connection,
    /// `None` when in memory.
    file: Option<CacheFile>,
    /// The numbers handed out, which stay valid when the file is given up.
    servers: Vec<(ServerRow, Box<str>)>,
    unreported: Option<CacheError>,
}

/// A cache, and what the user should know about it.
#[derive(Debug)]
pub(crate) struct OpenedCache {
    /// The cache; in memory if need be.
    pub(crate) cache: LookupCache,
    /// Why it is in memory, or was started anew.
    pub(crate) warning: Option<CacheError>,
}

impl LookupCache {
    /// The cache in the directory `dir`, which is made if need be.
    #[must_use]
    pub(crate) fn open(dir: &Path) -> OpenedCache {
        match open::open_file(dir) {
            Ok((connection, file, warning)) => {
                let is_rebuilt = warning.is_some();
                debug!(path = %file.path.display(), is_rebuilt, "lookup cache opened");
                let cache = Self {
                    connection,
                    file: Some(file),
                    servers: Vec::new(),
                    unreported: None,
                };
                OpenedCache { cache, warning }
            }
            Err(warning) => OpenedCache {
                cache: Self::in_memory(),
                warning: Some(warning),
            },
        }
    }

    /// Whether there is a cache in the directory `dir`, sound or not, or may be one where this user may not look.
    #[must_use]
    pub(crate) fn exists_in(dir: &Path) -> bool {
        let file = dir.join(schema::FILE_NAME).symlink_metadata();
        !file.is_err_and(|error| match error.kind() {
            io::ErrorKind::NotFound => true,
            // As for users whose home is /dev/null.
            io::ErrorKind::NotADirectory => dir.symlink_metadata().is_err(),
            _ => false,
        })
    }

    /// Where a damaged cache of the directory `dir` is set aside.
    #[must_use]
    pub(crate) fn damaged_file(dir: &Path) -> PathBuf {
        open::damaged_file(&dir.join(schema::FILE_NAME))
    }

    /// A cache that is gone when it is dropped.
    #[must_use]
    pub(crate) fn in_memory() -> Self {
        Self {
            connection: open::open_memory(),
            file: None,
            servers: Vec::new(),
            unreported: None,
        }
    }

    /// The file it is kept in; `None` when it is in memory.
    #[must_use]
    pub(crate) fn path(&self) -> Option<&Path> {
        self.file.as_ref().map(|file| file.path.as_path())
    }

    /// The number of the server at `url`, for the other methods. If the file fails here, the next
    /// method that returns an error reports it.
    pub(crate) fn server_row(&mut self, url: &str) -> ServerRow {
        if let Some((server, _)) = self.servers.iter().find(|(_, known)| **known == *url) {
            return *server;
        }

        let server = match db::server_row(&self.connection, url) {
            Ok(server) => server,
            Err(source) => {
                self.unreported = Some(self.give_up_file("looking up a server", source));
                db::server_row(&self.connection, url)
                    .expect("a row in memory depends on nothing but memory")
            }
        };

        self.servers.push((server, url.into()));
        server
    }

    /// What `server` answered about `items`, where that still counts at `now`, in the order of
    /// the hash parts.
    ///
    /// # Errors
    /// The file failed and has been given up.
    pub(crate) fn find(
        &mut self,
        server: ServerRow,
        items: &[HashPart],
        now: u64,
    ) -> Result<Vec<(HashPart, CacheEntry)>, CacheError> {
        let verdicts = self.cached_verdicts();
        let found = self.run("looking up answers", |connection| {
            db::find(connection, server, items, verdicts, now)
        })?;

        debug!(
            items = items.len(),
            fresh = found.len(),
            "lookup cache read"
        );
        Ok(found)
    }

    /// Inserts `batch`, all at once. It is cached even when this fails: in memory.
    ///
    /// # Errors
    /// The file failed and has been given up.
    pub(crate) fn insert(
        &mut self,
        batch: &[(ServerRow, HashPart, CacheEntry)],
    ) -> Result<(), CacheError> {
        debug!(entries = batch.len(), "writing answers");
        self.run("writing answers", |connection| {
            db::insert(connection, batch)
        })
    }

    /// Removes what `server`, or every one, answered about `items`, or about all when none are
    /// named. Without items, what is known of the server itself is removed too. Gives the
    /// number of entries removed.
    ///
    /// # Errors
    /// The file failed and has been given up.
    pub(crate) fn remove(
        &mut self,
        server: Option<&str>,
        items: &[HashPart],
    ) -> Result<u64, CacheError> {
        self.run("removing answers", |connection| {
            report::remove(connection, server, items)
        })
    }

    /// What is known of `server` itself, whether or not it still counts.
    ///
    /// # Errors
    /// The file failed and has been given up.
    pub(crate) fn server_facts(&mut self, server: ServerRow) -> Result<ServerFacts, CacheError> {
        self.run("looking up a server", |connection| {
            db::server_facts(connection, server)
        })
    }

    /// Updates what is known of `server`. It is cached even when this fails: in memory.
    ///
    /// # Errors
    /// The file failed and has been given up.
    pub(crate) fn update_server(
        &mut self,
        server: ServerRow,
        facts: &[ServerFact],
    ) -> Result<(), CacheError> {
        self.run("updating a server", |connection| {
            db::update_server(connection, server, facts)
        })
    }

    /// How fast `server` sent in an earlier run, whether or not that still counts.
    ///
    /// # Errors
    /// The file failed and has been given up.
    pub(crate) fn line_rate(
        &mut self,
        server: ServerRow,
    ) -> Result<Option<LineRateRecord>, CacheError> {
        self.run("looking up a server", |connection| {
            line_rate::find(connection, server)
        })
    }

    /// Replaces what is known of how fast `server` sends. It is cached even when this fails: in memory.
    ///
    /// # Errors
    /// The file failed and has been given up.
    pub(crate) fn replace_line_rate(
        &mut self,
        server: ServerRow,
        rate: LineRateRecord,
    ) -> Result<(), CacheError> {
        self.run("updating a server", |connection| {
            line_rate::replace(connection, server, rate)
        })
    }

    /// Shows every entry, or those of the server at the URL `server`, to `visit`, ordered by
    /// server and item.
    ///
    /// # Errors
    /// The file failed and has been given up.
    pub(crate) fn list(
        &mut self,
        server: Option<&str>,
        visit: &mut dyn FnMut(ListedEntry),
    ) -> Result<(), CacheError> {
        let verdicts = self.cached_verdicts();
        // Not tried again in memory: what was listed before a failure has been shown.
        let listed = report::list(&self.connection, server, verdicts, visit);
        listed.map_err(|source| self.give_up_file("listing answers", source))
    }

    /// The URLs of the servers that have answered, or had to.
    ///
    /// # Errors
    /// The file failed and has been given up.
    pub(crate) fn server_urls(&mut self) -> Result<Vec<String>, CacheError> {
        self.run("listing servers", |connection| {
            report::server_urls(connection)
        })
    }

    /// How much there is.
    ///
    /// # Errors
    /// The file failed and has been given up.
    pub(crate) fn stats(&mut self, now: u64) -> Result<CacheStats, CacheError> {
        self.run("counting answers", |connection| {
            report::stats(connection, now)
        })
    }

    /// The size of the file with its log, in bytes; 0 in memory.
    #[must_use]
    pub(crate) fn file_bytes(&self) -> u64 {
        self.file.as_ref().map_or(0, CacheFile::bytes)
    }

    /// What is wrong with the file; nothing when it is sound. Reads all of it.
    ///
    /// # Errors
    /// The file failed and has been given up.
    pub(crate) fn integrity_faults(&mut self) -> Result<Vec<String>, CacheError> {
        self.run("checking", |connection| {
            report::integrity_faults(connection)
        })
    }

    /// Removes all entries that are expired at `now`, and gives their number.
    ///
    /// # Errors
    /// The file failed and has been given up.
    pub(crate) fn remove_expired(&mut self, now: u64) -> Result<u64, CacheError> {
        self.run("removing expired entries", |connection| {
            expiry::remove_all(connection, now)
        })
    }

    /// Removes some of the entries that are expired at `now`, in a few milliseconds, if that was
    /// not done for all of them in the last day. Gives whether there is more to do.
    ///
    /// # Errors
    /// The file failed and has been given up.
    pub(crate) fn remove_some_expired(&mut self, now: u64) -> Result<bool, CacheError> {
        self.run("removing expired entries", |connection| {
            expiry::remove_step(connection, now)
        })
    }

    /// Does `work`, on a new database in memory when it fails on the file.
    fn run<T>(
        &mut self,
        action: &'static str,
        mut work: impl FnMut(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<T, CacheError> {
        let source = match work(&mut self.connection) {
            // The file was given up just before, so `done` is the answer of an empty database.
            Ok(done) => return self.unreported.take().map_or(Ok(done), Err),
            Err(source) => source,
        };
        let error = self.give_up_file(action, source);
        if !matches!(error, CacheError::Memory { .. }) {
            work(&mut self.connection).map_err(|source| CacheError::Memory { action, source })?;
        }
        Err(error)
    }

    /// Goes over to memory after `source`, and says so. A damaged file is moved out of the way
    /// of the next process.
    fn give_up_file(&mut self, action: &'static str, source: rusqlite::Error) -> CacheError {
        let Some(file) = self.file.take() else {
            return CacheError::Memory { action, source };
        };
        self.connection = open::open_memory();
        for (server, url) in &self.servers {
            if let Err(source) = db::insert_server(&self.connection, *server, url) {
                return CacheError::Memory { action, source };
            }
        }
        if is_damage(&source) {
            // When others still use it, the last of them to find it damaged moves it.
            let _ = file.set_aside();
        }
        let path: PathBuf = file.path;
        CacheError::Failed {
            action,
            path,
            source,
        }
    }

    fn cached_verdicts(&self) -> CachedVerdicts {
        match &self.file {
            Some(file) if !file.is_ours => CachedVerdicts::Ignored,
            _ => CachedVerdicts::Used,
        }
    }
}

#[cfg(test)]
mod tests;
