//! A compressed input to which bytes can be put back, and how long its reads have blocked.

use std::io::{self, BufRead, Read};
use std::time::{Duration, Instant};

/// An input, and the bytes that were put back in front of it.
pub(in crate::codec) struct PushbackInput<R> {
    /// What was put back, with how many bytes of each part have been consumed; the part that is read first is the last
    /// element.
    front: Vec<(Vec<u8>, usize)>,
    /// Bytes that have been read and not put back.
    taken: u64,
    inner: R,
    /// Since when `waited` counts.
    since: Instant,
    waited: Duration,
}

impl<R: BufRead> PushbackInput<R> {
    pub(super) fn new(inner: R) -> Self {
        let (since, waited) = (Instant::now(), Duration::ZERO);
        Self {
            front: Vec::new(),
            taken: 0,
            inner,
            since,
            waited,
        }
    }

    /// Whether reads have blocked for more than half of the time since the last call.
    pub(super) fn was_slow(&mut self) -> bool {
        let waited = std::mem::take(&mut self.waited);
        let since = std::mem::replace(&mut self.since, Instant::now());
        waited > since.elapsed() / 2
    }

    /// How many bytes have been read and not put back.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// Puts `bytes` in front of everything else.
    pub(super) fn put_back(&mut self, bytes: Vec<u8>) {
        self.taken = self.taken.saturating_sub(bytes.len() as u64);
        if !bytes.is_empty() {
            self.front.push((bytes, 0));
        }
    }

    /// Moves input to `bytes` until these are `length` bytes; whether the input had that many.
    pub(super) fn fill(&mut self, bytes: &mut Vec<u8>, length: usize) -> io::Result<bool> {
        while bytes.len() < length {
            let available = self.fill_buf()?;
            if available.is_empty() {
                return Ok(false);
            }
            let count = available.len().min(length - bytes.len());
            bytes.extend_from_slice(&available[..count]);
            self.consume(count);
        }
        Ok(true)
    }
}

impl<R: BufRead> Read for PushbackInput<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(buffer.len());
        buffer[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}

impl<R: BufRead> BufRead for PushbackInput<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self
            .front
            .last()
            .is_some_and(|(first, consumed)| first.len() == *consumed)
        {
            self.front.pop();
        }
        match self.front.last() {
            Some((first, consumed)) => Ok(&first[*consumed..]),
            None => {
                let before = Instant::now();
                let available = self.inner.fill_buf();
                self.waited += before.elapsed();
                available
            }
        }
    }

    fn consume(&mut self, count: usize) {
        self.taken += count as u64;
        match self.front.last_mut() {
            None => self.inner.consume(count),
            Some((_, consumed)) => *consumed += count,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_back_comes_again_and_in_order() {
        let mut input = PushbackInput::new(&b"abcdef"[..]);
        let mut bytes = Vec::new();
        assert!(input.fill(&mut bytes, 4).unwrap());
        input.put_back(bytes.split_off(2));
        input.put_back(bytes);
        let mut one = [0; 1];
        input.read_exact(&mut one).unwrap();
        input.put_back(b"-".to_vec());
        input.put_back(Vec::new());
        let mut rest = String::new();
        input.read_to_string(&mut rest).unwrap();
        assert_eq!((&one, &*rest), (b"a", "-bcdef"));
        assert!(!input.fill(&mut Vec::new(), 1).unwrap());
    }

    #[test]
    fn what_is_put_back_is_not_copied_when_more_is_put_in_front() {
        let mut input = PushbackInput::new(io::empty());
        input.put_back(vec![0; 100]);
        let start = input.fill_buf().unwrap().as_ptr();
        for more in [Vec::new(), vec![1]] {
            input.read_exact(&mut [0]).unwrap();
            let count = more.len();
            input.put_back(more);
            input.read_exact(&mut vec![0; count]).unwrap();
        }
        let rest = input.fill_buf().unwrap();
        assert_eq!((rest.len(), rest.as_ptr()), (98, start.wrapping_add(2)));
    }
}
