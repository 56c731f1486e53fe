//! The memory that all decoders may take together.
//!
//! There are two kinds of shares. Each nar that is being decoded has one for its decoder, and
//! waits until there is memory for it. It keeps the share while it waits for its server, so large
//! decoders leave a part of the budget to ordinary ones: otherwise a single slow nar would hold up
//! all others. A decoder larger than the rest of the budget is the only large one. Decoding
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
        let bytes = bytes.min(self.limit_of(bytes));
        let mut used = self.wait_for(bytes, self.limits.all_bytes);
        used.streams += 1;
        drop(used);

        MemoryShare {
            budget: Arc::clone(self),
            kind: ShareKind::Stream,
            bytes,
        }
    }

    /// What decoders may take together for one that needs `bytes` to start.
    fn limit_of(&self, bytes: u64) -> u64 {
        let all = self.limits.streams_bytes;
        let ordinary = all / 3;
        if bytes > ordinary {
            all - ordinary
        } else {
            all
        }
    }

    /// Takes `bytes` for a decoder when that much is free, of `all_bytes` with what is decoded ahead.
    fn wait_for(&self, bytes: u64, all_bytes: u64) -> MutexGuard<'_, MemoryUse> {
        let limit = self.limit_of(bytes);
        let mut used = self.lock();
        used.waiting += 1;

        while used.streams_bytes + bytes > limit
            || used.ahead_bytes > 0 && used.streams_bytes + used.ahead_bytes + bytes > all_bytes
        {
            used = wait(&self.released, used);
        }
        used.waiting -= 1;
        used.streams_bytes += bytes;
        used
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

    /// What all decoders of nars that are being read take.
    #[cfg(test)]
    pub(super) fn used_by_streams(&self) -> u64 {
        self.lock().streams_bytes
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
    /// Its size.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Enlarges the share of a decoder to `bytes`, when that much is free. It is released until then:
    /// two decoders could otherwise wait for each other.
    pub(super) fn require(&mut self, bytes: u64) {
        let bytes = bytes.min(self.budget.limit_of(bytes));
        if bytes > self.bytes {
            self.shrink(0);
            // Some of what is decoded ahead may be of the same nar, and is only released by its reader.
            drop(self.budget.wait_for(bytes, u64::MAX));
            self.bytes = bytes;
        }
    }

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
        let first = budget.stream(7);
        assert!(budget.ahead(14).is_none(), "too much");
        assert!(budget.ahead(u64::MAX).is_none());
        let mut ahead = budget.ahead(13).unwrap();
        assert!(budget.ahead(1).is_none(), "nothing is left");
        ahead.shrink(5);
        let second = budget.stream(2);
        assert!(budget.ahead(1).is_none(), "there is another stream");
        drop((first, second));
        drop(budget.ahead(15).unwrap());
        drop(ahead);
        assert!(budget.is_unused());
    }

    /// Until another thread waits for memory.
    fn wait_until_shared(budget: &MemoryBudget) {
        while budget.lock().waiting == 0 {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_large_decoder_leaves_memory_to_ordinary_ones_only() {
        let budget = budget();
        let large = budget.stream(1000);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| drop(budget.stream(4)));
            wait_until_shared(&budget);
            drop(budget.stream(3));
            assert!(!waiting.is_finished());
            drop(large);
        });
        assert!(budget.is_unused());
    }

    #[test]
    fn decoders_that_turn_out_to_be_larger_do_not_wait_for_each_other() {
        let budget = budget();
        let (mut first, mut second) = (budget.stream(3), budget.stream(3));
        let ahead = budget.ahead(14);
        assert!(ahead.is_none(), "there are two streams");
        first.require(2);
        assert_eq!(first.bytes(), 3, "it is not made smaller");
        std::thread::scope(|scope| {
            scope.spawn(move || {
                first.require(7);
                assert_eq!(first.bytes(), 7);
            });
            wait_until_shared(&budget);
            second.require(1000);
            assert_eq!(second.bytes(), 7);
            drop(second);
        });
        assert!(budget.is_unused());
    }

    #[test]
    fn a_decoder_does_not_wait_for_what_is_decoded_ahead_of_it() {
        let budget = budget();
        let mut stream = budget.stream(1);
        let ahead = budget.ahead(19).unwrap();
        stream.require(7);
        drop((ahead, stream));
        assert!(budget.is_unused());
    }

    #[test]
    fn a_stream_waits_for_what_is_decoded_ahead_and_is_preferred() {
        let budget = budget();
        let ahead = budget.ahead(15).unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| drop(budget.stream(10)));
            wait_until_shared(&budget);
            assert!(budget.ahead(1).is_none(), "a stream waits for memory");
            assert!(!waiting.is_finished());
            drop(ahead);
        });
        assert!(budget.is_unused());
    }
}
