//! The names in the lookup cache, for completions: read from the file as it is. Nothing is created,
//! locked or repaired, and a file that cannot be read has no names.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};
use url::Url;

use super::db::POSITIVE;
use super::schema;
use crate::sqlite::distrust_file;

/// The most names of each kind.
const NAMES_MAX: u32 = 1000;

/// The URLs of the servers in the cache below `dir`, as they were stored.
#[must_use]
pub(crate) fn known_servers(dir: &Path) -> Vec<String> {
    names(
        dir,
        "SELECT url FROM servers WHERE substr(url, 1, length(?1)) = ?1 LIMIT ?2",
        "",
    )
}

/// The full names of the available items in the cache below `dir` that begin with `prefix`, as servers
/// wrote them: the caller has to check them.
#[must_use]
pub(crate) fn known_items(dir: &Path, prefix: &str) -> Vec<String> {
    let sql = format!(
        "SELECT DISTINCT name FROM (
            SELECT trim(substr(rest, 1, instr(rest, char(10)) - 1)) AS name FROM (
                SELECT substr(text, instr(text, 'StorePath: ') + 11, 512) AS rest FROM lookups
                WHERE kind = {POSITIVE}
            )
        ) WHERE substr(name, 1, length(?1)) = ?1 LIMIT ?2"
    );
    names(dir, &sql, prefix)
}

fn names(dir: &Path, sql: &str, prefix: &str) -> Vec<String> {
    let found = open(dir).and_then(|connection| {
        let mut statement = connection.prepare(sql).ok()?;
        let rows = statement.query_map((prefix, NAMES_MAX), |row| row.get(0));
        Some(rows.ok()?.filter_map(Result::ok).collect())
    });
    found.unwrap_or_default()
}

/// The file, read without its log: the log is empty unless a run is under way, and reading it would
/// create files. SQLite would wait for the writer of a pipe.
fn open(dir: &Path) -> Option<Connection> {
    let path = dir.canonicalize().ok()?.join(schema::FILE_NAME);
    if !path.symlink_metadata().ok()?.is_file() {
        return None;
    }

    let mut uri = Url::from_file_path(path).ok()?;
    uri.set_query(Some("mode=ro&immutable=1"));
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let connection = Connection::open_with_flags(uri.as_str(), flags).ok()?;
    distrust_file(&connection).ok()?;
    Some(connection)
}
