//! What an object store has allowed so far, which tells whether an object to which it denies access is missing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::key_source::AccessKey;
use crate::sync::lock;

/// The requests for one bucket that were allowed. Times are in seconds since 1970.
#[derive(Debug, Default)]
pub(super) struct BucketAllowance {
    is_any: AtomicBool,
    /// The session of which the end is unknown whose request was allowed last, and when.
    session: Mutex<Option<(Arc<AccessKey>, u64)>>,
}

impl BucketAllowance {
    /// A request that was signed with `key` was allowed.
    pub(super) fn note(&self, key: Option<&Arc<AccessKey>>, now: u64) {
        self.is_any.store(true, Ordering::Relaxed);
        if let Some(key) = key.filter(|key| key.may_end_at_any_time()) {
            *lock(&self.session) = Some((Arc::clone(key), now));
        }
    }

    /// Whether any request was allowed.
    pub(super) fn is_any(&self) -> bool {
        self.is_any.load(Ordering::Relaxed)
    }

    /// Whether what `key` may not read is missing, since it could read something: a session of which the end is
    /// unknown, only just now.
    pub(super) fn includes(&self, key: Option<&Arc<AccessKey>>, now: u64) -> bool {
        let Some(key) = key.filter(|key| key.may_end_at_any_time()) else {
            return self.is_any();
        };
        lock(&self.session).as_ref().is_some_and(|(allowed, at)| {
            Arc::ptr_eq(allowed, key) && now.abs_diff(*at) < SESSION_SECONDS
        })
    }
}

/// For how long a session counts as alive after a request of it was allowed.
const SESSION_SECONDS: u64 = 5;
