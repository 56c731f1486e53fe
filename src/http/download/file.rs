//! Files of `file:` servers: a directory with the same files that a server would serve.
//!
//! Plain files are read, and symbolic links to them; the user named the directory, so its content is
//! trusted as much as a server's. Anything else (a pipe, a device) could block forever and counts
//! as absent.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use url::Url;

use super::nar::{BodyHead, BodyStatus, ByteRange, RangeSupport};
use crate::http::content_encoding::ContentEncodings;
use crate::http::error::HttpErrorKind;

/// A nar that is read by the caller's own thread: no task, no queue.
#[derive(Debug)]
pub(super) struct FileBody {
    file: File,
    left: u64,
    announced: u64,
}

impl FileBody {
    /// The next bytes; none: the file, or the requested range of it, is complete.
    pub(super) fn next_chunk(&mut self) -> Result<Option<Bytes>, HttpErrorKind> {
        if self.left == 0 {
            return Ok(None);
        }
        let size = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(CHUNK_BYTES);
        let mut chunk = BytesMut::zeroed(size);
        let count = loop {
            match self.file.read(&mut chunk) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => break outcome.map_err(file_failure)?,
            }
        };
        if count == 0 {
            return Err(HttpErrorKind::Truncated {
                received: self.announced - self.left,
                expected: self.announced,
            });
        }

        chunk.truncate(count);
        self.left -= count as u64;
        Ok(Some(chunk.freeze()))
    }
}

/// Opens the file at `url`, or a range of it.
pub(super) fn open_nar(
    url: &Url,
    range: Option<ByteRange>,
) -> Result<(BodyHead, FileBody), HttpErrorKind> {
    let (mut file, length) = open(url)?;
    let (start, end) = range.unwrap_or((0, None));
    let end = end.unwrap_or(length).min(length);
    if start > end {
        return Err(HttpErrorKind::WrongRange);
    }
    file.seek(SeekFrom::Start(start)).map_err(file_failure)?;

    let announced = end - start;
    let status = match range {
        Some(_) => BodyStatus::Partial {
            start,
            total: Some(length),
        },
        None => BodyStatus::Full,
    };
    let head = BodyHead {
        status,
        body_bytes: Some(announced),
        ends_with_bytes: false,
        ends_with_connection: false,
        encodings: ContentEncodings::default(),
        content_length: Some(announced),
        validator: None,
        ranges: RangeSupport::Announced,
        url: None,
    };
    let body = FileBody {
        file,
        left: announced,
        announced,
    };
    Ok((head, body))
}

/// The length of the file at `url`.
pub(super) fn length(url: &Url) -> Result<u64, HttpErrorKind> {
    open(url).map(|(_, length)| length)
}

/// Opens the plain file at `url`; with its length.
pub(in crate::http) fn open(url: &Url) -> Result<(File, u64), HttpErrorKind> {
    let path = local_path(url)?;
    // The type is checked before the file is opened: opening a pipe would wait for a writer.
    let metadata = path.metadata().map_err(file_failure)?;
    if !metadata.is_file() {
        let error = io::Error::new(io::ErrorKind::NotFound, "not a plain file");
        return Err(file_failure(error));
    }
    let file = File::open(&path).map_err(file_failure)?;
    Ok((file, metadata.len()))
}

/// The path that a `file:` URL names.
pub(in crate::http) fn local_path(url: &Url) -> Result<PathBuf, HttpErrorKind> {
    url.to_file_path()
        .map_err(|()| HttpErrorKind::bad_redirect(url.as_str()))
}

/// Reading a file failed.
pub(in crate::http) fn file_failure(error: io::Error) -> HttpErrorKind {
    HttpErrorKind::File(Arc::new(error))
}

/// Bytes read at once.
const CHUNK_BYTES: usize = 256 << 10;
