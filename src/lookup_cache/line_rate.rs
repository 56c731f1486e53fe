//! How fast servers have sent nars, as a first estimate for later runs: one row for each server.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::db::stored_time;
use super::server::ServerRow;

/// The rate of the line to a server, as a run has measured it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LineRateRecord {
    /// Of all transfers together.
    pub(crate) bytes_per_second: u64,
    /// When that was, in Unix seconds.
    pub(crate) measured_at: u64,
}

impl LineRateRecord {
    /// Whether it is of any use at `now`: at most a month old, and not of the future.
    #[must_use]
    pub(crate) fn is_fresh(&self, now: u64) -> bool {
        const MONTH: u64 = 30 * 24 * 3600;
        now.checked_sub(self.measured_at)
            .is_some_and(|age| age <= MONTH)
    }
}

/// Files of earlier versions of this program do not have it before the first rate is written.
const TABLE: &str = "
CREATE TABLE IF NOT EXISTS line_rates (
    server INTEGER PRIMARY KEY,
    bytes_per_second INTEGER NOT NULL,
    measured_at INTEGER NOT NULL
);";

fn has_table(connection: &Connection) -> rusqlite::Result<bool> {
    let sql = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'line_rates'";
    let found = connection.query_row(sql, [], |_| Ok(())).optional()?;
    Ok(found.is_some())
}

/// The rate of `server`, whether or not it is fresh.
pub(super) fn find(
    connection: &Connection,
    server: ServerRow,
) -> rusqlite::Result<Option<LineRateRecord>> {
    if !has_table(connection)? {
        return Ok(None);
    }
    let sql = "SELECT bytes_per_second, measured_at FROM line_rates WHERE server = ?1";
    let row = connection.query_row(sql, [server.0], |row| {
        Ok(LineRateRecord {
            bytes_per_second: row.get::<_, i64>(0)?.unsigned_abs(),
            measured_at: row.get::<_, i64>(1)?.unsigned_abs(),
        })
    });
    row.optional()
}

/// Replaces the rate of `server`.
pub(super) fn replace(
    connection: &mut Connection,
    server: ServerRow,
    rate: LineRateRecord,
) -> rusqlite::Result<()> {
    let transaction =
        connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    transaction.execute_batch(TABLE)?;
    transaction.execute(
        "INSERT OR REPLACE INTO line_rates (server, bytes_per_second, measured_at)
         VALUES (?1, ?2, ?3)",
        params![
            server.0,
            stored_time(rate.bytes_per_second),
            stored_time(rate.measured_at)
        ],
    )?;
    transaction.commit()
}

/// Removes the rate of the server at `url`, or of every one.
pub(super) fn remove(connection: &Connection, url: Option<&str>) -> rusqlite::Result<()> {
    if has_table(connection)? {
        connection.execute(
            "DELETE FROM line_rates
             WHERE ?1 IS NULL OR server IN (SELECT id FROM servers WHERE url = ?1)",
            [url],
        )?;
    }
    Ok(())
}
