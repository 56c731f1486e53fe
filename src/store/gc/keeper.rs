//! Why an item stays in a store.

use std::path::PathBuf;

/// What keeps an item, or an item that refers to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Keeper {
    /// A link to it: a garbage collector root.
    Root(PathBuf),
    /// A temp root of the process with this file of temp roots.
    TempRoot(String),
    /// A file of it that this process uses.
    Process(u32),
    /// Another process has locked it.
    Locked,
    /// An item that was registered during the collection refers to it.
    Referrer,
    /// It was registered too recently.
    Age,
    /// The store is small enough.
    Size,
}
