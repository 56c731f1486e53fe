//! The nar reader: a pull reader over any [`BufRead`].
//!
//! It is iterative, with a list of the open directories, so that nesting uses memory in proportion
//! to the input and no stack. Memory is bounded by [`super::MAX_DEPTH`] names; file contents are
//! passed through and never buffered.

mod contents;

use std::io::{self, BufRead};

use super::{
    EntryName, MAX_DEPTH, MAX_NAME_BYTES, MAX_TARGET_BYTES, NarError, NarEvent, OpenDirectories,
    SymlinkTarget, fused, padding,
};

pub use contents::NarContents;

/// Reads one nar.
///
/// It is deliberately not an [`Iterator`]. Call [`next`](Self::next) until it returns `None`: only
/// then the nar was complete and no bytes follow it. Read the contents of files in between, and
/// stop at the first error. Behind the nar's last byte, the reader only checks that the input ends.
pub struct NarReader<R> {
    inner: R,
    offset: u64,
    directories: OpenDirectories,
    state: NarReaderState,
}

#[derive(Clone, Copy)]
enum NarReaderState {
    /// Before the first byte.
    Start,
    /// An entry or the end of the innermost directory comes next.
    InDirectory,
    /// Inside the contents of a file.
    InContents { remaining: u64, padding: usize },
    /// Behind the top node.
    Complete,
    /// After an error, and while `next` runs, so that every early return leads here.
    Failed,
}

impl<R: BufRead> NarReader<R> {
    /// A reader of the nar that begins at the next byte of `inner`.
    pub fn new(inner: R) -> Self {
        let directories = OpenDirectories::default();
        Self {
            inner,
            offset: 0,
            directories,
            state: NarReaderState::Start,
        }
    }

