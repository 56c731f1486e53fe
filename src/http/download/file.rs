//! `file:` servers: a directory with the same files that a server would give out.
//!
//! Plain files are read, and symbolic links to them; the user named the directory, so what is in
//! it is believed as much as a server is. Anything else (a pipe, a device) could block for good
//! and counts as absent.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use url::Url;

use super::nar::{BodyHead, BodyStatus};
use crate::http::error::HttpErrorKind;

/// A nar that is read where the caller is: no thread, no queue.
#[derive(Debug)]
pub(in crate::http) struct FileBody {
    file: File,
    left: u64,
    announced: u64,
}

impl FileBody {
    pub(in crate::http) fn next_chunk(&mut self) -> Result<Option<Bytes>, HttpErrorKind> {
        if self.left == 0 {
            return Ok(None);
        }
        let most = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(CHUNK_BYTES);
        let mut chunk = BytesMut::zeroed(most);
        let count = loop {
            match self.file.read(&mut chunk) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => break outcome.map_err(|error| HttpErrorKind::File(Arc::new(error)))?,
            }
        };
        if count == 0 {
            let received = self.announced - self.left;
            return Err(HttpErrorKind::Truncated {
                received,
                expected: self.announced,
            });
        }
        chunk.truncate(count);
        self.left -= count as u64;
        Ok(Some(chunk.freeze()))
    }
}

/// Opens the file at `url`, or a part of it.
pub(in crate::http) fn open_nar(
    url: &Url,
    range: Option<(u64, Option<u64>)>,
) -> Result<(BodyHead, FileBody), HttpErrorKind> {
    let (mut file, length) = open(url)?;
    let (start, end) = match range {
        Some((start, end)) => (start, end.unwrap_or(length).min(length)),
        None => (0, length),
    };
    if start > end {
        return Err(HttpErrorKind::WrongRange);
    }
    file.seek(SeekFrom::Start(start))
        .map_err(|error| HttpErrorKind::File(Arc::new(error)))?;
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
        content_length: Some(announced),
        validator: None,
        accepts_ranges: true,
        url: None,
    };
    Ok((
        head,
        FileBody {
            file,
            left: announced,
            announced,
        },
    ))
}

/// Whether the directory at `url` is there: a file that is missing from it says something about
/// an item only then.
pub(in crate::http) fn find_directory(url: &Url) -> Result<(), HttpErrorKind> {
    let fail = |error: io::Error| HttpErrorKind::Directory(Arc::new(error));
    let path: PathBuf = url
        .to_file_path()
        .map_err(|()| HttpErrorKind::BadRedirect(url.to_string()))?;
    match path.metadata() {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(fail(io::ErrorKind::NotADirectory.into())),
        Err(error) => Err(fail(error)),
    }
}

/// The length of the file at `url`.
pub(in crate::http) fn length(url: &Url) -> Result<u64, HttpErrorKind> {
    open(url).map(|(_, length)| length)
}

/// A small file as a whole; none: there is no such file.
pub(in crate::http) fn read_small(
    url: &Url,
    limit_bytes: u64,
) -> Result<Option<Vec<u8>>, HttpErrorKind> {
    let (file, length) = match open(url) {
        Ok(opened) => opened,
        Err(error) if error.class() == crate::http::error::Class::Absent => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = Vec::with_capacity(usize::try_from(length.min(limit_bytes)).unwrap_or(0));
    file.take(limit_bytes + 1)
        .read_to_end(&mut text)
        .map_err(|error| HttpErrorKind::File(Arc::new(error)))?;
    if text.len() as u64 > limit_bytes {
        return Err(HttpErrorKind::TooLarge { limit_bytes });
    }
    Ok(Some(text))
}

fn open(url: &Url) -> Result<(File, u64), HttpErrorKind> {
    let fail = |error: io::Error| HttpErrorKind::File(Arc::new(error));
    let path: PathBuf = url
        .to_file_path()
        .map_err(|()| HttpErrorKind::BadRedirect(url.to_string()))?;
    // Looked at before it is opened: opening a pipe would wait for a writer.
    let metadata = path.metadata().map_err(fail)?;
    if !metadata.is_file() {
        return Err(fail(io::Error::new(
            io::ErrorKind::NotFound,
            "not a plain file",
        )));
    }
    let file = File::open(&path).map_err(fail)?;
    Ok((file, metadata.len()))
}

/// Bytes read at once.
const CHUNK_BYTES: usize = 256 << 10;
