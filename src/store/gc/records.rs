//! The rows of all items in the store database, and their deletion.

use std::collections::{HashMap, HashSet};

use rusqlite::{Connection, ErrorCode, TransactionBehavior};

use crate::store::db::Database;
use crate::store::error::StoreError;

use super::gc_item::GcItem;
use super::graph::ItemGraph;

/// A row of `ValidPaths`.
struct ItemRow {
    id: i64,
    name: String,
    registered_at: i64,
    nar_size: Option<i64>,
}

impl Database {
    /// All valid items and what they need, at one moment.
    pub(in crate::store) fn item_graph(&mut self) -> Result<ItemGraph, StoreError> {
        let (rows, edges) = self.run("reading all items", |connection, _| {
            let transaction = connection.transaction()?;
            let rows = item_rows(&transaction)?;
            let mut edges = edges(&transaction, "SELECT referrer, reference FROM Refs")?;
            edges.extend(self::edges(&transaction, SELECT_BUILT_BY)?);
            transaction.commit()?;
            Ok((rows, edges))
        })?;

        let mut items = Vec::with_capacity(rows.len());
        for row in rows {
            let path = self.parse(row.name.clone(), "path", &row.name)?;
            items.push(GcItem {
                id: row.id,
                path,
                registered_at: u64::try_from(row.registered_at).unwrap_or(0),
                nar_size: u64::try_from(row.nar_size.unwrap_or(0)).unwrap_or(0),
            });
        }

        let positions = items.iter().enumerate().map(|(at, item)| (item.id, at));
        let positions: HashMap<i64, usize> = positions.collect();
        let edges = edges.into_iter().filter_map(|(from, to)| {
            let edge = (*positions.get(&from)?, *positions.get(&to)?);
            (from != to).then_some(edge)
        });
        let edges: Vec<(usize, usize)> = edges.collect();
        Ok(ItemGraph::new(items, edges))
    }

    /// Makes each transaction from now on wait until it is on the disk.
    pub(in crate::store) fn sync_transactions(&mut self) -> Result<(), StoreError> {
        self.run("deleting items", |connection, _| {
            connection.pragma_update(None, "synchronous", "FULL")
        })
    }

    /// Deletes the rows of `items`, which come referrers first, in one transaction. A row to which
    /// another one refers stays: an item was registered meanwhile. The ids of these are the result.
    pub(in crate::store) fn delete_items(
        &mut self,
        items: &[GcItem],
    ) -> Result<HashSet<i64>, StoreError> {
        self.run("deleting items", |connection, _| {
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let mut referred_to = HashSet::new();
            for item in items {
                let mut delete = transaction.prepare_cached(DELETE_ITEM)?;
                match delete.execute([item.id]) {
                    Ok(_) => {}
                    Err(error)
                        if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) =>
                    {
                        referred_to.insert(item.id);
                    }
                    Err(error) => return Err(error),
                }
            }
            transaction.commit()?;
            Ok(referred_to)
        })
    }
}

fn item_rows(connection: &Connection) -> rusqlite::Result<Vec<ItemRow>> {
    let mut select =
        connection.prepare("SELECT id, path, registrationTime, narSize FROM ValidPaths")?;
    let rows = select.query_map([], |row| {
        Ok(ItemRow {
            id: row.get(0)?,
            name: row.get(1)?,
            registered_at: row.get(2)?,
            nar_size: row.get(3)?,
        })
    })?;
    rows.collect()
}

/// Pairs of rows of which the first needs the second.
fn edges(connection: &Connection, sql: &str) -> rusqlite::Result<Vec<(i64, i64)>> {
    let mut select = connection.prepare(sql)?;
    let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.collect()
}

/// Outputs, and the derivations that they were built by. These stay with their outputs, as the settings
/// `gc-keep-derivations` of guix-daemon and `keep-derivations` of Nix have it by default.
const SELECT_BUILT_BY: &str = "SELECT output.id, derivation.id FROM DerivationOutputs AS built
    JOIN ValidPaths AS derivation ON derivation.id = built.drv
    JOIN ValidPaths AS output ON output.path = built.path
    WHERE output.deriver = derivation.path";
const DELETE_ITEM: &str = "DELETE FROM ValidPaths WHERE id = ?1";
