//! The tables of a store database, as guix-daemon (schema 7) and Nix (schema 10) make them.
//!
//! The definitions are an interface shared with those programs; a database made here is opened
//! and changed by them, and the other way round. Every statement may be run again, since the
//! file that announces the schema is written only afterward.

use rusqlite::Connection;

use crate::format::store_path::Dialect;

/// The number that the programs of `dialect` write beside the database.
pub(super) const fn version(dialect: Dialect) -> u32 {
    match dialect {
        Dialect::Guix => 7,
        Dialect::Nix => 10,
    }
}

/// Makes all tables that are missing.
pub(super) fn create(connection: &Connection, dialect: Dialect) -> rusqlite::Result<()> {
    let (valid_paths, own) = match dialect {
        Dialect::Guix => (GUIX_VALID_PATHS, GUIX_ONLY),
        Dialect::Nix => (NIX_VALID_PATHS, NIX_ONLY),
    };
    connection.execute_batch(&format!(
        "BEGIN IMMEDIATE; {valid_paths} {BOTH} {own} COMMIT;"
    ))
}

const GUIX_VALID_PATHS: &str = "
CREATE TABLE IF NOT EXISTS ValidPaths (
    id integer primary key autoincrement not null,
    path text unique not null,
    hash text not null,
    registrationTime integer not null,
    deriver text,
    narSize integer
);";

const NIX_VALID_PATHS: &str = "
CREATE TABLE IF NOT EXISTS ValidPaths (
    id integer primary key autoincrement not null,
    path text unique not null,
    hash text not null,
    registrationTime integer not null,
    deriver text,
    narSize integer,
    ultimate integer,
    sigs text,
    ca text
);";

const BOTH: &str = "
CREATE TABLE IF NOT EXISTS Refs (
    referrer integer not null,
    reference integer not null,
    primary key (referrer, reference),
    foreign key (referrer) references ValidPaths(id) on delete cascade,
    foreign key (reference) references ValidPaths(id) on delete restrict
);
CREATE INDEX IF NOT EXISTS IndexReferrer on Refs(referrer);
CREATE INDEX IF NOT EXISTS IndexReference on Refs(reference);
CREATE TRIGGER IF NOT EXISTS DeleteSelfRefs before delete on ValidPaths
  begin
    delete from Refs where referrer = old.id and reference = old.id;
  end;
CREATE TABLE IF NOT EXISTS DerivationOutputs (
    drv integer not null,
    id text not null,
    path text not null,
    primary key (drv, id),
    foreign key (drv) references ValidPaths(id) on delete cascade
);
CREATE INDEX IF NOT EXISTS IndexDerivationOutputs on DerivationOutputs(path);";

const GUIX_ONLY: &str = "
CREATE TABLE IF NOT EXISTS FailedPaths (
    path text primary key not null,
    time integer not null
);";

const NIX_ONLY: &str = "
CREATE TABLE IF NOT EXISTS SchemaMigrations (migration text primary key not null);";

#[cfg(test)]
mod tests {
    use super::*;

    /// Tables, columns, keys and indexes as one text, whatever words made them.
    fn structure(connection: &Connection) -> Vec<String> {
        let list = |sql: &str| -> Vec<String> {
            let mut statement = connection.prepare(sql).unwrap();
            statement
                .query_map([], |row| row.get(0))
                .unwrap()
                .map(Result::unwrap)
                .collect()
        };
        let mut lines = Vec::new();
        for table in list("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name") {
            let columns = list(&format!(
                "SELECT name || ' ' || type || iif(\"notnull\", ' not null', '')
                 || iif(pk, ' pk' || pk, '') FROM pragma_table_xinfo('{table}')"
            ));
            lines.push(format!("{table}: {}", columns.join(", ")));
            lines.extend(list(&format!(
                "SELECT '  ' || \"from\" || ' -> ' || \"table\" || '.' || \"to\" || ' ' || on_delete
                 FROM pragma_foreign_key_list('{table}') ORDER BY 1"
            )));
            lines.extend(list(&format!(
                "SELECT '  ' || iif(\"unique\", 'unique ', '') || iif(origin = 'c', name, '')
                 || '(' || (SELECT group_concat(name) FROM pragma_index_info(list.name)) || ')'
                 FROM pragma_index_list('{table}') AS list ORDER BY 1"
            )));
        }
        lines
    }

    fn created(dialect: Dialect) -> Vec<String> {
        let connection = Connection::open_in_memory().unwrap();
        create(&connection, dialect).unwrap();
        create(&connection, dialect).unwrap();
        structure(&connection)
    }

    /// As read from a database that guix-daemon 1.5.0 made.
    #[test]
    fn equals_that_of_guix() {
        let expected = "\
DerivationOutputs: drv INTEGER not null pk1, id TEXT not null pk2, path TEXT not null
  drv -> ValidPaths.id CASCADE
  IndexDerivationOutputs(path)
  unique (drv,id)
FailedPaths: path TEXT not null pk1, time INTEGER not null
  unique (path)
Refs: referrer INTEGER not null pk1, reference INTEGER not null pk2
  reference -> ValidPaths.id RESTRICT
  referrer -> ValidPaths.id CASCADE
  IndexReference(reference)
  IndexReferrer(referrer)
  unique (referrer,reference)
ValidPaths: id INTEGER not null pk1, path TEXT not null, hash TEXT not null, registrationTime INTEGER not null, deriver TEXT, narSize INTEGER
  unique (path)
sqlite_sequence: name , seq ";
        assert_eq!(created(Dialect::Guix).join("\n"), expected);
    }

    /// As read from a database that Nix 2.34 made.
    #[test]
    fn equals_that_of_nix() {
        let nix = created(Dialect::Nix);
        let valid_paths = "ValidPaths: id INTEGER not null pk1, path TEXT not null, hash TEXT not null, registrationTime INTEGER not null, deriver TEXT, narSize INTEGER, ultimate INTEGER, sigs TEXT, ca TEXT";
        assert!(nix.iter().any(|line| line == valid_paths), "{nix:#?}");
        let tables: Vec<_> = nix.iter().filter(|line| !line.starts_with(' ')).collect();
        assert_eq!(tables.len(), 5, "{tables:#?}");
        assert!(
            nix.iter()
                .any(|line| line == "SchemaMigrations: migration TEXT not null pk1")
        );
    }

    #[test]
    fn an_item_that_refers_to_itself_can_be_deleted() {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .pragma_update(None, "foreign_keys", true)
            .unwrap();
        create(&connection, Dialect::Guix).unwrap();
        let deleted = connection.execute_batch(
            "INSERT INTO ValidPaths (path, hash, registrationTime) VALUES ('a', 'h', 1);
             INSERT INTO Refs VALUES (1, 1); DELETE FROM ValidPaths;",
        );
        assert_eq!(deleted, Ok(()));
    }
}
