//! Reading nars: a pull reader over any [`BufRead`].
//!
//! Iterative, with the open directories on a list of its own, so that depth costs memory in
//! proportion to the input and never stack. Memory taken is bounded by [`super::MAX_DEPTH`]
//! names; contents are handed through and never held.

mod contents;

use std::io::{self, BufRead};

use super::{
    EntryName, MAX_DEPTH, MAX_NAME_BYTES, MAX_TARGET_BYTES, NarError, NarEvent, OpenDirectories,
    SymlinkTarget, fused, padding,
};

pub use contents::NarContents;

/// Reads one nar.
///
/// Deliberately no [`Iterator`]: call [`next`](Self::next) until it gives `None`, which alone
/// says that the nar was complete and nothing came after it; take contents in between; stop at the first
/// error. The reader never reads beyond the nar's last byte but to see that nothing is there.
pub struct NarReader<R> {
    inner: R,
    offset: u64,
    directories: OpenDirectories,
    state: State,
}

#[derive(Clone, Copy)]
enum State {
    /// Before the first byte.
    Start,
    /// An entry or the end of the innermost directory comes next.
    InDirectory,
    /// Inside the contents of a file.
    InContents { remaining: u64, padding: usize },
    /// Behind the top node.
    Complete,
    /// After an error; also while a step is under way, so that every early return ends here.
    GivenUp,
}

impl<R: BufRead> NarReader<R> {
    /// A reader of the nar that begins at the next byte of `inner`.
    pub fn new(inner: R) -> Self {
        let directories = OpenDirectories::default();
        Self {
            inner,
            offset: 0,
            directories,
            state: State::Start,
        }
    }

    /// The next event, or `None` behind the end. What is left of a file's contents is skipped.
    ///
    /// # Errors
    /// See [`NarError`]. The reader is of no use after the first one.
    #[expect(
        clippy::should_implement_trait,
        reason = "an Iterator would invite stopping early"
    )]
    pub fn next(&mut self) -> Result<Option<NarEvent>, NarError> {
        if let State::InContents { remaining, padding } = self.state {
            self.state = State::GivenUp;
            self.skip_contents(remaining, padding)?;
        }
        match std::mem::replace(&mut self.state, State::GivenUp) {
            State::Start => {
                self.fixed(fused!(b"nix-archive-1", b"(", b"type"), "the head of a nar")?;
                self.body(None).map(Some)
            }
            State::InDirectory => self.entry_or_end().map(Some),
            State::Complete => self.end().map(|()| None),
            State::InContents { .. } | State::GivenUp => Err(NarError::GivenUp),
        }
    }

    /// The contents of the file that [`next`](Self::next) has just given; empty at any other time.
    pub fn contents(&mut self) -> NarContents<'_, R> {
        NarContents { reader: self }
    }

    /// The stream, at the first byte not yet read.
    pub fn into_inner(self) -> R {
        self.inner
    }

    fn entry_or_end(&mut self) -> Result<NarEvent, NarError> {
        let offset = self.offset;
        match self.word()? {
            Some(Word::Entry) => {
                self.fixed(fused!(b"(", b"name"), "the name of an entry")?;
                let name = self.name()?;
                self.fixed(fused!(b"node", b"(", b"type"), "the node of an entry")?;
                self.body(Some(name))
            }
            Some(Word::Close) => {
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
        match self.word()? {
            Some(Word::Regular) => {
                let executable = self.executable()?;
                let size = self.length()?;
                self.state = State::InContents {
                    remaining: size,
                    padding: padding(size),
                };
                Ok(NarEvent::File {
                    name,
                    executable,
                    size,
                })
            }
            Some(Word::Symlink) => {
                self.fixed(fused!(b"target"), "the target of a symlink")?;
                let target = self.target()?;
                self.close_node()?;
                Ok(NarEvent::Symlink { name, target })
            }
            Some(Word::Directory) => {
                if self.directories.depth() == MAX_DEPTH {
                    return Err(NarError::TooDeep { offset });
                }
                self.directories.open();
                self.state = State::InDirectory;
                Ok(NarEvent::Directory { name })
            }
            _ => Err(NarError::Unexpected {
                offset,
                expected: "regular, symlink or directory",
            }),
        }
    }

    /// What stands between `regular` and the bytes of the contents.
    fn executable(&mut self) -> Result<bool, NarError> {
        let offset = self.offset;
        match self.word()? {
            Some(Word::Contents) => Ok(false),
            Some(Word::Executable) => {
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
            self.took(step);
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

    /// The end of a file or symlink, and of the entry around it if there is one.
    fn close_node(&mut self) -> Result<(), NarError> {
        if self.directories.depth() > 0 {
            self.fixed(fused!(b")", b")"), "the end of an entry")?;
        } else {
            self.fixed(fused!(b")"), "the end of the top node")?;
        }
        self.state = self.state_behind_node();
        Ok(())
    }

    fn state_behind_node(&self) -> State {
        if self.directories.depth() > 0 {
            State::InDirectory
        } else {
            State::Complete
        }
    }

    fn end(&mut self) -> Result<(), NarError> {
        match self.fill() {
            Ok(_) => Err(NarError::TrailingBytes {
                offset: self.offset,
            }),
            Err(NarError::Truncated { .. }) => {
                self.state = State::Complete;
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

    /// One string shorter than `buffer`, whose size is a multiple of eight.
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

    /// One of the words between which the grammar leaves a choice.
    fn word(&mut self) -> Result<Option<Word>, NarError> {
        let mut bytes = [0; 16];
        let len = self.length()?;
        let padded = match len {
            1..=8 => 8,
            9..=16 => 16,
            _ => return Ok(None),
        };
        self.exact(&mut bytes[..padded])?;
        Ok(Word::parse(len, bytes))
    }

    fn length(&mut self) -> Result<u64, NarError> {
        let mut bytes = [0; 8];
        self.exact(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// Takes the bytes `expected`, or reports where the run of them began.
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
            self.took(step);
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
            self.took(step);
            wanted = later;
        }
        Ok(())
    }

    /// The bytes at hand, at least one. Asks twice because a borrow cannot leave a loop that
    /// goes on after an interrupt; the second answer is what the first one left in the buffer.
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

    fn took(&mut self, bytes: usize) {
        self.inner.consume(bytes);
        self.offset += bytes as u64;
    }
}

#[derive(Clone, Copy)]
enum Word {
    Entry,
    Close,
    Regular,
    Symlink,
    Directory,
    Executable,
    Contents,
}

impl Word {
    /// The word whose string, with its padding, is `padded`.
    fn parse(len: u64, padded: [u8; 16]) -> Option<Self> {
        let (word, string): (_, &[u8]) = match len {
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
        (found == string && zeros.iter().all(|&byte| byte == 0)).then_some(word)
    }
}

fn at_most(bytes: usize, limit: u64) -> usize {
    usize::try_from(limit).map_or(bytes, |limit| bytes.min(limit))
}
