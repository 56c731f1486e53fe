//! The memory that all decoders may take together.
//!
//! There are two kinds of shares. Each nar that is being decoded has one for its decoder, and
//! waits until there is memory for it; a decoder larger than the whole budget runs alone. Decoding
//! ahead of a reader ([`super::ahead`]) only takes what is free, and only while a single nar is
//! being decoded: several nars keep the cores busy without it.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use crate::sync::{lock, wait};

/// The limits of what all decoders may take together, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct DecoderMemory {
    /// For the decoders of the nars that are being read.
    pub streams_bytes: u64,
    /// For those and for what is decoded ahead of its reader.
    pub all_bytes: u64,
}

/// Grants shares of the memory.
pub(super) struct MemoryBudget {
    limits: DecoderMemory,
    used: Mutex<MemoryUse>,
    released: Condvar,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct MemoryUse {
    streams_bytes: u64,
    ahead_bytes: u64,
    /// Decoders that have a share.
    streams: usize,
    /// Decoders that wait for one.
    waiting: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ShareKind {
    Stream,
    Ahead,
}

/// A part of the budget, released when dropped.
pub(super) struct MemoryShare {
    budget: Arc<MemoryBudget>,
    kind: ShareKind,
    bytes: u64,
}

impl MemoryBudget {
    pub(super) fn new(limits: DecoderMemory) -> Arc<Self> {
        Arc::new(Self {
            limits,
            used: Mutex::default(),
            released: Condvar::new(),
        })
    }

    /// The share of a decoder that needs `bytes`. Waits until that much is free.
    pub(super) fn stream(self: &Arc<Self>, bytes: u64) -> MemoryShare {
        let DecoderMemory {
            streams_bytes,
            all_bytes,
        } = self.limits;
        let bytes = bytes.min(streams_bytes);
        let mut used = self.lock();
        used.waiting += 1;

        while used.streams_bytes + bytes > streams_bytes
            || used.ahead_bytes > 0 && used.streams_bytes + used.ahead_bytes + bytes > all_bytes
        {
            used = wait(&self.released, used);
        }
        used.waiting -= 1;
        used.streams += 1;
        used.streams_bytes += bytes;

        MemoryShare {
            budget: Arc::clone(self),
            kind: ShareKind::Stream,
            bytes,
        }
    }

    /// A share of `bytes` for decoding ahead, if that much is free and no other nar is being decoded.
    pub(super) fn ahead(self: &Arc<Self>, bytes: u64) -> Option<MemoryShare> {
        let mut used = self.lock();
        let all = used
            .streams_bytes
            .checked_add(used.ahead_bytes)?
            .checked_add(bytes)?;
        if used.is_shared() || all > self.limits.all_bytes {
            return None;
        }

        used.ahead_bytes += bytes;
        Some(MemoryShare {
            budget: Arc::clone(self),
            kind: ShareKind::Ahead,
            bytes,
        })
    }

    /// Whether other nars are being decoded, or wait for memory.
    pub(super) fn is_shared(&self) -> bool {
        self.lock().is_shared()
    }

    /// Whether every share has been released.
    #[cfg(test)]
    pub(super) fn is_unused(&self) -> bool {
        *self.lock() == MemoryUse::default()
    }

    fn lock(&self) -> MutexGuard<'_, MemoryUse> {
        lock(&self.used)
    }
}

impl MemoryUse {
    fn is_shared(&self) -> bool {
        self.streams > 1 || self.waiting > 0
    }

    fn bytes_of(&mut self, kind: ShareKind) -> &mut u64 {
        match kind {
            ShareKind::Stream => &mut self.streams_bytes,
            ShareKind::Ahead => &mut self.ahead_bytes,
        }
    }
}

impl MemoryShare {
    /// Enlarges a share for decoding ahead to `bytes`, if that much is free.
    pub(super) fn grow(&mut self, bytes: u64) -> bool {
        let more = self.budget.ahead(bytes.saturating_sub(self.bytes));
        let Some(mut more) = more else { return false };
        self.bytes += std::mem::take(&mut more.bytes);
        true
    }

    /// Releases all but `bytes`.
    pub(super) fn shrink(&mut self, bytes: u64) {
        let unneeded = self.bytes.saturating_sub(bytes);
        self.bytes -= unneeded;
        *self.budget.lock().bytes_of(self.kind) -= unneeded;
        self.budget.released.notify_all();
    }
}

impl Drop for MemoryShare {
    fn drop(&mut self) {
        self.shrink(0);
        if self.kind == ShareKind::Stream {
            self.budget.lock().streams -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget() -> Arc<MemoryBudget> {
        MemoryBudget::new(DecoderMemory {
            streams_bytes: 10,
            all_bytes: 20,
        })
    }

    #[test]
    fn ahead_takes_what_is_free_and_only_alone() {
        let budget = budget();
        let first = budget.stream(8);
        assert!(budget.ahead(13).is_none(), "too much");
        assert!(budget.ahead(u64::MAX).is_none());
        let mut ahead = budget.ahead(12).unwrap();
        assert!(budget.ahead(1).is_none(), "nothing is left");
        ahead.shrink(5);
        let second = budget.stream(2);
        assert!(budget.ahead(1).is_none(), "there is another stream");
        drop((first, second));
        drop(budget.ahead(15).unwrap());
        drop(ahead);
        assert!(budget.is_unused());
    }

    #[test]
    fn a_stream_waits_for_what_is_decoded_ahead_and_is_preferred() {
        let budget = budget();
        let ahead = budget.ahead(15).unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| drop(budget.stream(10)));
            while !budget.is_shared() {
                std::thread::yield_now();
            }
            assert!(budget.ahead(1).is_none(), "a stream waits for memory");
            assert!(!waiting.is_finished());
            drop(ahead);
        });
        assert!(budget.is_unused());
    }
}
