//! Removing expired entries: all of them, or a bounded step at a time.
//!
//! No index is ordered by expiry: it would cost every write more than it saves once a day. So a
//! sweep passes over the table in the order of rows, [`STEP_ROWS`] in each transaction. Where it
//! has come to is kept in the file, and the next step of any process continues there.

use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior};

use super::{db, schema};

/// Removes all entries that are expired at `now`; gives their number.
pub(super) fn remove_all(connection: &mut Connection, now: u64) -> rusqlite::Result<u64> {
    let now = db::stored_time(now);
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    schema::add_sweep_progress(&transaction)?;
    let removed = transaction.execute("DELETE FROM lookups WHERE expires_at <= ?1", [now])?;
    finish_sweep(&transaction, now)?;
    transaction.commit()?;

    return_free_pages(connection)?;
    Ok(removed as u64)
}

/// Removes the expired entries among the next [`STEP_ROWS`], if no sweep was finished in the last
/// [`INTERVAL_SECS`]. Gives whether the sweep has further steps.
pub(super) fn remove_step(connection: &mut Connection, now: u64) -> rusqlite::Result<bool> {
    if !is_due(connection, now)? {
        return Ok(false);
    }

    let now = db::stored_time(now);
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    schema::add_sweep_progress(&transaction)?;

    // The next step begins with the row behind this one.
    let start: i64 = transaction
        .query_row("SELECT next_row FROM sweep_progress", [], |row| row.get(0))
        .optional()?
        .unwrap_or(0);
    let end: Option<i64> = transaction
        .query_row(
            "SELECT rowid FROM lookups WHERE rowid >= ?1 ORDER BY rowid LIMIT 1 OFFSET ?2",
            [start, STEP_ROWS],
            |row| row.get(0),
        )
        .optional()?;
    let removed = transaction.execute(
        "DELETE FROM lookups WHERE rowid >= ?1 AND rowid <= ?2 AND expires_at <= ?3",
        [start, end.map_or(i64::MAX, |end| end - 1), now],
    )?;
    match end {
        Some(next) => transaction.execute(
            "INSERT OR REPLACE INTO sweep_progress (id, next_row) VALUES (1, ?1)",
            [next],
        )?,
        None => finish_sweep(&transaction, now)?,
    };
    transaction.commit()?;

    tracing::debug!(
        removed,
        is_complete = end.is_none(),
        "removed expired entries"
    );
    if removed > 0 {
        return_free_pages(connection)?;
    }
    Ok(end.is_some())
}

/// When expired entries were last removed, in Unix seconds.
pub(super) fn swept_at(connection: &Connection) -> rusqlite::Result<Option<u64>> {
    let swept: Option<i64> = connection
        .query_row("SELECT swept_at FROM sweeps WHERE id = 1", [], |row| {
            row.get(0)
        })
        .optional()?;
    Ok(swept.map(i64::unsigned_abs))
}

/// Returns the pages of removed entries to the file system.
pub(super) fn return_free_pages(connection: &Connection) -> rusqlite::Result<()> {
    let mut statement = connection.prepare("PRAGMA incremental_vacuum")?;
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    Ok(())
}

/// Whether the last sweep is too long ago. One in the future says that the clock was set back.
fn is_due(connection: &Connection, now: u64) -> rusqlite::Result<bool> {
    let swept_at = swept_at(connection)?;
    Ok(swept_at.is_none_or(|at| now < at || now - at >= INTERVAL_SECS))
}

fn finish_sweep(connection: &Connection, now: i64) -> rusqlite::Result<usize> {
    connection.execute("DELETE FROM sweep_progress", [])?;
    connection.execute(
        "INSERT OR REPLACE INTO sweeps (id, swept_at) VALUES (1, ?1)",
        [now],
    )
}

/// At most one sweep a day.
pub(super) const INTERVAL_SECS: u64 = 24 * 3600;

/// Rows of one step: some milliseconds, even when all of them are removed.
pub(super) const STEP_ROWS: i64 = 500;
