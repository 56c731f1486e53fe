//! The store database: which items are valid, and registering new ones (see `item_rows`).
//!
//! Other programs write to it at the same time, so a writing transaction begins with the
//! write lock (it never has to be upgraded, which could fail) and does nothing slow inside.
//! Paths are recorded by their full names in the store directory, wherever the store really
//! lies. This file does not look at the items themselves.
//!
//! While another process has locked the database, each operation is repeated as a whole, until the
//! user interrupts: see `retried`.

use std::collections::{HashMap, HashSet};
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior};

use super::closure::Closure;
use super::connection::{self, Access, StoreConnection};
use super::database_wait::retried;
use super::error::StoreError;
use super::item_rows::{BatchOutputs, RowRefusal, SELECT_ID, record_batch};
use super::layout::Layout;
use super::registration::Registration;
use super::wait::StoreObserver;
use crate::format::store_path::{StoreDir, StorePath};
use crate::no_follow::real_path;

/// An item that cannot be registered, and why.
pub(crate) type RefusedItem = (StorePath, StoreError);

/// An open store database.
#[derive(Debug)]
pub(super) struct Database {
    connection: StoreConnection,
    path: PathBuf,
    store_dir: StoreDir,
    observer: Arc<dyn StoreObserver>,
    /// Whether a statement has found damage.
    is_damaged: bool,
}

/// A damaged database is left as it is, with its log.
impl Drop for Database {
    fn drop(&mut self) {
        if self.is_damaged {
            // It cannot fail for an open connection.
            let _ = connection::keep_files(self.connection.last(), true);
        }
    }
}

impl Database {
    /// Opens the database of `layout`, whose directory is open as `directory`.
    pub(super) fn open(
        layout: &Layout,
        directory: BorrowedFd<'_>,
        access: Access,
        observer: &Arc<dyn StoreObserver>,
    ) -> Result<Self, StoreError> {
        let path = layout.database_file();
        let real = match real_path(directory, layout.database()) {
            Ok(directory) => directory.join(path.file_name().unwrap_or_default()),
            Err(source) => return Err(StoreError::Open { path, source }),
        };
        let connection = retried(&path, &**observer, "opening the store database", || {
            StoreConnection::open(&real, layout.store_dir().dialect(), access)
        })?;
        Ok(Self {
            connection,
            path,
            store_dir: layout.store_dir().clone(),
            observer: Arc::clone(observer),
            is_damaged: false,
        })
    }

    /// Those of `paths` that are valid, at one moment.
    pub(super) fn valid_among(
        &mut self,
        paths: &[StorePath],
    ) -> Result<HashSet<StorePath>, StoreError> {
        self.run("looking up valid items", |connection, store_dir| {
            let transaction = connection.transaction()?;
            let mut valid = HashSet::new();
            let mut statement = transaction.prepare_cached(SELECT_ID)?;
            for path in paths {
                if statement.exists([store_dir.full_name(path)])? {
                    valid.insert(path.clone());
                }
            }

            drop(statement);
            transaction.commit()?;
            Ok(valid)
        })
    }

    /// The recorded size of the nar of `path`; 0 when none is, or when it is not valid.
    pub(super) fn nar_size(&mut self, path: &StorePath) -> Result<u64, StoreError> {
        let size: Option<Option<i64>> =
            self.run("looking up an item", |connection, store_dir| {
                connection
                    .prepare_cached(SELECT_NAR_SIZE)?
                    .query_row([store_dir.full_name(path)], |row| row.get(0))
                    .optional()
            })?;
        let size = size.flatten().unwrap_or(0);
        Ok(u64::try_from(size).unwrap_or(0))
    }

    /// The valid items among `roots` and everything they refer to, at one moment.
    pub(super) fn closure(&mut self, roots: &[StorePath]) -> Result<Closure, StoreError> {
        let rows = self.run("looking up a closure", |connection, store_dir| {
            let transaction = connection.transaction()?;
            let rows = closure_rows(&transaction, store_dir, roots)?;
            transaction.commit()?;
            Ok(rows)
        })?;

        let mut closure = Closure::default();
        for (name, references) in rows {
            let item = self.parse(name.clone(), "path", &name)?;
            closure.add(item, references);
        }
        Ok(closure)
    }

