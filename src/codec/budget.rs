//! The memory that all decoders may take together.
//!
//! Two kinds of shares. A nar that is decoded has one for its decoder and waits until there is
//! memory for it; one that alone is larger than the budget runs alone. What is decoded ahead
//! of a reader ([`super::ahead`]) only takes what is free, and only while a single nar is being
//! decoded: with more of them the cores have work enough, and memory stays what it was.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use crate::sync::{lock, wait};

/// How much decoders may take.
#[derive(Debug, Clone, Copy)]
pub struct DecoderMemory {
    /// All decoders that stream.
    pub streams_bytes: u64,
    /// Those, and what is decoded ahead of its reader.
    pub all_bytes: u64,
}

/// Hands out shares.
pub(super) struct MemoryBudget {
    limits: DecoderMemory,
    used: Mutex<Used>,
    given_back: Condvar,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Used {
    streams_bytes: u64,
    ahead_bytes: u64,
    /// Shares of streams.
    streams: usize,
    /// Streams that wait for theirs.
    waiting: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Stream,
    Ahead,
}

/// A part of the budget, given back when dropped.
pub(super) struct Share {
    budget: Arc<MemoryBudget>,
    kind: Kind,
    bytes: u64,
}

impl MemoryBudget {
    pub(super) fn new(limits: DecoderMemory) -> Arc<Self> {
        Arc::new(Self {
            limits,
            used: Mutex::default(),
            given_back: Condvar::new(),
        })
    }

    /// A share for a decoder that streams; waits until there is one.
    pub(super) fn stream(self: &Arc<Self>, bytes: u64) -> Share {
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
            used = wait(&self.given_back, used);
        }
        used.waiting -= 1;
        used.streams += 1;
        used.streams_bytes += bytes;
        Share {
            budget: Arc::clone(self),
            kind: Kind::Stream,
            bytes,
        }
    }

    /// A share to decode ahead with, if that much is free and nobody else needs it.
    pub(super) fn ahead(self: &Arc<Self>, bytes: u64) -> Option<Share> {
        let mut used = self.lock();
        let all = used
            .streams_bytes
            .checked_add(used.ahead_bytes)?
            .checked_add(bytes)?;
        if used.is_shared() || all > self.limits.all_bytes {
            return None;
        }
        used.ahead_bytes += bytes;
        Some(Share {
            budget: Arc::clone(self),
            kind: Kind::Ahead,
            bytes,
        })
    }

    /// Whether other nars are being decoded, or wait for memory.
    pub(super) fn is_shared(&self) -> bool {
        self.lock().is_shared()
    }

    /// Whether every share has been given back.
    #[cfg(test)]
    pub(super) fn is_unused(&self) -> bool {
        *self.lock() == Used::default()
    }

    fn lock(&self) -> MutexGuard<'_, Used> {
        lock(&self.used)
    }
}

impl Used {
    fn is_shared(&self) -> bool {
        self.streams > 1 || self.waiting > 0
    }

    fn bytes_of(&mut self, kind: Kind) -> &mut u64 {
        match kind {
            Kind::Stream => &mut self.streams_bytes,
            Kind::Ahead => &mut self.ahead_bytes,
        }
    }
}

impl Share {
    /// Makes it `bytes` large, if that much is free; only for what is decoded ahead.
    pub(super) fn grow(&mut self, bytes: u64) -> bool {
        let more = self.budget.ahead(bytes.saturating_sub(self.bytes));
        let Some(mut more) = more else { return false };
        self.bytes += std::mem::take(&mut more.bytes);
        true
    }

    /// Gives back all but `bytes`.
    pub(super) fn shrink(&mut self, bytes: u64) {
        let unneeded = self.bytes.saturating_sub(bytes);
        self.bytes -= unneeded;
        *self.budget.lock().bytes_of(self.kind) -= unneeded;
        self.budget.given_back.notify_all();
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.shrink(0);
        if self.kind == Kind::Stream {
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
            assert!(budget.ahead(1).is_none(), "somebody waits");
            assert!(!waiting.is_finished());
            drop(ahead);
        });
        assert!(budget.is_unused());
    }
}
