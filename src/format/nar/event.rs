//! What a nar consists of, node by node.

use super::name::{EntryName, SymlinkTarget};

/// One step of reading a nar. Only the top node has no name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NarEvent {
    /// A directory begins; its entries follow, then its end.
    Directory {
        /// Its name in the enclosing directory.
        name: Option<EntryName>,
    },
    /// The innermost directory ends.
    DirectoryEnd,
    /// A regular file; [`NarReader::contents`](super::NarReader::contents) reads its bytes.
    File {
        /// Its name in the enclosing directory.
        name: Option<EntryName>,
        /// Whether it may be executed.
        executable: bool,
        /// The size of the contents in bytes, as declared: do not allocate memory by it.
        size: u64,
    },
    /// A symbolic link.
    Symlink {
        /// Its name in the enclosing directory.
        name: Option<EntryName>,
        /// Where it points.
        target: SymlinkTarget,
    },
}
