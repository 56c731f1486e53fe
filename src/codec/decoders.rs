//! Decoders that are used again, and the memory that all of them may take together.
//!
//! A decoder's window is the largest thing a transfer allocates. Contexts are kept from one
//! nar to the next, so that their windows are not given back to the system and faulted in
//! again for each of thousands of nars; and a nar whose decoder does not fit in the budget waits
//! until others are done. One that alone is larger than the budget runs alone.

use std::io::{self, BufRead, Read};
use std::sync::{Condvar, Mutex, PoisonError};

use zstd::zstd_safe::DCtx;

use crate::format::compression::Compression;

use super::decode::decoder;
use super::memory::needed_bytes;

/// A larger context is not kept.
const KEPT_BYTES_MAX: usize = 10 << 20;

/// Hands out decoders.
pub struct Decoders {
    budget_bytes: u64,
    used_bytes: Mutex<u64>,
    given_back: Condvar,
    idle: Mutex<Vec<DCtx<'static>>>,
}

impl Decoders {
    /// Decoders that take `budget_bytes` together.
    #[must_use]
    pub fn new(budget_bytes: u64) -> Self {
        Self {
            budget_bytes,
            used_bytes: Mutex::default(),
            given_back: Condvar::new(),
            idle: Mutex::default(),
        }
    }

    /// Gives `consume` the bytes that `input` stands for. Waits until there is memory for it.
    ///
    /// # Errors
    /// The input's first bytes cannot be read, or the decoder cannot be set up.
    pub fn decode<T>(
        &self,
        compression: Compression,
        mut input: impl BufRead + Send,
        consume: impl FnOnce(&mut dyn Read) -> T,
    ) -> io::Result<T> {
        let _share = self.share(needed_bytes(compression, input.fill_buf()?));
        if compression != Compression::Zstd {
            return Ok(consume(&mut *decoder(compression, input)?));
        }
        let mut context = self.lock_idle().pop().unwrap_or_else(DCtx::create);
        let consumed = consume(&mut zstd::Decoder::with_context(input, &mut context));
        if context.sizeof() <= KEPT_BYTES_MAX {
            self.lock_idle().push(context);
        }
        Ok(consumed)
    }

    fn lock_idle(&self) -> std::sync::MutexGuard<'_, Vec<DCtx<'static>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn share(&self, bytes: u64) -> Share<'_> {
        let bytes = bytes.min(self.budget_bytes);
        let mut used = self.used_bytes.lock().unwrap_or_else(PoisonError::into_inner);
        while *used + bytes > self.budget_bytes {
            used = self.given_back.wait(used).unwrap_or_else(PoisonError::into_inner);
        }
        *used += bytes;
        Share { decoders: self, bytes }
    }
}

/// A part of the budget, given back when dropped.
struct Share<'a> {
    decoders: &'a Decoders,
    bytes: u64,
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        *self.decoders.used_bytes.lock().unwrap_or_else(PoisonError::into_inner) -= self.bytes;
        self.decoders.given_back.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn a_context_is_fit_for_use_after_a_broken_stream() {
        let decoders = Decoders::new(1 << 20);
        let good = zstd::encode_all(&[5; 100_000][..], 3).unwrap();
        for _ in 0..3 {
            let broken = &good[..good.len() - 3];
            let read = decoders
                .decode(Compression::Zstd, broken, |reader| io::copy(reader, &mut io::sink()));
            assert!(read.unwrap().is_err());
            let mut bytes = Vec::new();
            let read = |reader: &mut dyn Read| reader.read_to_end(&mut bytes);
            decoders.decode(Compression::Zstd, &good[..], read).unwrap().unwrap();
            assert_eq!(bytes, [5; 100_000]);
        }
        assert_eq!(decoders.lock_idle().len(), 1);
    }

    #[test]
    fn no_more_run_than_fit_and_a_huge_one_runs_alone() {
        let decoders = Decoders::new(20 << 20);
        let running = AtomicUsize::new(0);
        // Unknown input counts 16 MiB, so each of these fills the budget alone.
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let decoded = decoders.decode(Compression::Zstd, &b"unknown"[..], |_| {
                        assert_eq!(running.fetch_add(1, Ordering::SeqCst), 0);
                        std::thread::yield_now();
                        running.fetch_sub(1, Ordering::SeqCst);
                    });
                    decoded.unwrap();
                });
            }
        });
        assert_eq!(*decoders.used_bytes.lock().unwrap(), 0);
    }
}
