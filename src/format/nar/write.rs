//! The nar writer, for fixtures and round trips, and the nar of a single file.

use std::io::{self, Read, Write};

use super::name::{EntryName, SymlinkTarget};
use super::nesting::{OpenDirectories, levels_max};
use super::wire::{fused, padding};
use crate::format::store_path::Dialect;

/// Writes one nar, node by node, in the order in which [`super::NarReader`] returns them.
///
/// Only the top node has no name. Calls that would not produce a nar, such as names out of order or
/// a second top node, fail with [`io::ErrorKind::InvalidInput`].
pub struct NarWriter<W> {
    inner: W,
    directories: OpenDirectories,
    /// Whether the top node has begun.
    has_begun: bool,
}

impl<W: Write> NarWriter<W> {
    /// A writer of one nar into `inner`.
    pub fn new(inner: W) -> Self {
        Self {
            inner,
            directories: OpenDirectories::default(),
            has_begun: false,
        }
    }

    /// Begins a directory; its entries follow, then [`end_directory`](Self::end_directory).
    ///
    /// # Errors
    /// The stream fails, or no directory is possible here.
    pub fn directory(&mut self, name: Option<&EntryName>) -> io::Result<()> {
        if self.directories.depth() == levels_max(Dialect::Guix) {
            return Err(misplaced("directories are nested too deeply"));
        }

        self.begin(name)?;
        self.directories.open();
        self.inner.write_all(fused!(b"directory"))
    }

    /// Ends the innermost directory.
    ///
    /// # Errors
    /// The stream fails, or no directory is open.
    pub fn end_directory(&mut self) -> io::Result<()> {
        if self.directories.depth() == 0 {
            return Err(misplaced("no directory is open"));
        }

        self.directories.close();
        self.end()
    }

    /// Writes a regular file of `size` bytes, which `contents` has to provide exactly.
    ///
    /// # Errors
    /// Either stream fails, no file is possible here, or `contents` has another size.
    pub fn file(
        &mut self,
        name: Option<&EntryName>,
        executable: bool,
        size: u64,
        mut contents: impl Read,
    ) -> io::Result<()> {
        self.begin_file(name, executable, size)?;
        let written = io::copy(&mut contents.by_ref().take(size), &mut self.inner)?;
        if written != size || contents.read(&mut [0])? != 0 {
            return Err(misplaced("the contents are not of the size given"));
        }

        self.end_file(size)
    }

    /// Begins a regular file of `size` bytes. The caller writes them to [`stream`](Self::stream), then
    /// calls [`end_file`](Self::end_file).
    ///
    /// # Errors
    /// The stream fails, or no file is possible here.
    pub(crate) fn begin_file(
        &mut self,
        name: Option<&EntryName>,
        executable: bool,
        size: u64,
    ) -> io::Result<()> {
        self.begin(name)?;
        self.inner.write_all(regular(executable))?;
        self.inner.write_all(&size.to_le_bytes())
    }

    /// Ends a regular file of `size` bytes, all of which were written.
    ///
    /// # Errors
    /// The stream fails.
    pub(crate) fn end_file(&mut self, size: u64) -> io::Result<()> {
        self.inner.write_all(&[0; 8][..padding(size)])?;
        self.end()
    }

    /// The stream, for the contents of a file.
    pub(crate) fn stream(&mut self) -> &mut W {
        &mut self.inner
    }

    /// Writes a symbolic link.
    ///
    /// # Errors
    /// The stream fails, or no symlink is possible here.
    pub fn symlink(&mut self, name: Option<&EntryName>, target: &SymlinkTarget) -> io::Result<()> {
        self.begin(name)?;
        self.inner.write_all(fused!(b"symlink", b"target"))?;
        self.string(target.as_bytes())?;
        self.end()
    }

    /// Ends the nar and returns the stream, not flushed.
    ///
    /// # Errors
    /// The top node is missing or not ended.
    pub fn finish(self) -> io::Result<W> {
        if !self.has_begun || self.directories.depth() > 0 {
            return Err(misplaced("the top node is not complete"));
        }

        Ok(self.inner)
    }

    fn begin(&mut self, name: Option<&EntryName>) -> io::Result<()> {
        match (name, self.directories.depth()) {
            (None, 0) if !self.has_begun => {
                self.has_begun = true;
                self.inner
                    .write_all(fused!(b"nix-archive-1", b"(", b"type"))
            }
            (Some(name), 1..) => {
                if !self.directories.advance(name.as_bytes()) {
                    return Err(misplaced("an entry is out of order or repeated"));
                }
                self.inner.write_all(fused!(b"entry", b"(", b"name"))?;
                self.string(name.as_bytes())?;
                self.inner.write_all(fused!(b"node", b"(", b"type"))
            }
            _ => Err(misplaced(
                "the top node has no name, and every other node has one",
            )),
        }
    }

    fn end(&mut self) -> io::Result<()> {
        if self.directories.depth() > 0 {
            self.inner.write_all(fused!(b")", b")"))
        } else {
            self.inner.write_all(fused!(b")"))
        }
    }

    fn string(&mut self, bytes: &[u8]) -> io::Result<()> {
        let len = bytes.len() as u64;
        self.inner.write_all(&len.to_le_bytes())?;
        self.inner.write_all(bytes)?;
        self.inner.write_all(&[0; 8][..padding(len)])
    }
}

/// The bytes before the contents in the nar of a single regular file. With the contents and
/// [`file_trailer`], they are the nar whose hash is the file's name in `.links`.
#[must_use]
pub(crate) fn file_header(executable: bool, size: u64) -> Vec<u8> {
    let head = fused!(b"nix-archive-1", b"(", b"type");
    [head, regular(executable), &size.to_le_bytes()].concat()
}

/// The bytes behind the contents in the nar of a single regular file of `size` bytes.
#[must_use]
pub(crate) fn file_trailer(size: u64) -> &'static [u8] {
    const LONGEST: &[u8; 23] = b"\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0)\0\0\0\0\0\0\0";
    &LONGEST[7 - padding(size)..]
}

fn regular(executable: bool) -> &'static [u8] {
    if executable {
        fused!(b"regular", b"executable", b"", b"contents")
    } else {
        fused!(b"regular", b"contents")
    }
}

fn misplaced(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}
