//! What the database records of valid items.

use std::time::{Duration, UNIX_EPOCH};

use rusqlite::{Connection, OptionalExtension as _};

use super::db::Database;
use super::error::StoreError;
use super::handle::Store;
use super::layout::Layout;
use crate::format::hash::NarHash;
use crate::format::store_path::{Dialect, StoreDir, StorePath};

/// Where a valid item came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ItemOrigin {
    /// It was built on this machine.
    Built,
    /// There is a log of a build of its derivation, but it did not end just before the item was registered. The
    /// build may have failed, or compared its result with an item that was substituted.
    Logged,
    /// It was substituted or added, as far as is known.
    Added,
}

/// What the database records of a valid item.
#[derive(Debug, Clone)]
pub(crate) struct ItemProvenance {
    /// The hash of its nar.
    pub(crate) nar_hash: NarHash,
    /// The items that it refers to, in the order of their names.
    pub(crate) references: Vec<StorePath>,
    /// The derivation that built it, wherever that was.
    pub(crate) deriver: Option<StorePath>,
    /// Where it came from.
    pub(crate) origin: ItemOrigin,
}

/// A row, and what depends on it, as text.
struct RecordRow {
    hash: String,
    deriver: Option<String>,
    references: Vec<String>,
    /// Valid derivations that have the item as an output.
    valid_derivers: Vec<String>,
    is_ultimate: bool,
    /// In Unix seconds.
    registered: i64,
}

impl Store {
    /// All valid items, in the order of their names.
    ///
    /// # Errors
    /// The database cannot be read, or has what is no store path.
    pub(crate) fn all_valid(&self) -> Result<Vec<StorePath>, StoreError> {
        self.database().all_valid()
    }

    /// What is recorded of `item`; `None` when it is not valid.
    ///
    /// Nix's database has a column that says whether an item was built here. Guix has only logs of builds.
    ///
    /// # Errors
    /// The database cannot be read, or has an invalid value.
    pub(crate) fn item_provenance(
        &self,
        item: &StorePath,
    ) -> Result<Option<ItemProvenance>, StoreError> {
        self.database().item_provenance(item, self.layout())
    }
}

impl Database {
    fn all_valid(&mut self) -> Result<Vec<StorePath>, StoreError> {
        let names: Vec<String> = self.run("listing valid items", |connection, _| {
            let mut statement =
                connection.prepare_cached("SELECT path FROM ValidPaths ORDER BY path")?;
            let names = statement.query_map([], |row| row.get(0))?;
            names.collect()
        })?;

        let items = names.into_iter();
        items
            .map(|name| self.parse(name.clone(), "path", &name))
            .collect()
    }

    fn item_provenance(
        &mut self,
        item: &StorePath,
        layout: &Layout,
    ) -> Result<Option<ItemProvenance>, StoreError> {
        let row = self.run("looking up an item", |connection, store_dir| {
            let transaction = connection.transaction()?;
            let row = record_row(&transaction, store_dir, item)?;
            transaction.commit()?;
            Ok(row)
        })?;
        let Some(row) = row else { return Ok(None) };

        let name = layout.store_dir().full_name(item);
        let nar_hash = match NarHash::parse(&row.hash) {
            Ok((hash, _)) => hash,
            Err(_) => return Err(self.malformed("hash", row.hash, &name)),
        };
        let references = row.references.into_iter();
        let references = references.map(|reference| self.parse(reference, "reference", &name));
        let references = references.collect::<Result<Vec<_>, _>>()?;
        let deriver = row.deriver.filter(|deriver| !deriver.is_empty());
        let deriver = deriver.map(|deriver| self.parse(deriver, "deriver", &name));
        let derivers = row.valid_derivers.into_iter();
        let derivers = derivers.map(|deriver| self.parse(deriver, "deriver", &name));
        let derivers = derivers.collect::<Result<Vec<_>, _>>()?;

        let logs = derivers
            .iter()
            .filter_map(|deriver| log_of(layout, deriver, row.registered));
        let origin = match row.is_ultimate {
            true => ItemOrigin::Built,
            false => logs.fold(ItemOrigin::Added, surest),
        };
        Ok(Some(ItemProvenance {
            nar_hash,
            references,
            deriver: deriver.transpose()?,
            origin,
        }))
    }
}

