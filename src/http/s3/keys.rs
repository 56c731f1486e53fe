//! Access keys of an object store: given, or requested from a service and renewed before they expire.
//!
//! A failure is kept for [`FAILURE_LIFETIME`], so that a service that does not answer is not waited for again with
//! every connection.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::MutexGuard;
use tokio::time::Instant;
use tracing::debug;

use super::key_source::{AccessKey, AccessKeyError, AccessKeySource};
use crate::sync::lock;

/// Provides the access keys from one source to all servers that use it.
#[derive(Debug)]
pub(crate) struct AccessKeys {
    source: AccessKeySource,
    state: Mutex<AccessKeyState>,
    /// Held while a service is asked.
    requesting: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct AccessKeyState {
    key: Option<Arc<AccessKey>>,
    failed: Option<(Instant, AccessKeyError)>,
    /// An object store says that the key has expired. It is used until there is another one: without a
    /// signature, a request would be denied.
    is_expired: bool,
    /// There is no service, and thus no key.
    is_anonymous: bool,
}

impl AccessKeys {
    pub(crate) fn new(source: AccessKeySource) -> Self {
        let mut state = AccessKeyState::default();
        match &source {
            AccessKeySource::Anonymous => state.is_anonymous = true,
            AccessKeySource::Fixed(key) => state.key = Some(Arc::new(key.clone())),
            _ => {}
        }
        Self {
            source,
            state: Mutex::new(state),
            requesting: tokio::sync::Mutex::default(),
        }
    }

    /// The source.
    pub(crate) fn source(&self) -> &AccessKeySource {
        &self.source
    }

    /// The file with the token for the service, if that needs one.
    pub(super) fn token_file(&self) -> Option<&Path> {
        self.source.token_file()
    }

    /// The key to sign with; none: requests are not signed.
    pub(super) fn current(&self) -> Option<Arc<AccessKey>> {
        lock(&self.state).key.clone()
    }

    /// Waits until no other task requests a key, and keeps others from it as long as the guard lives.
    pub(super) async fn reserve(&self) -> MutexGuard<'_, ()> {
        self.requesting.lock().await
    }

    /// Keeps what a service answered; `None`: there is no service, and requests are not signed.
    pub(super) fn set(
        &self,
        requested: Result<Option<AccessKey>, AccessKeyError>,
    ) -> Result<(), AccessKeyError> {
        let mut state = lock(&self.state);
        match requested {
            Ok(Some(key)) => {
                debug!(expires = key.expires, "access keys received");
                (state.key, state.failed) = (Some(Arc::new(key)), None);
                state.is_expired = false;
                Ok(())
            }
            Ok(None) => {
                debug!("no access keys: requests are not signed");
                state.is_anonymous = true;
                Ok(())
            }
            Err(error) => {
                state.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// Whether the current key, if there is any, is valid for a while at `now`, in seconds since 1970.
    ///
    /// # Errors
    /// A service has failed a moment ago.
    pub(super) fn is_ready(&self, now: u64) -> Result<bool, AccessKeyError> {
        let state = lock(&self.state);
        let key = state.key.as_ref();
        let is_valid = key.is_some_and(|key| {
            matches!(self.source, AccessKeySource::Fixed(_))
                || key
                    .expires
                    .is_none_or(|at| at > now.saturating_add(RENEWED_BEFORE))
        });
        if (is_valid && !state.is_expired) || state.is_anonymous {
            return Ok(true);
        }
        match &state.failed {
            Some((at, error)) if at.elapsed() < FAILURE_LIFETIME => Err(error.clone()),
            _ => Ok(false),
        }
    }

    /// Notes that an object store says that `key` has expired. Whether another one can be had.
    pub(super) fn note_expired(&self, id: &str) -> bool {
        if matches!(
            self.source,
            AccessKeySource::Anonymous | AccessKeySource::Fixed(_)
        ) {
            return false;
        }
        let mut state = lock(&self.state);
        state.is_expired |= state.key.as_ref().is_some_and(|key| key.id == id);
        true
    }
}

/// Seconds before they expire in which keys are renewed.
const RENEWED_BEFORE: u64 = 300;

/// How long a service that failed is left alone.
const FAILURE_LIFETIME: Duration = Duration::from_secs(30);
