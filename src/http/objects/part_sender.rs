//! The parts of one upload, each sent as soon as it is given, several at a time, while the caller makes the next ones.

use std::sync::Arc;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

use super::bucket::Bucket;
use super::multipart::{FilePart, UploadedPart};
use super::request::SendPermit;
use crate::http::error::{HttpError, HttpErrorKind};
use crate::http::s3::body_hash::BodyHash;

/// Parts of one upload that are sent at the same time. The bucket limits the requests of all uploads, and halves
/// that limit when the store is overloaded.
const PARTS_AT_A_TIME: usize = 8;

/// Sends the parts of an upload. Dropped, it sends nothing more.
pub(crate) struct PartSender {
    bucket: Arc<Bucket>,
    key: String,
    parts: UnboundedSender<FilePart>,
    task: Option<JoinHandle<Result<Vec<UploadedPart>, HttpError>>>,
}

/// Which upload parts are for, and whether they may be sent.
struct PartTarget {
    bucket: Arc<Bucket>,
    key: String,
    id: String,
    permit: SendPermit,
}

impl Bucket {
    /// Sends parts of the upload `id` of the object `key`, as long as `permit` says that they may be sent, and calls
    /// `on_stored` for each that the object store has taken.
    pub(crate) fn part_sender(
        self: &Arc<Self>,
        key: &str,
        id: &str,
        permit: SendPermit,
        on_stored: impl FnMut(&UploadedPart, &BodyHash) + Send + 'static,
    ) -> PartSender {
        let (parts, given) = unbounded_channel();
        let target = PartTarget {
            bucket: Arc::clone(self),
            key: key.to_owned(),
            id: id.to_owned(),
            permit,
        };
        let runtime = self.store.runtime.handle();
        PartSender {
            bucket: Arc::clone(self),
            key: key.to_owned(),
            parts,
            task: Some(runtime.spawn(target.send_all(given, on_stored))),
        }
    }
}

impl PartSender {
    /// Has `part` sent. After a failure nothing more is sent.
    pub(crate) fn send(&self, part: FilePart) {
        // `finish` reports the failure.
        let _ = self.parts.send(part);
    }

    /// Waits until all parts are sent.
    ///
    /// # Errors
    /// One of them cannot be sent; the object store has the others.
    pub(crate) fn finish(mut self) -> Result<Vec<UploadedPart>, HttpError> {
        // This ends the parts for the task.
        self.parts = unbounded_channel().0;
        let runtime = &self.bucket.store.runtime;
        let ended = self.task.take().map(|task| runtime.block_on(task));
        ended.and_then(Result::ok).unwrap_or_else(|| {
            let url = self.bucket.server().object_url(&self.key);
            Err(HttpError::new(&url, HttpErrorKind::Canceled))
        })
    }
}

impl Drop for PartSender {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl PartTarget {
    async fn send_all(
        self,
        mut given: UnboundedReceiver<FilePart>,
        mut on_stored: impl FnMut(&UploadedPart, &BodyHash),
    ) -> Result<Vec<UploadedPart>, HttpError> {
        let (mut under_way, mut stored) = (FuturesUnordered::new(), Vec::new());
        let (mut failure, mut is_complete) = (None, false);
        loop {
            let takes_next = failure.is_none() && !is_complete && under_way.len() < PARTS_AT_A_TIME;
            tokio::select! {
                part = given.recv(), if takes_next => match part {
                    Some(part) => under_way.push(self.send(part)),
                    None => is_complete = true,
                },
                Some(sent) = under_way.next() => match sent {
                    Ok((part, hash)) => {
                        on_stored(&part, &hash);
                        stored.push(part);
                    }
                    // What is under way is of use to a later run.
                    Err(error) => drop(failure.get_or_insert(error)),
                },
                else => return failure.map_or(Ok(stored), Err),
            }
        }
    }

    async fn send(&self, part: FilePart) -> Result<(UploadedPart, BodyHash), HttpError> {
        let hash = part.hash.clone();
        let sent = self
            .bucket
            .put_part(&self.key, &self.id, part, &self.permit);
        Ok((sent.await?, hash))
    }
}
