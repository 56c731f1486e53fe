//! What the requests to an object store call on their way.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::http::error::HttpError;

/// Says, before each attempt to send a request, whether it may be sent.
#[derive(Clone)]
pub(crate) struct SendPermit(Arc<dyn Fn() -> bool + Send + Sync>);

impl SendPermit {
    pub(crate) fn new(may_send: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(may_send))
    }

    pub(super) fn may_send(&self) -> bool {
        (self.0)()
    }
}

impl fmt::Debug for SendPermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SendPermit")
    }
}

/// Is called when a request has failed for a while and is repeated: with the failure, and for how long it has failed.
#[derive(Clone)]
pub(crate) struct RetryObserver(Arc<ObserveRetry>);

type ObserveRetry = dyn Fn(&HttpError, Duration) + Send + Sync;

impl RetryObserver {
    pub(crate) fn new(observe: impl Fn(&HttpError, Duration) + Send + Sync + 'static) -> Self {
        Self(Arc::new(observe))
    }

    pub(super) fn observe(&self, error: &HttpError, failing_for: Duration) {
        (self.0)(error, failing_for);
    }
}

impl fmt::Debug for RetryObserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RetryObserver")
    }
}
