//! In what two builds of an item differ: two nars, read side by side.
//!
//! A nar of a server is downloaded and decoded while it is compared; the tree of the local store is
//! read as the nar that it is. Neither is held in memory, nothing is unpacked, and no temporary file is
//! written. Since no signature covers what servers claim, a nar that is said to be far larger than the
//! other one is not downloaded.

use std::io::{self, BufRead, BufReader};
use std::sync::atomic::AtomicU64;
use std::thread::{self, Builder};

use crate::format::error_text::chain;
use crate::format::hash::NarHash;
use crate::format::nar::{NarDifferences, NarReader, UncomparableNar, differences};
use crate::format::server_list::ServerIndex;
use crate::format::store_path::{Dialect, StorePath};
use crate::format::units;
use crate::store::Store;
use crate::substitute::claims::NarClaim;
use crate::substitute::download::retries::RetryContext;
use crate::substitute::download::whole_nar::WholeNar;

/// One of the nars to compare.
#[derive(Clone, Copy)]
pub(crate) enum ComparedNar<'a> {
    /// The tree of an item in the local store.
    Local(LocalNar<'a>),
    /// The nar of a server.
    Server(ServerNar<'a>),
}

/// The nar that the tree of an item is.
#[derive(Clone, Copy)]
pub(crate) struct LocalNar<'a> {
    /// Where the tree is.
    pub(crate) store: &'a Store,
    /// The item.
    pub(crate) item: &'a StorePath,
    /// The size of the nar in bytes.
    pub(crate) nar_size: u64,
}

/// The nar that a server claims to have.
#[derive(Clone, Copy)]
pub(crate) struct ServerNar<'a> {
    /// The server.
    pub(crate) server: ServerIndex,
    /// What it claims.
    pub(crate) claim: &'a NarClaim,
}

impl ServerNar<'_> {
    fn size(self) -> u64 {
        self.claim.offer.nar_size()
    }
}

/// Compares nars.
pub(crate) struct NarComparison<'a> {
    /// Where nars are downloaded from, and how servers are retried.
    pub(crate) retries: RetryContext,
    /// Whose limits hold for them.
    pub(crate) dialect: Dialect,
    /// Counts the bytes of nars of servers.
    pub(crate) bytes: &'a AtomicU64,
}

impl NarComparison<'_> {
    /// In what `first` and `second` differ.
    ///
    /// # Errors
    /// One of them cannot be read, or a server sends another nar than its narinfo describes, or claims to
    /// have a far larger one than the other is: why.
    pub(crate) fn differences(
        &self,
        first: ComparedNar<'_>,
        second: ServerNar<'_>,
    ) -> Result<NarDifferences, String> {
        match first {
            ComparedNar::Server(first) => self.compare_servers(first, second),
            ComparedNar::Local(first) => self.compare_with_tree(first, second),
        }
    }

    fn compare_servers(
        &self,
        first: ServerNar<'_>,
        second: ServerNar<'_>,
    ) -> Result<NarDifferences, String> {
        check_size(first, second.size())?;
        check_size(second, first.size())?;
        let mut nar = self.open(first)?;
        let found = self
            .compare_with(&mut nar, second)
            .map_err(|error| nar.stop_reason().map_or(error, |stop| chain(&stop)))?;
        check_hash(nar, first.claim)?;
        Ok(found)
    }

    fn compare_with_tree(
        &self,
        first: LocalNar<'_>,
        second: ServerNar<'_>,
    ) -> Result<NarDifferences, String> {
        check_size(second, first.nar_size)?;
        thread::scope(|scope| {
            let (reader, writer) = io::pipe().map_err(cannot_read_tree)?;
            let dumping = Builder::new()
                .name("dumper".to_owned())
                .spawn_scoped(scope, move || first.store.dump(first.item, writer))
                .map_err(cannot_read_tree)?;

            let mut nar = BufReader::new(reader);
            let found = self.compare_with(&mut nar, second);
            // Ends the other thread when the comparison ended early.
            drop(nar);
            match dumping.join() {
                Ok(Err(error)) if error.kind() != io::ErrorKind::BrokenPipe => {
                    Err(cannot_read_tree(error))
                }
                _ => found,
            }
        })
    }

    fn compare_with(
        &self,
        first: &mut impl BufRead,
        second: ServerNar<'_>,
    ) -> Result<NarDifferences, String> {
        let mut nar = self.open(second)?;
        let found = differences(
            NarReader::new(first, self.dialect),
            NarReader::new(&mut nar, self.dialect),
        );

        match found {
            Ok(found) => {
                check_hash(nar, second.claim)?;
                Ok(found)
            }
            Err(UncomparableNar::Second(error)) => {
                Err(nar.stop_reason().map_or(chain(&error), |stop| chain(&stop)))
            }
            Err(UncomparableNar::First(error)) => Err(chain(&error)),
        }
    }

    fn open<'n>(&'n self, nar: ServerNar<'_>) -> Result<WholeNar<'n>, String> {
        let ServerNar { server, claim } = nar;
        WholeNar::open(&self.retries, server, &claim.offer, self.bytes)
            .map_err(|error| chain(&error))
    }
}

/// A nar of at most this size is downloaded, however small the other one is.
const SIZE_ALLOWED: u64 = 1 << 30;
/// A nar may be this many times as large as the other one.
const SIZE_RATIO_MAX: u64 = 4;
/// Larger nars are not downloaded: two servers may agree on a size that no nar has.
const SIZE_MAX: u64 = 64 << 30;

/// Checks that `nar` is not said to be far larger than the other one, of `other` bytes: what is read of
/// it, also from few bytes on the network, is limited by what the server claims.
fn check_size(nar: ServerNar<'_>, other: u64) -> Result<(), String> {
    let limit = other.saturating_mul(SIZE_RATIO_MAX);
    if nar.size() <= limit.clamp(SIZE_ALLOWED, SIZE_MAX) {
        return Ok(());
    }
    Err(format!(
        "its narinfo claims {}, and the other build has {}: it is not downloaded",
        units::bytes(nar.size()),
        units::bytes(other)
    ))
}

fn cannot_read_tree(error: io::Error) -> String {
    format!("reading the local tree: {error}")
}

/// Checks that `nar`, which was read to its end, is the one that `claim` describes.
fn check_hash(nar: WholeNar<'_>, claim: &NarClaim) -> Result<(), String> {
    let stop = nar.stop_reason();
    let (hash, claimed): (NarHash, NarHash) = (nar.hash(), claim.nar_hash);
    if hash == claimed {
        return Ok(());
    }
    if let Some(stop) = stop {
        return Err(chain(&stop));
    }
    Err(format!(
        "the server sends a nar with the hash {hash}, and its narinfo says {claimed}"
    ))
}
