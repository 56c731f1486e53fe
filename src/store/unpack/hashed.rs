//! The nar's hash, taken of the bytes as they are read.
//!
//! A file's own hash can be taken along: its bytes are then hashed for the nar and for `.links` in
//! step, while they are in the processor's cache anyway.

use std::io::{self, BufRead, Read};

use bytes::Bytes;

use crate::format::hash::NarHash;
use crate::format::nar;
use crate::format::sha256::Sha256;

/// A nar that arrives in buffers.
pub(crate) trait Chunks {
    /// The next bytes; none at the end. They may be held on to, but of those given out before
    /// only one chunk is when the next one is asked for, apart from what is being written.
    ///
    /// # Errors
    /// The nar breaks off.
    fn next_chunk(&mut self) -> io::Result<Bytes>;
}

impl<C: Chunks + ?Sized> Chunks for &mut C {
    fn next_chunk(&mut self) -> io::Result<Bytes> {
        (**self).next_chunk()
    }
}

/// The digest of the nar bytes that went by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NarContent {
    /// SHA-256 over all of them.
    pub(super) hash: NarHash,
    /// Their number.
    pub(super) size: u64,
}

/// A reader that hashes what is taken from it.
pub(super) struct Hashed<R> {
    inner: R,
    chunk: Bytes,
    /// How many chunks there have been.
    chunks: u64,
    /// How much of the chunk has been taken,
    taken: usize,
    /// and how much of that the hash knows: it gets few long runs, not many words.
    hashed: usize,
    hash: Sha256,
    size: u64,
}

impl<R: Chunks> Hashed<R> {
    pub(super) fn new(inner: R) -> Self {
        Self {
            inner,
            chunk: Bytes::new(),
            chunks: 0,
            taken: 0,
            hashed: 0,
            hash: Sha256::new(),
            size: 0,
        }
    }

    /// The next bytes of the chunk at hand, at most `max`; none at the end.
    fn next_bytes(&mut self, max: usize) -> io::Result<Bytes> {
        let count = self.fill_buf()?.len().min(max);
        let bytes = self.chunk.slice(self.taken..self.taken + count);
        self.consume(count);
        Ok(bytes)
    }

    /// The same, and `file` hashes them too.
    fn next_bytes_of(&mut self, file: &mut Sha256, max: usize) -> io::Result<Bytes> {
        self.fill_buf()?;
        self.catch_up();
        let bytes = self.next_bytes(max)?;
        self.hash.update_both(&bytes, file, &bytes);
        self.hashed = self.taken;
        Ok(bytes)
    }

    /// Hash and size of all that was taken.
    pub(super) fn finish(mut self) -> NarContent {
        self.catch_up();
        NarContent {
            hash: NarHash::from_bytes(self.hash.finish()),
            size: self.size,
        }
    }

    fn catch_up(&mut self) {
        self.hash.update(&self.chunk[self.hashed..self.taken]);
        self.hashed = self.taken;
    }
}

impl<R: Chunks> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

impl<R: Chunks> BufRead for Hashed<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.taken == self.chunk.len() {
            self.catch_up();
            (self.taken, self.hashed) = (0, 0);
            // Given back before the next one is waited for: it may be that very buffer.
            self.chunk = Bytes::new();
            self.chunk = self.inner.next_chunk()?;
            self.chunks += 1;
        }
        Ok(&self.chunk[self.taken..])
    }

    fn consume(&mut self, count: usize) {
        self.taken += count;
        self.size += count as u64;
    }
}

/// The contents of one file, with its hash for `.links` if that is wanted.
pub(super) struct FileContents<'a, R> {
    contents: nar::NarContents<'a, Hashed<R>>,
    size: u64,
    hash: Option<Sha256>,
}

impl<'a, R: Chunks> FileContents<'a, R> {
    /// Of a file of `size` bytes, not hashed.
    pub(super) fn new(contents: nar::NarContents<'a, Hashed<R>>, size: u64) -> Self {
        Self {
            contents,
            size,
            hash: None,
        }
    }

