//! In what two builds of an item differ: two nars, read side by side.
//!
//! A nar of a server is downloaded and decoded while it is compared; the tree of the local store is
//! read as the nar that it is. Neither is held in memory, and nothing is unpacked.

use std::io::{self, BufRead, BufReader};
use std::thread::{self, Builder};

use crate::format::error_text::chain;
use crate::format::hash::NarHash;
use crate::format::nar::{NarDifferences, NarReader, UncomparableNar, differences};
use crate::format::narinfo::NarInfo;
use crate::format::server_list::ServerIndex;
use crate::format::store_path::{Dialect, StorePath};
use crate::store::Store;
use crate::substitute::cancel::Cancel;
use crate::substitute::download::whole_nar::WholeNar;
use crate::substitute::network::Network;

/// One of the nars to compare.
#[derive(Clone, Copy)]
pub(crate) enum ComparedNar<'a> {
    /// The tree of an item in the local store.
    Local(&'a Store, &'a StorePath),
    /// The nar of a server.
    Server(ServerNar<'a>),
}

/// The nar that a narinfo of a server describes.
#[derive(Clone, Copy)]
pub(crate) struct ServerNar<'a> {
    /// The server.
    pub(crate) server: ServerIndex,
    /// The narinfo.
    pub(crate) narinfo: &'a NarInfo,
}

/// Compares nars.
pub(crate) struct NarComparison<'a> {
    /// Where nars are downloaded from.
    pub(crate) network: &'a Network,
    /// Whose limits hold for them.
    pub(crate) dialect: Dialect,
    /// Raised when the user interrupts.
    pub(crate) cancel: &'a Cancel,
}

/// In what `first` and `second` differ.
///
/// # Errors
/// One of them cannot be read, or a server sends another nar than its narinfo describes: why.
pub(crate) fn compare_nars(
    comparison: &NarComparison<'_>,
    first: ComparedNar<'_>,
    second: ServerNar<'_>,
) -> Result<NarDifferences, String> {
    match first {
        ComparedNar::Server(first) => {
            let mut nar = open(comparison, first)?;
            let found = compare_with(comparison, &mut nar, second)
                .map_err(|error| nar.stop_reason().map_or(error, |stop| chain(&stop)))?;
            check_hash(nar, first.narinfo)?;
            Ok(found)
        }
        ComparedNar::Local(store, item) => thread::scope(|scope| {
            let (reader, writer) = io::pipe().map_err(cannot_read_tree)?;
            let dumping = Builder::new()
                .name("dumper".to_owned())
                .spawn_scoped(scope, move || store.dump(item, writer))
                .map_err(cannot_read_tree)?;

            let mut nar = BufReader::new(reader);
            let found = compare_with(comparison, &mut nar, second);
            // Ends the other thread when the comparison ended early.
            drop(nar);
            match dumping.join() {
                Ok(Err(error)) if error.kind() != io::ErrorKind::BrokenPipe => {
                    Err(cannot_read_tree(error))
                }
                _ => found,
            }
        }),
    }
}

fn cannot_read_tree(error: io::Error) -> String {
    format!("reading the local tree: {error}")
}

fn open(comparison: &NarComparison<'_>, nar: ServerNar<'_>) -> Result<WholeNar, String> {
    let ServerNar { server, narinfo } = nar;
    WholeNar::open(comparison.network, server, narinfo, comparison.cancel)
        .map_err(|error| chain(&error))
}

fn compare_with(
    comparison: &NarComparison<'_>,
    first: &mut impl BufRead,
    second: ServerNar<'_>,
) -> Result<NarDifferences, String> {
    let mut nar = open(comparison, second)?;
    let found = differences(
        NarReader::new(first, comparison.dialect),
        NarReader::new(&mut nar, comparison.dialect),
    );

    match found {
        Ok(found) => {
            check_hash(nar, second.narinfo)?;
            Ok(found)
        }
        Err(UncomparableNar::Second(error)) => {
            Err(nar.stop_reason().map_or(chain(&error), |stop| chain(&stop)))
        }
        Err(UncomparableNar::First(error)) => Err(chain(&error)),
    }
}

/// Checks that `nar`, which was read to its end, is the one that `narinfo` describes.
fn check_hash(nar: WholeNar, narinfo: &NarInfo) -> Result<(), String> {
    let (hash, claimed): (NarHash, NarHash) = (nar.hash(), narinfo.nar_hash());
    if hash == claimed {
        return Ok(());
    }
    Err(format!(
        "the server sends a nar with the hash {hash}, and its narinfo says {claimed}"
    ))
}
