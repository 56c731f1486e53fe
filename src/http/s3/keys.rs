//! Access keys of an object store: given, or requested from a service and renewed before they expire.
//!
//! A failure is kept for [`FAILURE_LIFETIME`], so that a service that does not answer is not waited for again with
//! every connection. While it lasts, the last key is used as long as it is valid; requests that were signed are
//! never sent without a signature.

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

    /// Keeps what a service answered at `now`, in seconds since 1970; `None`: there is no service, and requests are not
    /// signed.
    ///
    /// # Errors
    /// The service failed, and there is no valid key from before.
    pub(super) fn set(
        &self,
        requested: Result<Option<AccessKey>, AccessKeyError>,
        now: u64,
    ) -> Result<(), AccessKeyError> {
        let mut state = lock(&self.state);
        let failure = match requested {
            Ok(Some(key)) => {
                debug!(expires = key.expires, "access keys received");
                (state.key, state.failed) = (Some(Arc::new(key)), None);
                state.is_expired = false;
                return Ok(());
            }
            Ok(None) if state.key.is_none() => {
                debug!("no access keys: requests are not signed");
                state.is_anonymous = true;
                return Ok(());
            }
            Ok(None) => AccessKeyError::NotRenewed,
            Err(error) => error,
        };
        debug!(reason = %failure, "access keys are not renewed");
        state.failed = Some((Instant::now(), failure.clone()));
        if state.has_valid_key(now) {
            Ok(())
        } else {
            Err(failure)
        }
    }

    /// Whether there is nothing to request at `now`, in seconds since 1970: the current key, if there is any, is valid for
    /// a while, or a service has failed a moment ago and the key is still valid.
    ///
    /// # Errors
    /// A service has failed a moment ago, and there is no valid key.
    pub(super) fn is_ready(&self, now: u64) -> Result<bool, AccessKeyError> {
        let state = lock(&self.state);
        if state.is_anonymous || state.has_valid_key(now.saturating_add(RENEWED_BEFORE)) {
            return Ok(true);
        }
        match &state.failed {
            Some((at, error)) if at.elapsed() < FAILURE_LIFETIME => {
                if state.has_valid_key(now) {
                    Ok(true)
                } else {
                    Err(error.clone())
                }
            }
            _ => Ok(false),
        }
    }

    /// Notes that an object store says that `key` has expired. Whether another one can be had, or is there already.
    pub(super) fn note_expired(&self, key: &Arc<AccessKey>) -> bool {
        if matches!(
            self.source,
            AccessKeySource::Anonymous | AccessKeySource::Fixed(_)
        ) {
            return false;
        }
        let mut state = lock(&self.state);
        let current = state.key.as_ref();
        state.is_expired |= current.is_some_and(|current| Arc::ptr_eq(current, key));
        true
    }
}

impl AccessKeyState {
    /// Whether there is a key that does not expire before `time`, in seconds since 1970.
    fn has_valid_key(&self, time: u64) -> bool {
        let key = self.key.as_ref().filter(|_| !self.is_expired);
        key.is_some_and(|key| !key.is_expired_at(time))
    }
}

/// Seconds before they expire in which keys are renewed.
const RENEWED_BEFORE: u64 = 300;

/// How long a service that failed is left alone.
const FAILURE_LIFETIME: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use url::Url;

    use super::*;
    use crate::format::secret::Secret;

    fn key(id: &str, expires: u64) -> AccessKey {
        AccessKey {
            id: id.to_owned(),
            secret: Secret::new("Sesame"),
            session_token: None,
            expires: Some(expires),
        }
    }

    /// Keys of a service, of which the first one expires at 1000.
    fn keys() -> AccessKeys {
        let endpoint = Url::parse("http://h").unwrap();
        let keys = AccessKeys::new(AccessKeySource::InstanceMetadata { endpoint });
        keys.set(Ok(Some(key("one", 1000))), 0).unwrap();
        keys
    }

    fn current(keys: &AccessKeys) -> Option<String> {
        keys.current().map(|key| key.id.clone())
    }

    #[test]
    fn a_key_is_renewed_before_it_expires_and_used_until_then() {
        let failure = AccessKeyError::Response {
            service: "a service",
            cause: super::super::key_source::KeyResponseError::Malformed,
        };
        for failed in [Err(failure), Ok(None)] {
            let keys = keys();
            assert!(keys.is_ready(699).unwrap());
            assert!(!keys.is_ready(700).unwrap());

            keys.set(failed, 700).unwrap();
            assert!(keys.is_ready(999).unwrap());
            assert_eq!(current(&keys).as_deref(), Some("one"));
            // From then on nothing is sent without a signature.
            keys.is_ready(1000).unwrap_err();

            keys.set(Ok(Some(key("two", 2000))), 1000).unwrap();
            assert!(keys.is_ready(1000).unwrap());
            assert_eq!(current(&keys).as_deref(), Some("two"));
        }
    }

    #[test]
    fn a_failed_renewal_of_an_expired_key_is_a_failure() {
        let keys = keys();
        let error = keys.set(Ok(None), 1000).unwrap_err();
        assert!(error.to_string().contains("no longer"), "{error}");
        keys.is_ready(1000).unwrap_err();

        let (keys, old) = (self::keys(), self::keys().current().unwrap());
        assert!(keys.note_expired(&old));
        assert!(keys.is_ready(0).unwrap(), "it is the key from before");
        assert!(keys.note_expired(&keys.current().unwrap()));
        assert!(!keys.is_ready(0).unwrap());
        keys.set(Ok(None), 0).unwrap_err();
    }

    #[test]
    fn without_a_service_requests_are_not_signed() {
        let endpoint = Url::parse("http://h").unwrap();
        let keys = AccessKeys::new(AccessKeySource::InstanceMetadata { endpoint });
        assert!(!keys.is_ready(0).unwrap());
        keys.set(Ok(None), 0).unwrap();
        assert!(keys.is_ready(0).unwrap());
        assert_eq!(current(&keys), None);
    }
}
