//! A valid item, as a collector knows it.

use crate::format::store_path::StorePath;

/// A valid item, as the database records it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GcItem {
    /// The number of its row, which no other row ever has.
    pub(super) id: i64,
    pub(crate) path: StorePath,
    /// In Unix seconds.
    pub(crate) registered_at: u64,
    /// The size of its nar in bytes; 0 if none is recorded.
    pub(crate) nar_size: u64,
}