fn record_row(
    connection: &Connection,
    store_dir: &StoreDir,
    item: &StorePath,
) -> rusqlite::Result<Option<RecordRow>> {
    let (select, select_derivers) = match store_dir.dialect() {
        Dialect::Guix => (
            "SELECT id, hash, deriver, NULL, registrationTime FROM ValidPaths WHERE path = ?1",
            "SELECT drv.path FROM DerivationOutputs AS output
             JOIN ValidPaths AS drv ON output.drv = drv.id WHERE output.path = ?1",
        ),
        // Its column says where the item came from, so derivations do not matter.
        Dialect::Nix => (
            "SELECT id, hash, deriver, ultimate, registrationTime FROM ValidPaths WHERE path = ?1",
            "SELECT path FROM ValidPaths WHERE 0 AND path = ?1",
        ),
    };
    let name = store_dir.full_name(item);
    let found = connection
        .prepare_cached(select)?
        .query_row([&name], |row| {
            let ultimate: Option<i64> = row.get(3)?;
            let id: i64 = row.get(0)?;
            let is_ultimate = ultimate == Some(1);
            Ok((id, row.get(1)?, row.get(2)?, is_ultimate, row.get(4)?))
        })
        .optional()?;
    let Some((id, hash, deriver, is_ultimate, registered)) = found else {
        return Ok(None);
    };

    let mut references = connection.prepare_cached(
        "SELECT path FROM Refs JOIN ValidPaths ON reference = id WHERE referrer = ?1 ORDER BY path",
    )?;
    let references = references.query_map([id], |row| row.get(0))?;
    let references = references.collect::<rusqlite::Result<_>>()?;
    let mut derivers = connection.prepare_cached(select_derivers)?;
    let derivers = derivers.query_map([&name], |row| row.get(0))?;

    Ok(Some(RecordRow {
        hash,
        deriver,
        references,
        valid_derivers: derivers.collect::<rusqlite::Result<_>>()?,
        is_ultimate,
        registered,
    }))
}

/// What the log of a build of `derivation`, compressed or not, says of an item that was `registered` then;
/// `None` without a log.
fn log_of(layout: &Layout, derivation: &StorePath, registered: i64) -> Option<ItemOrigin> {
    let log = layout.build_log(derivation)?;
    let found = ["", ".gz", ".bz2"].iter().find_map(|suffix| {
        let mut name = log.clone().into_os_string();
        name.push(suffix);
        std::fs::metadata(name).ok()
    })?;

    let ended = found
        .modified()
        .ok()
        .and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    let registered = u64::try_from(registered).ok().map(Duration::from_secs);
    let is_of_this_build = ended.zip(registered).is_some_and(|(ended, registered)| {
        // Registration times are whole seconds.
        let ended = Duration::from_secs(ended.as_secs());
        ended <= registered && registered - ended <= REGISTRATION_DELAY_MAX
    });
    Some(match is_of_this_build {
        true => ItemOrigin::Built,
        false => ItemOrigin::Logged,
    })
}

/// How long it takes at most from the end of a build to the registration of what it has made: the daemon
/// reads all of it meanwhile.
const REGISTRATION_DELAY_MAX: Duration = Duration::from_secs(10 * 60);

fn surest(one: ItemOrigin, other: ItemOrigin) -> ItemOrigin {
    match (one, other) {
        (ItemOrigin::Built, _) | (_, ItemOrigin::Built) => ItemOrigin::Built,
        (ItemOrigin::Logged, _) | (_, ItemOrigin::Logged) => ItemOrigin::Logged,
        (ItemOrigin::Added, ItemOrigin::Added) => ItemOrigin::Added,
    }
}
