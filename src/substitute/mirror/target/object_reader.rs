//! The content of an object as a stream, and its hash.

use std::io::{self, Read};

use bytes::{Buf as _, Bytes};

use crate::format::sha256::Sha256;
use crate::http::{HttpError, NarBody};

/// The SHA-256 of all of `body`.
pub(super) fn hash_of(mut body: NarBody) -> Result<[u8; 32], HttpError> {
    let mut digest = Sha256::new();
    while let Some(chunk) = body.next_chunk()? {
        digest.update(&chunk);
    }
    Ok(digest.finish())
}

/// Reads an object.
pub(super) struct ObjectReader {
    body: NarBody,
    chunk: Bytes,
}

impl ObjectReader {
    pub(super) fn new(body: NarBody) -> Self {
        Self {
            body,
            chunk: Bytes::new(),
        }
    }
}

impl Read for ObjectReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            match self.body.next_chunk().map_err(io::Error::other)? {
                Some(chunk) => self.chunk = chunk,
                None => return Ok(0),
            }
        }
        let length = buffer.len().min(self.chunk.len());
        buffer[..length].copy_from_slice(&self.chunk[..length]);
        self.chunk.advance(length);
        Ok(length)
    }
}