    /// The next event, or `None` at the end. Contents that have not been read are skipped.
    ///
    /// # Errors
    /// See [`NarError`]. After the first error, every call fails.
    #[expect(
        clippy::should_implement_trait,
        reason = "an Iterator would invite stopping early"
    )]
    pub fn next(&mut self) -> Result<Option<NarEvent>, NarError> {
        if let NarReaderState::InContents { remaining, padding } = self.state {
            self.state = NarReaderState::Failed;
            self.skip_contents(remaining, padding)?;
        }
        match std::mem::replace(&mut self.state, NarReaderState::Failed) {
            NarReaderState::Start => {
                self.fixed(fused!(b"nix-archive-1", b"(", b"type"), "the head of a nar")?;
                self.body(None).map(Some)
            }
            NarReaderState::InDirectory => self.entry_or_end().map(Some),
            NarReaderState::Complete => self.end().map(|()| None),
            NarReaderState::InContents { .. } | NarReaderState::Failed => {
                Err(NarError::ReaderFailed)
            }
        }
    }

    /// The contents of the file that [`next`](Self::next) has just returned; empty at other times.
    pub fn contents(&mut self) -> NarContents<'_, R> {
        NarContents { reader: self }
    }

    /// The stream, at the first byte that has not been read.
    pub fn into_inner(self) -> R {
        self.inner
    }

    fn entry_or_end(&mut self) -> Result<NarEvent, NarError> {
        let offset = self.offset;
        match self.keyword()? {
            Some(Keyword::Entry) => {
                self.fixed(fused!(b"(", b"name"), "the name of an entry")?;
                let name = self.name()?;
                self.fixed(fused!(b"node", b"(", b"type"), "the node of an entry")?;
                self.body(Some(name))
            }
            Some(Keyword::Close) => {
                self.directories.close();
                if self.directories.depth() > 0 {
                    self.fixed(fused!(b")"), "the end of an entry")?;
                }
                self.state = self.state_behind_node();
                Ok(NarEvent::DirectoryEnd)
            }
            _ => Err(NarError::Unexpected {
                offset,
                expected: "an entry or the directory's end",
            }),
        }
    }

    fn body(&mut self, name: Option<EntryName>) -> Result<NarEvent, NarError> {
        let offset = self.offset;
        match self.keyword()? {
            Some(Keyword::Regular) => {
                let executable = self.executable()?;
                let size = self.length()?;
                self.state = NarReaderState::InContents {
                    remaining: size,
                    padding: padding(size),
                };
                Ok(NarEvent::File {
                    name,
                    executable,
                    size,
                })
            }
            Some(Keyword::Symlink) => {
                self.fixed(fused!(b"target"), "the target of a symlink")?;
                let target = self.target()?;
                self.close_node()?;
                Ok(NarEvent::Symlink { name, target })
            }
            Some(Keyword::Directory) => {
                if self.directories.depth() == MAX_DEPTH {
                    return Err(NarError::TooDeep { offset });
                }
                self.directories.open();
                self.state = NarReaderState::InDirectory;
                Ok(NarEvent::Directory { name })
            }
            _ => Err(NarError::Unexpected {
                offset,
                expected: "regular, symlink or directory",
            }),
        }
    }

    /// Reads what is between `regular` and the length of the contents.
    fn executable(&mut self) -> Result<bool, NarError> {
        let offset = self.offset;
        match self.keyword()? {
            Some(Keyword::Contents) => Ok(false),
            Some(Keyword::Executable) => {
                self.fixed(
                    fused!(b"", b"contents"),
                    "the contents of an executable file",
                )?;
                Ok(true)
            }
            _ => Err(NarError::Unexpected {
                offset,
                expected: "executable or contents",
            }),
        }
    }

    fn skip_contents(&mut self, mut remaining: u64, padding: usize) -> Result<(), NarError> {
        while remaining > 0 {
            let available = self.fill()?.len();
            let step = at_most(available, remaining);
            self.consume(step);
            remaining -= step as u64;
        }

        let offset = self.offset;
        let mut zeros = [0; 8];
        self.exact(&mut zeros[..padding])?;
        if zeros != [0; 8] {
            return Err(NarError::Padding { offset });
        }

        self.close_node()
    }

    /// Reads the end of a file or symlink, and of the entry around it if there is one.
    fn close_node(&mut self) -> Result<(), NarError> {
        if self.directories.depth() > 0 {
            self.fixed(fused!(b")", b")"), "the end of an entry")?;
        } else {
            self.fixed(fused!(b")"), "the end of the top node")?;
        }
        self.state = self.state_behind_node();
        Ok(())
    }

    fn state_behind_node(&self) -> NarReaderState {
        if self.directories.depth() > 0 {
            NarReaderState::InDirectory
        } else {
            NarReaderState::Complete
        }
    }

    fn end(&mut self) -> Result<(), NarError> {
        match self.fill() {
            Ok(_) => Err(NarError::TrailingBytes {
                offset: self.offset,
            }),
            Err(NarError::Truncated { .. }) => {
                self.state = NarReaderState::Complete;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn name(&mut self) -> Result<EntryName, NarError> {
        let offset = self.offset;
        let mut buffer = [0; MAX_NAME_BYTES + 1];
        let bytes = self.string(&mut buffer, "an entry name")?;
        let name = EntryName::new(bytes).ok_or_else(|| NarError::Name {
            name: bytes.to_owned(),
            offset,
        })?;
        if !self.directories.advance(bytes) {
            return Err(NarError::Order { name, offset });
        }

        Ok(name)
    }

    fn target(&mut self) -> Result<SymlinkTarget, NarError> {
        let offset = self.offset;
        let mut buffer = [0; MAX_TARGET_BYTES + 1];
        let bytes = self.string(&mut buffer, "a symlink target")?;
        SymlinkTarget::new(bytes).ok_or_else(|| NarError::Target {
            target: bytes.to_owned(),
            offset,
        })
    }

    /// Reads a string that is shorter than `buffer`, whose size is a multiple of eight.
    fn string<'b>(
        &mut self,
        buffer: &'b mut [u8],
        what: &'static str,
    ) -> Result<&'b [u8], NarError> {
        let offset = self.offset;
        let len = self.length()?;
        let fits = usize::try_from(len).ok().filter(|&len| len < buffer.len());
        let Some(size) = fits else {
            return Err(NarError::TooLong { what, len, offset });
        };

        let padded = &mut buffer[..size + padding(len)];
        self.exact(padded)?;
        let (string, zeros) = padded.split_at(size);
        if zeros.iter().any(|&byte| byte != 0) {
            return Err(NarError::Padding {
                offset: self.offset - zeros.len() as u64,
            });
        }

        Ok(string)
    }

    /// Reads one of the strings between which the grammar leaves a choice.
    fn keyword(&mut self) -> Result<Option<Keyword>, NarError> {
        let mut bytes = [0; 16];
        let len = self.length()?;
        let padded = match len {
            1..=8 => 8,
            9..=16 => 16,
            _ => return Ok(None),
        };
        self.exact(&mut bytes[..padded])?;

        Ok(Keyword::parse(len, bytes))
    }

    fn length(&mut self) -> Result<u64, NarError> {
        let mut bytes = [0; 8];
        self.exact(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// Reads the bytes `expected`; an error names the offset at which they should begin.
    fn fixed(&mut self, mut expected: &[u8], what: &'static str) -> Result<(), NarError> {
        let offset = self.offset;
        while !expected.is_empty() {
            let available = self.fill()?;
            let step = available.len().min(expected.len());
            let (now, later) = expected.split_at(step);
            if available[..step] != *now {
                return Err(NarError::Unexpected {
                    offset,
                    expected: what,
                });
            }

            self.consume(step);
            expected = later;
        }

        Ok(())
    }

    fn exact(&mut self, mut wanted: &mut [u8]) -> Result<(), NarError> {
        while !wanted.is_empty() {
            let available = self.fill()?;
            let step = available.len().min(wanted.len());
            let (now, later) = wanted.split_at_mut(step);
            now.copy_from_slice(&available[..step]);
            self.consume(step);
            wanted = later;
        }
        Ok(())
    }

    /// The buffered bytes, at least one. Calls `fill_buf` twice because a borrow cannot leave a loop
    /// that continues after an interrupt; the second call returns what the first one buffered.
    fn fill(&mut self) -> Result<&[u8], NarError> {
        loop {
            match self.inner.fill_buf() {
                Ok([]) => {
                    return Err(NarError::Truncated {
                        offset: self.offset,
                    });
                }
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(self.inner.fill_buf()?)
    }

    fn consume(&mut self, bytes: usize) {
        self.inner.consume(bytes);
        self.offset += bytes as u64;
    }
}

#[derive(Clone, Copy)]
enum Keyword {
    Entry,
    Close,
    Regular,
    Symlink,
    Directory,
    Executable,
    Contents,
}

impl Keyword {
    /// The keyword whose string, with its padding, is `padded`.
    fn parse(len: u64, padded: [u8; 16]) -> Option<Self> {
        let (keyword, string): (_, &[u8]) = match len {
            1 => (Self::Close, b")"),
            5 => (Self::Entry, b"entry"),
            7 if padded[0] == b'r' => (Self::Regular, b"regular"),
            7 => (Self::Symlink, b"symlink"),
            8 => (Self::Contents, b"contents"),
            9 => (Self::Directory, b"directory"),
            10 => (Self::Executable, b"executable"),
            _ => return None,
        };
        let (found, zeros) = padded.split_at(string.len());
        (found == string && zeros.iter().all(|&byte| byte == 0)).then_some(keyword)
    }
}

fn at_most(bytes: usize, limit: u64) -> usize {
    usize::try_from(limit).map_or(bytes, |limit| bytes.min(limit))
}
