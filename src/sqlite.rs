//! What the databases of the store and of the lookup cache have in common: their files may be damaged,
//! or written by others.

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode};

/// Makes `connection` distrust its file: it checks the sizes of cells, calls no function that the
/// schema names, follows no view, and refuses statements that could corrupt the file.
///
/// # Errors
/// Those of SQLite.
pub(crate) fn distrust_file(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false)?;
    connection.pragma_update(None, "cell_size_check", true)
}

/// Whether `error` means that the database is damaged, or not one of its schema.
pub(crate) fn is_damage(error: &rusqlite::Error) -> bool {
    match error {
        rusqlite::Error::SqliteFailure(error, _) => matches!(
            error.code,
            ErrorCode::NotADatabase
                | ErrorCode::DatabaseCorrupt
                // A statement that does not fit the tables.
                | ErrorCode::Unknown
        ),
        // Statements and values that cannot be in a file of that schema.
        rusqlite::Error::SqlInputError { .. }
        | rusqlite::Error::FromSqlConversionFailure(..)
        | rusqlite::Error::IntegralValueOutOfRange(..)
        | rusqlite::Error::InvalidColumnType(..)
        | rusqlite::Error::Utf8Error(..) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_distrusts_its_file() {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch("CREATE TABLE t (x); CREATE VIEW v AS SELECT x FROM t;")
            .unwrap();
        distrust_file(&connection).unwrap();

        let is_set = |pragma| connection.pragma_query_value(None, pragma, |row| row.get(0));
        assert_eq!(is_set("trusted_schema"), Ok(false));
        assert_eq!(is_set("cell_size_check"), Ok(true));
        for statement in [
            "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET rootpage = 1",
            "SELECT x FROM v",
        ] {
            let refused = connection.execute_batch(statement).unwrap_err();
            assert!(is_damage(&refused), "{statement}: {refused}");
        }
    }
}
