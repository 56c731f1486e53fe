//! A file that is read for a decoder. Whether it could not be read or has wrong bytes, a decoder does not tell reliably.

use std::io::{self, BufRead, Read};

/// A file, and why it could not be read.
pub(super) struct WatchedFile<R> {
    inner: R,
    /// The first failure.
    pub(super) failure: Option<io::Error>,
}

impl<R: BufRead> WatchedFile<R> {
    pub(super) fn new(inner: R) -> Self {
        let failure = None;
        Self { inner, failure }
    }
}

impl<R: BufRead> BufRead for WatchedFile<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        match self.inner.fill_buf() {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                let kind = error.kind();
                self.failure.get_or_insert(error);
                Err(kind.into())
            }
            filled => filled,
        }
    }

    fn consume(&mut self, count: usize) {
        self.inner.consume(count);
    }
}

impl<R: BufRead> Read for WatchedFile<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Cursor};

    use super::*;

    /// Fails at its end.
    struct Broken;

    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("the disk is broken"))
        }
    }

    #[test]
    fn the_first_failure_is_kept() {
        let mut file = WatchedFile::new(BufReader::new(Cursor::new(b"abc").chain(Broken)));
        assert!(file.read_to_end(&mut Vec::new()).is_err());
        assert_eq!(file.failure.unwrap().to_string(), "the disk is broken");

        let mut file = WatchedFile::new(&b"abc"[..]);
        assert_eq!(file.read_to_end(&mut Vec::new()).unwrap(), 3);
        assert!(file.failure.is_none());
    }
}
