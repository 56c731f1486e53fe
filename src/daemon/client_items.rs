//! The items that guix-daemon's client names on its command line.
//!
//! For `guix build ITEM...` the daemon queries one item after another, each after the reply to the
//! previous one, so that many items take as many round trips. But the daemon's process for a client
//! has the client's process number as its first argument, for administrators to see, and the
//! client's command line is readable.
//!
//! The result is a hint what to look up early, followed once the daemon has queried one of the
//! items. It may be wrong: the number is cut if the original argument was shorter, and process
//! numbers are reused. Then nothing is found, or items that the daemon does not query. A user who
//! fakes a command line only causes lookups that any client can cause through the daemon.

use rustix::process::getppid;

use crate::format::store_path::{StoreDir, StorePath};

use super::process;

/// How many parent processes are examined: there may be shell scripts that did not `exec`.
const GENERATIONS: usize = 4;

/// At most this many items are looked up early.
const ITEMS_MAX: usize = 2000;

/// The items of `store_dir` on the command line of the client of our parent daemon, in its order;
/// none if there is no such daemon or client.
#[must_use]
pub(crate) fn named_items(store_dir: &StoreDir) -> Vec<StorePath> {
    let client = getppid().and_then(|parent| client_of(parent.as_raw_nonzero().get()));
    let arguments = client.and_then(process::arguments).unwrap_or_default();

    let items = split_arguments(&arguments).filter_map(|argument| item(argument, store_dir));
    items.take(ITEMS_MAX).collect()
}

/// The client's process number, from the daemon's process among `parent` and its ancestors.
fn client_of(parent: i32) -> Option<i32> {
    let above = std::iter::successors(Some(parent), |&pid| process::parent(pid));
    above.take(GENERATIONS).find_map(|pid| {
        let arguments = process::arguments(pid)?;
        let mut arguments = split_arguments(&arguments);
        let (program, client) = (arguments.next()?, arguments.next()?);
        let is_daemon = program.rsplit(|&byte| byte == b'/').next() == Some(b"guix-daemon");
        is_daemon.then(|| str::from_utf8(client).ok()?.parse().ok())?
    })
}

fn split_arguments(arguments: &[u8]) -> impl Iterator<Item = &[u8]> {
    arguments.split(|&byte| byte == 0)
}

fn item(argument: &[u8], store_dir: &StoreDir) -> Option<StorePath> {
    let argument = str::from_utf8(argument).ok()?;
    Some(
        store_dir
            .parse_path(argument.trim_end_matches('/'))
            .ok()?
            .to_path(),
    )
}
