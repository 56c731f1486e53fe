//! zstd contexts kept from one nar to the next, so that their windows are not given back to the
//! system and faulted in again for each of thousands of nars.

use std::sync::{Mutex, MutexGuard};

use zstd::zstd_safe::DCtx;

use crate::sync::lock;

/// A larger context is not kept.
const KEPT_BYTES_MAX: usize = 10 << 20;

/// Contexts that nobody uses.
#[derive(Default)]
pub(super) struct Contexts(Mutex<Vec<DCtx<'static>>>);

impl Contexts {
    /// A context, used before or new.
    pub(super) fn take(&self) -> DCtx<'static> {
        self.lock().pop().unwrap_or_else(DCtx::create)
    }

    /// Keeps `context` for the next nar.
    pub(super) fn keep(&self, context: DCtx<'static>) {
        if context.sizeof() <= KEPT_BYTES_MAX {
            self.lock().push(context);
        }
    }

    /// Frees them all: their memory is needed otherwise.
    pub(super) fn clear(&self) {
        self.lock().clear();
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<DCtx<'static>>> {
        lock(&self.0)
    }
}
