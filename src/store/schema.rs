//! The tables of a store database, as guix-daemon (schema 7) and Nix (schema 10) make them.
//!
//! The definitions are an interface shared with those programs; a database made here is opened
//! and changed by them, and the other way round. Every statement may be run again, since the
//! file that announces the schema is written only afterwards.

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
    connection.execute_batch(&format!("BEGIN IMMEDIATE; {valid_paths} {BOTH} {own} COMMIT;"))
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
