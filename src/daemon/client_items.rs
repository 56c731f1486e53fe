//! The items that guix-daemon's client names on its command line.
//!
//! For `guix build ITEM...` the daemon asks about one item after another, about the next when it
//! has the answer to the last, and no question tells of the next: with many items that is as many
//! round trips. But the daemon's process for a client wears the client's process number in the
//! place of its own first argument, for administrators to see, and the client's command line is
//! readable.
//!
//! What is found is a hint for what to look up early, to be followed when the daemon has asked
//! about one of the items. It may be wrong: an argument shorter than the number cuts it, and numbers
//! are used again. Then nothing is found, or what the daemon does not ask about, or, where a user
//! has planted it, what that user could as well have had the daemon ask.

use rustix::process::getppid;

use crate::format::store_path::{StoreDir, StorePath};

use super::process;

/// Between the helper and the daemon's process may be scripts that did not `exec`.
const GENERATIONS: usize = 4;

/// More are not looked up early.
const ITEMS_MAX: usize = 2000;

/// The items of `store_dir` that the client of the daemon above us names, in its order; none where
/// there is no such daemon or client.
#[must_use]
pub(crate) fn named_items(store_dir: &StoreDir) -> Vec<StorePath> {
    let client = getppid().and_then(|parent| client_of(parent.as_raw_nonzero().get()));
    let arguments = client.and_then(process::arguments).unwrap_or_default();
    let items = words(&arguments).filter_map(|word| item(word, store_dir));
    items.take(ITEMS_MAX).collect()
}

/// The client of the daemon's process among `parent` and those above it.
fn client_of(parent: i32) -> Option<i32> {
    let above = std::iter::successors(Some(parent), |&pid| process::parent(pid));
    above.take(GENERATIONS).find_map(|pid| {
        let arguments = process::arguments(pid)?;
        let mut words = words(&arguments);
        let (program, client) = (words.next()?, words.next()?);
        let is_daemon = program.rsplit(|&byte| byte == b'/').next() == Some(b"guix-daemon");
        is_daemon.then(|| str::from_utf8(client).ok()?.parse().ok())?
    })
}

fn words(arguments: &[u8]) -> impl Iterator<Item = &[u8]> {
    arguments.split(|&byte| byte == 0)
}

fn item(word: &[u8], store_dir: &StoreDir) -> Option<StorePath> {
    let word = str::from_utf8(word).ok()?;
    Some(
        store_dir
            .parse_path(word.trim_end_matches('/'))
            .ok()?
            .to_path(),
    )
}
