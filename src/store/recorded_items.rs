//! What the database records of items, for those who look at a whole store; and whether all of the
//! database is sound.

use rusqlite::{OptionalExtension as _, Row};

use crate::format::hash::NarHash;
use crate::format::store_path::{StoreDir, StorePath};

use super::db::Database;
use super::error::StoreError;

/// A valid item, as the database records it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct RecordedItem {
    /// Its path.
    pub(crate) path: StorePath,
    /// The hash of its nar.
    pub(crate) nar_hash: NarHash,
    /// The size of its nar; `None` in rows of very old programs.
    pub(crate) nar_size: Option<u64>,
}

/// All valid items.
#[derive(Debug, Default)]
pub(crate) struct RecordedItems {
    /// Those whose rows are well formed.
    pub(crate) items: Vec<RecordedItem>,
    /// What is wrong with the other rows.
    pub(crate) faults: Vec<String>,
}

impl RecordedItems {
    fn of(rows: Vec<ItemColumns>, store_dir: &StoreDir) -> Self {
        let mut recorded = Self::default();
        for row in rows {
            match recorded_item(row, store_dir) {
                Ok(item) => recorded.items.push(item),
                Err(fault) => recorded.faults.push(fault),
            }
        }
        recorded
    }
}

/// The columns of a row, as far as they have the right types.
type ItemColumns = (Option<String>, Option<String>, Option<i64>);

impl Database {
    /// Every valid item, at one moment.
    pub(super) fn recorded_items(&mut self) -> Result<RecordedItems, StoreError> {
        let rows = self.run("listing the valid items", |connection, _| {
            let mut statement = connection.prepare(SELECT_ALL)?;
            let rows = statement.query_map([], columns)?;
            rows.collect::<rusqlite::Result<Vec<ItemColumns>>>()
        })?;

        Ok(RecordedItems::of(rows, self.store_dir()))
    }

    /// Those of `paths` that are valid, at one moment.
    pub(super) fn recorded_among(
        &mut self,
        paths: &[StorePath],
    ) -> Result<RecordedItems, StoreError> {
        let rows = self.run("looking up valid items", |connection, store_dir| {
            let transaction = connection.transaction()?;
            let mut statement = transaction.prepare_cached(SELECT_ONE)?;
            let mut rows = Vec::new();
            for path in paths {
                let row = statement.query_row([store_dir.full_name(path)], columns);
                rows.extend(row.optional()?);
            }

            drop(statement);
            transaction.commit()?;
            Ok(rows)
        })?;

        Ok(RecordedItems::of(rows, self.store_dir()))
    }

    /// What is wrong with the database itself, all of which is read; nothing where it is sound.
    pub(super) fn integrity_faults(&mut self) -> Result<Vec<String>, StoreError> {
        self.run("checking the store database", |connection, _| {
            let mut faults = Vec::new();
            let mut statement = connection.prepare(INTEGRITY_CHECK)?;
            for fault in statement.query_map([], |row| row.get::<_, String>(0))? {
                faults.push(fault?);
            }
            faults.retain(|fault| fault != "ok");

            let mut statement = connection.prepare("PRAGMA foreign_key_check")?;
            let broken = statement.query_map([], |row| row.get::<_, String>(0))?;
            for table in broken.take(FAULTS_MAX) {
                faults.push(format!(
                    "a row of {} refers to an item that has no row",
                    table?
                ));
            }
            Ok(faults)
        })
    }
}

fn columns(row: &Row<'_>) -> rusqlite::Result<ItemColumns> {
    let nar_size = row.get_ref(2)?.as_i64().ok();
    Ok((text_of(row, 0)?, text_of(row, 1)?, nar_size))
}

fn text_of(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<String>> {
    Ok(row.get_ref(column)?.as_str().ok().map(str::to_owned))
}

fn recorded_item(
    (name, hash, nar_size): ItemColumns,
    store_dir: &StoreDir,
) -> Result<RecordedItem, String> {
    let Some(name) = name else {
        return Err("a row has no name".to_owned());
    };
    let Ok(path) = store_dir.parse_path(&name) else {
        let name = name.escape_debug();
        return Err(format!(
            "`{name}` is not the name of an item of {}",
            store_dir.as_str()
        ));
    };

    let hash = hash.unwrap_or_default();
    match NarHash::parse(&hash) {
        Ok((nar_hash, _)) => Ok(RecordedItem {
            path: path.to_path(),
            nar_hash,
            nar_size: nar_size
                .and_then(|size| u64::try_from(size).ok())
                .filter(|&size| size > 0),
        }),
        Err(error) => Err(format!("the hash of {name} is invalid: {error}")),
    }
}

/// Faults of one kind that are listed.
const FAULTS_MAX: usize = 20;

const INTEGRITY_CHECK: &str = "PRAGMA integrity_check(20)";
const SELECT_ALL: &str = "SELECT path, hash, narSize FROM ValidPaths";
const SELECT_ONE: &str = "SELECT path, hash, narSize FROM ValidPaths WHERE path = ?1";
