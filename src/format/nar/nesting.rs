//! Which directories of a nar are open, and how many may be.

use crate::format::store_path::Dialect;

/// How many levels the tree of a nar may have in a store of `dialect`, its top node included.
///
/// Nix neither restores nor dumps a tree of more than 64 levels: it could not verify the item. Guix
/// has no limit; a path of 4096 levels is too long for a single system call.
#[must_use]
pub const fn levels_max(dialect: Dialect) -> usize {
    match dialect {
        Dialect::Guix => 4096,
        Dialect::Nix => 64,
    }
}

/// The open directories and the last name in each, in one flat buffer, so that an entry costs no
/// allocation.
#[derive(Default)]
pub(super) struct OpenDirectories {
    names: Vec<u8>,
    /// Where in `names` each directory's last name begins; it ends where the next begins.
    starts: Vec<usize>,
}

impl OpenDirectories {
    pub(super) fn depth(&self) -> usize {
        self.starts.len()
    }

    pub(super) fn open(&mut self) {
        self.starts.push(self.names.len());
    }

    pub(super) fn close(&mut self) {
        if let Some(start) = self.starts.pop() {
            self.names.truncate(start);
        }
    }

    /// Makes `name` the last one of the innermost directory; whether it sorts behind the previous one.
    #[must_use]
    pub(super) fn advance(&mut self, name: &[u8]) -> bool {
        let start = self.starts.last().copied().unwrap_or(0);
        // No name is empty, so the first one always sorts behind the empty slice.
        let is_behind = self.names[start..] < *name;
        self.names.truncate(start);
        self.names.extend_from_slice(name);
        is_behind
    }
}