    /// The same with its hash.
    pub(super) fn hashed(self, executable: bool) -> Self {
        let mut hash = Sha256::new();
        hash.update(&nar::file_header(executable, self.size));
        Self {
            hash: Some(hash),
            ..self
        }
    }

    /// The next bytes at hand; none at the end.
    pub(super) fn next_bytes(&mut self) -> io::Result<Bytes> {
        match &mut self.hash {
            Some(file) => self
                .contents
                .next_bytes_by(|nar, max| nar.next_bytes_of(file, max)),
            None => self.contents.next_bytes_by(Hashed::next_bytes),
        }
    }

    /// The number of the chunk that the last bytes were in, from 1.
    pub(super) fn chunk(&self) -> u64 {
        self.contents.inner().chunks
    }

    /// The hash of the file, all of which has been read; `None` when it was not wanted.
    pub(super) fn digest(self) -> Option<[u8; 32]> {
        let mut hash = self.hash?;
        hash.update(nar::file_trailer(self.size));
        Some(hash.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::nar::{EntryName, NarEvent, NarReader, NarWriter};
    use crate::format::store_path::Dialect;
    use proptest::prelude::*;
    use sha2::Digest as _;

    /// Bytes that arrive in chunks of the sizes given, and then all at once.
    struct Pieces(Vec<u8>, std::vec::IntoIter<usize>);

    impl Chunks for Pieces {
        fn next_chunk(&mut self) -> io::Result<Bytes> {
            let size = self.1.next().unwrap_or(usize::MAX).min(self.0.len());
            Ok(self.0.drain(..size).collect())
        }
    }

    proptest! {
        /// Both hashes are those of the bytes, wherever chunks end, and whichever stream is hashed in step.
        #[test]
        fn nar_and_files_have_their_hashes(
            files in proptest::collection::vec((0usize..3000, any::<bool>(), any::<bool>()), 0..8),
            chunks in proptest::collection::vec(1usize..1000, 0..40),
        ) {
            let byte = |at: usize| (at / 3).to_le_bytes()[0];
            let contents = |size: usize| (0..size).map(byte).collect::<Vec<u8>>();
            let mut nar = Vec::new();
            let mut writer = NarWriter::new(&mut nar);
            writer.directory(None).unwrap();
            for (number, &(size, executable, _)) in files.iter().enumerate() {
                let name = EntryName::new(format!("{number}").as_bytes());
                let bytes = contents(size);
                writer.file(name.as_ref(), executable, size as u64, &bytes[..]).unwrap();
            }
            writer.end_directory().unwrap();
            writer.finish().unwrap();
            let mut reader = NarReader::new(Hashed::new(Pieces(nar.clone(), chunks.into_iter())), Dialect::Guix);
            let mut left = files.iter();
            while let Some(event) = reader.next().unwrap() {
                let NarEvent::File { executable, size, .. } = event else { continue };
                let &(_, _, is_hashed) = left.next().unwrap();
                let mut file = FileContents::new(reader.contents(), size);
                if is_hashed {
                    file = file.hashed(executable);
                }
                let mut bytes = Vec::new();
                loop {
                    let next = file.next_bytes().unwrap();
                    if next.is_empty() {
                        break;
                    }
                    bytes.extend_from_slice(&next);
                }
                prop_assert_eq!(&bytes, &contents(usize::try_from(size).unwrap()));
                let header = nar::file_header(executable, size);
                let alone = [&header[..], &bytes, nar::file_trailer(size)];
                let expected = is_hashed.then(|| sha2::Sha256::digest(alone.concat()).into());
                prop_assert_eq!(file.digest(), expected);
            }
            let content = reader.into_inner().finish();
            let hash = NarHash::from_bytes(sha2::Sha256::digest(&nar).into());
            prop_assert_eq!(content, NarContent { hash, size: nar.len() as u64 });
        }
    }
}
