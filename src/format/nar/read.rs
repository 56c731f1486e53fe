//! The nar reader: a pull reader over any [`BufRead`].
//!
//! It is iterative, with a list of the open directories, so that nesting uses memory in proportion
//! to the input and no stack. Memory is bounded by [`levels_max`] names; file contents are
//! passed through and never buffered.

use std::io::{self, BufRead, Read};

use bytes::Bytes;

use super::error::NarError;
use super::event::NarEvent;
use super::input::NarInput;
use super::name::{EntryName, MAX_NAME_BYTES, MAX_TARGET_BYTES, SymlinkTarget};
use super::nesting::{OpenDirectories, levels_max};
use super::wire::{Keyword, fused, padding};
use crate::format::store_path::Dialect;

/// Reads one nar.
///
/// It is deliberately not an [`Iterator`]. Call [`next`](Self::next) until it returns `None`: only
/// then the nar was complete and no bytes follow it. Read the contents of files in between, and
/// stop at the first error. Behind the nar's last byte, the reader only checks that the input ends.
pub struct NarReader<R> {
    input: NarInput<R>,
    directories: OpenDirectories,
    levels_max: usize,
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
    /// A reader of the nar that begins at the next byte of `inner`, for a store of `dialect`.
    pub fn new(inner: R, dialect: Dialect) -> Self {
        Self {
            input: NarInput {
                stream: inner,
                offset: 0,
            },
            directories: OpenDirectories::default(),
            levels_max: levels_max(dialect),
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
                self.input
                    .fixed(fused!(b"nix-archive-1", b"(", b"type"), "the head of a nar")?;
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
        self.input.stream
    }

    fn entry_or_end(&mut self) -> Result<NarEvent, NarError> {
        let offset = self.input.offset;
        match self.input.keyword()? {
            Some(Keyword::Entry) => {
                self.input
                    .fixed(fused!(b"(", b"name"), "the name of an entry")?;
                let name = self.name()?;
                self.input
                    .fixed(fused!(b"node", b"(", b"type"), "the node of an entry")?;
                self.body(Some(name))
            }
            Some(Keyword::Close) => {
                self.directories.close();
                if self.directories.depth() > 0 {
                    self.input.fixed(fused!(b")"), "the end of an entry")?;
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
        let offset = self.input.offset;
        let levels_max = self.levels_max;
        if self.directories.depth() >= levels_max {
            return Err(NarError::TooDeep { levels_max, offset });
        }

        match self.input.keyword()? {
            Some(Keyword::Regular) => {
                let executable = self.executable()?;
                let size = self.input.length()?;
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
                self.input
                    .fixed(fused!(b"target"), "the target of a symlink")?;
                let target = self.target()?;
                self.close_node()?;
                Ok(NarEvent::Symlink { name, target })
            }
            Some(Keyword::Directory) => {
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
        let offset = self.input.offset;
        match self.input.keyword()? {
            Some(Keyword::Contents) => Ok(false),
            Some(Keyword::Executable) => {
                self.input.fixed(
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
            let available = self.input.fill()?.len();
            let step = at_most(available, remaining);
            self.input.consume(step);
            remaining -= step as u64;
        }

        let offset = self.input.offset;
        let mut zeros = [0; 8];
        self.input.exact(&mut zeros[..padding])?;
        if zeros != [0; 8] {
            return Err(NarError::Padding { offset });
        }

        self.close_node()
    }

    /// Reads the end of a file or symlink, and of the entry around it if there is one.
    fn close_node(&mut self) -> Result<(), NarError> {
        if self.directories.depth() > 0 {
            self.input
                .fixed(fused!(b")", b")"), "the end of an entry")?;
        } else {
            self.input.fixed(fused!(b")"), "the end of the top node")?;
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
        match self.input.fill() {
            Ok(_) => Err(NarError::TrailingBytes {
                offset: self.input.offset,
            }),
            Err(NarError::Truncated { .. }) => {
                self.state = NarReaderState::Complete;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn name(&mut self) -> Result<EntryName, NarError> {
        let offset = self.input.offset;
        let mut buffer = [0; MAX_NAME_BYTES + 1];
        let bytes = self.input.string(&mut buffer, "an entry name")?;
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
        let offset = self.input.offset;
        let mut buffer = [0; MAX_TARGET_BYTES + 1];
        let bytes = self.input.string(&mut buffer, "a symlink target")?;
        SymlinkTarget::new(bytes).ok_or_else(|| NarError::Target {
            target: bytes.to_owned(),
            offset,
        })
    }
}

/// Reads the contents of one file, and not a byte more. If the stream ends before the contents do,
/// reading fails with an error that `?` converts back to a [`NarError`].
pub struct NarContents<'r, R> {
    reader: &'r mut NarReader<R>,
}

impl<R> NarContents<'_, R> {
    fn remaining(&self) -> u64 {
        match self.reader.state {
            NarReaderState::InContents { remaining, .. } => remaining,
            _ => 0,
        }
    }

    fn advance(&mut self, bytes: usize) {
        if let NarReaderState::InContents { remaining, .. } = &mut self.reader.state {
            *remaining -= bytes as u64;
            self.reader.input.offset += bytes as u64;
        }
    }

    /// The underlying stream.
    #[must_use]
    pub(crate) fn inner(&self) -> &R {
        &self.reader.input.stream
    }

    /// The next bytes, which `take` reads from the stream, at most as many as its second argument;
    /// empty at the end of the contents.
    ///
    /// # Errors
    /// The stream fails or ends early.
    pub(crate) fn next_bytes_by(
        &mut self,
        take: impl FnOnce(&mut R, usize) -> io::Result<Bytes>,
    ) -> io::Result<Bytes> {
        let wanted = at_most(usize::MAX, self.remaining());
        if wanted == 0 {
            return Ok(Bytes::new());
        }

        let bytes = take(&mut self.reader.input.stream, wanted)?;
        if bytes.is_empty() {
            return Err(NarError::Truncated {
                offset: self.reader.input.offset,
            }
            .into());
        }

        self.advance(bytes.len());
        Ok(bytes)
    }
}

impl<R: BufRead> Read for NarContents<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = at_most(buffer.len(), self.remaining());
        if wanted == 0 {
            return Ok(0);
        }

        let read = self.reader.input.stream.read(&mut buffer[..wanted])?;
        if read == 0 {
            return Err(NarError::Truncated {
                offset: self.reader.input.offset,
            }
            .into());
        }

        self.advance(read);
        Ok(read)
    }
}

fn at_most(bytes: usize, limit: u64) -> usize {
    usize::try_from(limit).map_or(bytes, |limit| bytes.min(limit))
}
