//! The time of the day where the user is.
//!
//! The standard library knows no time zones. SQLite, which is linked for the databases, does.

use std::time::Duration;

use rusqlite::Connection;

/// The time since midnight, local time; UTC where no time zone is known.
///
/// # Errors
/// Those of SQLite.
pub(crate) fn since_midnight() -> rusqlite::Result<Duration> {
    let connection = Connection::open_in_memory()?;
    let sql = "SELECT strftime('%H', 'now', 'localtime') * 3600
        + strftime('%M', 'now', 'localtime') * 60 + strftime('%S', 'now', 'localtime')";
    let seconds: u32 = connection.query_row(sql, [], |row| row.get(0))?;
    Ok(Duration::from_secs(seconds.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_has_24_hours() {
        assert!(since_midnight().unwrap() < Duration::from_secs(24 * 3600));
    }
}
