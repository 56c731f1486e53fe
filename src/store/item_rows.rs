//! The rows of the store database that make items valid.

use std::collections::HashMap;

use rusqlite::{Connection, ErrorCode, OptionalExtension as _, Transaction, params};

use super::error::StoreError;
use super::registration::Registration;
use crate::format::store_path::{Dialect, StoreDir, StorePath};

/// The outputs of a derivation: output name and path.
pub(super) type Outputs = Vec<(String, StorePath)>;

/// The outputs of the derivations of a batch, or why they cannot be read.
pub(super) type BatchOutputs<'a> = HashMap<&'a StorePath, Result<Outputs, StoreError>>;

/// Why an item was not recorded.
pub(super) enum RowRefusal {
    /// The outputs of the derivation cannot be read.
    Outputs,
    /// These references are not valid.
    References(Vec<String>),
    /// The database does not take a row.
    Row(rusqlite::Error),
}

/// An item that was not recorded, and why.
type RefusedRow<'a> = (&'a StorePath, RowRefusal);

/// Records those of `batch` that can be recorded; gives the others. References come first in both.
pub(super) fn record_batch<'a>(
    transaction: &mut Transaction<'_>,
    store_dir: &StoreDir,
    batch: &[&'a Registration],
    outputs: &BatchOutputs<'_>,
    now: u64,
) -> rusqlite::Result<Vec<RefusedRow<'a>>> {
    let mut refused = Vec::new();
    for item in batch {
        let outputs = match outputs.get(&item.path) {
            Some(Err(_)) => {
                refused.push((&item.path, RowRefusal::Outputs));
                continue;
            }
            Some(Ok(outputs)) => outputs,
            None => &Vec::new(),
        };

        let savepoint = transaction.savepoint()?;
        let recorded = record_path(&savepoint, store_dir, item, now).and_then(|id| {
            insert_outputs(&savepoint, store_dir, id, outputs)?;
            insert_references(&savepoint, store_dir, id, &item.references, &refused)
        });
        let refusal = match recorded {
            Ok(missing) if missing.is_empty() => {
                savepoint.commit()?;
                continue;
            }
            Ok(missing) => RowRefusal::References(missing),
            Err(error) if is_of_row(&error) => RowRefusal::Row(error),
            Err(error) => return Err(error),
        };
        savepoint.finish()?;
        refused.push((&item.path, refusal));
    }
    Ok(refused)
}

/// Whether `error` is about one row, so that others can be written.
fn is_of_row(error: &rusqlite::Error) -> bool {
    matches!(error, rusqlite::Error::ToSqlConversionFailure(_))
        || error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation)
}

/// Records `item`, in the place of what was recorded of it before; the id of its row.
fn record_path(
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

/// Records what `referrer` refers to; gives the names of those that are not valid. An item that was
/// refused is not, even if the row of its lost tree is still there.
fn insert_references(
    connection: &Connection,
    store_dir: &StoreDir,
    referrer: i64,
    references: &[StorePath],
    refused: &[RefusedRow<'_>],
) -> rusqlite::Result<Vec<String>> {
    let mut missing = Vec::new();
    let mut select = connection.prepare_cached(SELECT_ID)?;
    let mut insert = connection.prepare_cached(INSERT_REFERENCE)?;
    for reference in references {
        let name = store_dir.full_name(reference);
        let id: Option<i64> = select.query_row([&name], |row| row.get(0)).optional()?;
        match id.filter(|_| refused.iter().all(|(item, _)| *item != reference)) {
            Some(reference) => {
                insert.execute([referrer, reference])?;
            }
            None => missing.push(name),
        }
    }
    Ok(missing)
}

/// Numbers in the database are signed.
fn signed(number: u64) -> rusqlite::Result<i64> {
    i64::try_from(number).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

pub(super) const SELECT_ID: &str = "SELECT id FROM ValidPaths WHERE path = ?1";
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
