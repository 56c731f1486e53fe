//! What is known of an object of a bucket.

use crate::http::{ListedObject, PutCondition};

/// An object that the bucket has.
pub(super) struct StoredObject {
    pub(super) size: u64,
    pub(super) etag: Option<String>,
    /// When it was written, in seconds since 1970; `None` for what this process has written, which is new.
    pub(super) modified: Option<u64>,
}

impl StoredObject {
    /// The key of an object of a list, and what the list says of it.
    pub(super) fn of_listed(object: ListedObject) -> (String, Self) {
        let stored = Self {
            size: object.size,
            etag: object.etag,
            modified: object.modified,
        };
        (object.key, stored)
    }

    /// What has to hold for an object to be written in place of what is `stored`.
    pub(super) fn condition(stored: Option<&Self>) -> PutCondition {
        match stored.map(|stored| &stored.etag) {
            None => PutCondition::Absent,
            Some(None) => PutCondition::Always,
            Some(Some(etag)) => PutCondition::Unchanged(etag.clone()),
        }
    }
}
