//! Nars that are on their way before their turn comes.
//!
//! Who fetches ahead, and how it knows what for, is its own business; a transfer only asks
//! whether somebody has begun with a nar. Nothing is believed of what comes this way that
//! would not be believed of the server.

use std::io;

use bytes::Bytes;

use crate::format::store_path::StorePath;

use super::choose::Candidate;

/// The compressed bytes of a nar that somebody has begun to fetch.
pub trait Begun: Send {
    /// Bytes of the file, when the server says so.
    fn content_length(&self) -> Option<u64>;

    /// Waits for more; `None` at the end.
    ///
    /// # Errors
    /// Whoever began cannot go on. The nar has to be fetched again.
    fn next_chunk(&mut self) -> io::Result<Option<Bytes>>;
}

/// Fetches nars ahead.
pub trait Ahead: Send + Sync {
    /// The nar of `item`, if it is on its way, and which of `candidates` it is. Whether or
    /// not it is, nobody fetches it ahead any more.
    fn take(&self, item: &StorePath, candidates: &[Candidate]) -> Option<(usize, Box<dyn Begun>)>;
}
