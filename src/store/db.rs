//! The store database: which items are valid, and registering new ones.
//!
//! Other programs write to it at the same time, so a writing transaction begins with the
//! write lock (it never has to be upgraded, which could fail) and does nothing slow inside.
//! Paths are recorded by their full names in the store directory, wherever the store really
//! lies. This file does not look at the items themselves.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};

use super::closure::Closure;
use super::connection::{self, Access};
use super::database_check::is_damage;
use super::error::StoreError;
use super::layout::Layout;
use super::registration::Registration;
use crate::format::store_path::{Dialect, StoreDir, StorePath};

/// The outputs of a derivation: output name and path.
pub(super) type Outputs = Vec<(String, StorePath)>;

/// An open store database.
#[derive(Debug)]
pub(super) struct Database {
    connection: Connection,
    path: PathBuf,
    store_dir: StoreDir,
    /// Whether a statement has found damage.
    is_damaged: Arc<AtomicBool>,
}

/// A damaged database is left as it is, with its log.
impl Drop for Database {
    fn drop(&mut self) {
        if self.is_damaged.load(Ordering::Relaxed) {
            // It cannot fail for an open connection.
            let _ = connection::keep_files(&self.connection, true);
        }
    }
}

impl Database {
    pub(super) fn open(layout: &Layout, access: Access) -> Result<Self, StoreError> {
        let path = layout.database_file();
        match connection::open(&path, layout.store_dir().dialect(), access) {
            Ok(connection) => Ok(Self {
                connection,
                path,
                store_dir: layout.store_dir().clone(),
                is_damaged: Arc::default(),
            }),
            Err(source) => Err(failure("opening the store database", path, source)),
        }
    }

    /// Those of `paths` that are valid, at one moment.
    pub(super) fn valid_among(
        &mut self,
        paths: &[StorePath],
    ) -> Result<HashSet<StorePath>, StoreError> {
        let failed = self.failure("looking up valid items");
        let transaction = self.connection.transaction().map_err(&failed)?;
        let mut valid = HashSet::new();
        {
            let mut statement = transaction.prepare_cached(SELECT_ID).map_err(&failed)?;
            for path in paths {
                let name = self.store_dir.full_name(path);
                if statement.exists([name]).map_err(&failed)? {
                    valid.insert(path.clone());
                }
            }
        }
        transaction.commit().map_err(&failed)?;
        Ok(valid)
    }

    /// The recorded size of the nar of `path`; 0 when none is, or when it is not valid.
    pub(super) fn nar_size(&mut self, path: &StorePath) -> Result<u64, StoreError> {
        let name = self.store_dir.full_name(path);
        let failed = self.failure("looking up an item");
        let size: Option<Option<i64>> = self
            .connection
            .prepare_cached(SELECT_NAR_SIZE)
            .and_then(|mut statement| statement.query_row([name], |row| row.get(0)).optional())
            .map_err(failed)?;
        let size = size.flatten().unwrap_or(0);
        Ok(u64::try_from(size).unwrap_or(0))
    }

    /// The valid items among `roots` and everything they refer to, at one moment.
    pub(super) fn closure(&mut self, roots: &[StorePath]) -> Result<Closure, StoreError> {
        let failed = self.failure("looking up a closure");
        let transaction = self.connection.transaction().map_err(&failed)?;
        let rows = closure_rows(&transaction, &self.store_dir, roots).map_err(&failed)?;
        transaction.commit().map_err(&failed)?;

        let mut closure = Closure::default();
        for (name, references) in rows {
            let item = self.parse(name.clone(), "path", &name)?;
            closure.add(item, references);
        }
        Ok(closure)
    }

    /// Makes every item of `batch` valid, or none. `batch` is in an order where references come
    /// first, and `outputs` gives what its derivations build. A row that is there already is
    /// replaced: it describes a tree that is gone.
    pub(super) fn register(
        &mut self,
        batch: &[&Registration],
        outputs: &HashMap<&StorePath, Outputs>,
        now: u64,
    ) -> Result<(), StoreError> {
        let failed = self.failure("registering items");
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(&failed)?;
        let mut ids: HashMap<&StorePath, i64> = HashMap::new();
        for item in batch {
            let id = record_item(&transaction, &self.store_dir, item, now).map_err(&failed)?;
            ids.insert(&item.path, id);
            let outputs = outputs.get(&item.path).map_or(&[][..], Vec::as_slice);
            insert_outputs(&transaction, &self.store_dir, id, outputs).map_err(&failed)?;
        }
        for item in batch {
            let Some(&referrer) = ids.get(&item.path) else {
                continue;
            };
            let missing =
                insert_references(&transaction, &self.store_dir, referrer, &item.references)
                    .map_err(&failed)?;
            if !missing.is_empty() {
                let item = self.store_dir.full_name(&item.path);
                return Err(StoreError::MissingReferences { item, missing });
            }
        }
        transaction.commit().map_err(&failed)
    }

    /// What it means that `action` failed.
    fn failure(&self, action: &'static str) -> impl Fn(rusqlite::Error) -> StoreError + use<> {
        let (path, is_damaged) = (self.path.clone(), Arc::clone(&self.is_damaged));
        move |source| {
            let error = failure(action, path.clone(), source);
            if matches!(error, StoreError::DamagedDatabase { .. }) {
                is_damaged.store(true, Ordering::Relaxed);
            }
            error
        }
    }