    /// Makes the items of `batch` valid, except those that it gives, with what is wrong with each of
    /// them; if it fails, none. `batch` is in an order where references come first, and `outputs` gives
    /// what its derivations build. A row that is there already is replaced: it describes a tree that is
    /// gone.
    pub(super) fn write_registrations(
        &mut self,
        batch: &[&Registration],
        mut outputs: BatchOutputs<'_>,
        now: u64,
    ) -> Result<Vec<RefusedItem>, StoreError> {
        let action = "registering items";
        let refused = self.run(action, |connection, store_dir| {
            let mut transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let refused = record_batch(&mut transaction, store_dir, batch, &outputs, now)?;
            transaction.commit()?;
            Ok(refused)
        })?;

        let refused = refused.into_iter().filter_map(|(item, refusal)| {
            let error = match refusal {
                RowRefusal::Outputs => outputs.remove(item)?.err()?,
                RowRefusal::References(missing) => StoreError::MissingReferences {
                    item: self.store_dir.full_name(item),
                    missing,
                },
                RowRefusal::Row(source) => StoreError::Database {
                    action,
                    path: self.path.clone(),
                    source,
                },
            };
            Some((item.clone(), error))
        });
        Ok(refused.collect())
    }

    /// Does `work`, which is all of one `action`, as often as it takes.
    pub(super) fn run<T>(
        &mut self,
        action: &'static str,
        mut work: impl FnMut(&mut Connection, &StoreDir) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let done = retried(&self.path, &*self.observer, action, || {
            let done = work(self.connection.current()?, &self.store_dir);
            self.connection.unless_changed(done)
        });
        self.is_damaged |= matches!(done, Err(StoreError::DamagedDatabase { .. }));
        done
    }

    pub(super) fn store_dir(&self) -> &StoreDir {
        &self.store_dir
    }

    /// The item that `name` is, which the database has in `column` for `item`.
    pub(super) fn parse(
        &self,
        name: String,
        column: &'static str,
        item: &str,
    ) -> Result<StorePath, StoreError> {
        match self.store_dir.parse_path(&name) {
            Ok(path) => Ok(path.to_path()),
            Err(_) => Err(self.malformed(column, name, item)),
        }
    }

    pub(super) fn malformed(&self, column: &'static str, value: String, item: &str) -> StoreError {
        StoreError::Malformed {
            path: self.path.clone(),
            column,
            value,
            item: item.to_owned(),
        }
    }
}

/// The names of the valid items among `roots` and of everything they refer to; each with the
/// positions of its references in this list.
fn closure_rows(
    connection: &Connection,
    store_dir: &StoreDir,
    roots: &[StorePath],
) -> rusqlite::Result<Vec<(String, Vec<usize>)>> {
    let mut select_root = connection.prepare_cached(SELECT_ID)?;
    let mut select_name = connection.prepare_cached("SELECT path FROM ValidPaths WHERE id = ?1")?;
    let mut select_references =
        connection.prepare_cached("SELECT reference FROM Refs WHERE referrer = ?1")?;
    let mut ids: Vec<i64> = Vec::new();
    let mut positions: HashMap<i64, usize> = HashMap::new();
    for root in roots {
        let name = store_dir.full_name(root);
        if let Some(id) = select_root.query_row([name], |row| row.get(0)).optional()? {
            position_of(&mut ids, &mut positions, id);
        }
    }

    let mut rows = Vec::new();
    while let Some(&id) = ids.get(rows.len()) {
        let name = select_name.query_row([id], |row| row.get(0))?;
        let mut references = Vec::new();
        for reference in select_references.query_map([id], |row| row.get(0))? {
            references.push(position_of(&mut ids, &mut positions, reference?));
        }
        rows.push((name, references));
    }
    Ok(rows)
}

/// The position of `id` in `ids`, to which it is added if it is new.
fn position_of(ids: &mut Vec<i64>, positions: &mut HashMap<i64, usize>, id: i64) -> usize {
    *positions.entry(id).or_insert_with(|| {
        ids.push(id);
        ids.len() - 1
    })
}

const SELECT_NAR_SIZE: &str = "SELECT narSize FROM ValidPaths WHERE path = ?1";