    fn parse(
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

    fn malformed(&self, column: &'static str, value: String, item: &str) -> StoreError {
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
    let mut position_of = |ids: &mut Vec<i64>, id: i64| {
        *positions.entry(id).or_insert_with(|| {
            ids.push(id);
            ids.len() - 1
        })
    };
    for root in roots {
        let name = store_dir.full_name(root);
        if let Some(id) = select_root.query_row([name], |row| row.get(0)).optional()? {
            position_of(&mut ids, id);
        }
    }

    let mut rows = Vec::new();
    while let Some(&id) = ids.get(rows.len()) {
        let name = select_name.query_row([id], |row| row.get(0))?;
        let mut references = Vec::new();
        for reference in select_references.query_map([id], |row| row.get(0))? {
            references.push(position_of(&mut ids, reference?));
        }
        rows.push((name, references));
    }
    Ok(rows)
}

/// Records `item`, in the place of what was recorded of it before; the id of its row.
fn record_item(
    connection: &Connection,
    store_dir: &StoreDir,
    item: &Registration,
    now: u64,
) -> rusqlite::Result<i64> {
    let name = store_dir.full_name(&item.path);
    let hash = item.nar_hash.base16_with_algorithm();
    let deriver = item
        .deriver
        .as_ref()
        .map(|deriver| store_dir.full_name(deriver));
    let (now, nar_size) = (signed(now)?, signed(item.nar_size)?);
    let known: Option<i64> = connection
        .prepare_cached(SELECT_ID)?
        .query_row([&name], |row| row.get(0))
        .optional()?;
    if let Some(id) = known {
        // Its referrers refer to this row, so it is changed and not deleted.
        connection
            .prepare_cached("DELETE FROM Refs WHERE referrer = ?1")?
            .execute([id])?;
    }

    match store_dir.dialect() {
        Dialect::Guix => connection
            .prepare_cached(if known.is_some() {
                GUIX_UPDATE
            } else {
                GUIX_INSERT
            })?
            .execute(params![name, hash, now, deriver, nar_size])?,
        Dialect::Nix => {
            let signatures = item.signatures.join(" ");
            let signatures = Some(signatures).filter(|signatures| !signatures.is_empty());
            connection
                .prepare_cached(if known.is_some() {
                    NIX_UPDATE
                } else {
                    NIX_INSERT
                })?
                .execute(params![
                    name, hash, now, deriver, nar_size, signatures, item.ca
                ])?
        }
    };
    Ok(known.unwrap_or_else(|| connection.last_insert_rowid()))
}

fn insert_outputs(
    connection: &Connection,
    store_dir: &StoreDir,
    derivation: i64,
    outputs: &[(String, StorePath)],
) -> rusqlite::Result<()> {
    for (output, path) in outputs {
        let name = store_dir.full_name(path);
        connection
            .prepare_cached(INSERT_OUTPUT)?
            .execute(params![derivation, output, name])?;
    }
    Ok(())
}

/// Records what `referrer` refers to; gives the names of those that are not valid.
fn insert_references(
    connection: &Connection,
    store_dir: &StoreDir,
    referrer: i64,
    references: &[StorePath],
) -> rusqlite::Result<Vec<String>> {
    let mut missing = Vec::new();
    let mut select = connection.prepare_cached(SELECT_ID)?;
    let mut insert = connection.prepare_cached(INSERT_REFERENCE)?;
    for reference in references {
        let name = store_dir.full_name(reference);
        match select
            .query_row([&name], |row| row.get::<_, i64>(0))
            .optional()?
        {
            Some(reference) => {
                insert.execute([referrer, reference])?;
            }
            None => missing.push(name),
        }
    }
    Ok(missing)
}

fn failure(action: &'static str, path: PathBuf, source: rusqlite::Error) -> StoreError {
    if is_damage(&source) {
        StoreError::DamagedDatabase { path, source }
    } else {
        StoreError::Database {
            action,
            path,
            source,
        }
    }
}

/// Numbers in the database are signed.
fn signed(number: u64) -> rusqlite::Result<i64> {
    i64::try_from(number).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

const SELECT_NAR_SIZE: &str = "SELECT narSize FROM ValidPaths WHERE path = ?1";
const SELECT_ID: &str = "SELECT id FROM ValidPaths WHERE path = ?1";
const GUIX_INSERT: &str = "INSERT INTO ValidPaths (path, hash, registrationTime, deriver, narSize)
    VALUES (?1, ?2, ?3, ?4, ?5)";
const GUIX_UPDATE: &str = "UPDATE ValidPaths
    SET hash = ?2, registrationTime = ?3, deriver = ?4, narSize = ?5 WHERE path = ?1";
const NIX_INSERT: &str =
    "INSERT INTO ValidPaths (path, hash, registrationTime, deriver, narSize, sigs, ca)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
/// What was built here (`ultimate`) is not any more.
const NIX_UPDATE: &str = "UPDATE ValidPaths SET hash = ?2, registrationTime = ?3, deriver = ?4,
    narSize = ?5, sigs = ?6, ca = ?7, ultimate = NULL WHERE path = ?1";
const INSERT_REFERENCE: &str = "INSERT OR IGNORE INTO Refs (referrer, reference) VALUES (?1, ?2)";
const INSERT_OUTPUT: &str =
    "INSERT OR REPLACE INTO DerivationOutputs (drv, id, path) VALUES (?1, ?2, ?3)";
