//! The parts of one upload, each sent as soon as it is given, several at a time, while the caller makes the next ones.

use std::sync::{Arc, Mutex};

use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::bucket::Bucket;
use super::callbacks::SendPermit;
use super::multipart::{FilePart, UploadedPart};
use crate::http::error::{HttpError, HttpErrorKind};
use crate::http::s3::body_hash::BodyHash;
use crate::sync::lock;

/// Parts of one upload that are sent at the same time. The bucket limits the requests of all uploads, and halves
/// that limit when the store is overloaded.
const PARTS_AT_A_TIME: usize = 8;

/// Sends the parts of an upload. Dropped, it sends nothing more.
pub(crate) struct PartSender {
    upload: Arc<PartUpload>,
    /// One for each part; it ends with the part, if the object store has taken it.
    tasks: Vec<JoinHandle<Option<UploadedPart>>>,
}

/// Which upload parts are for, and whether they may be sent.
struct PartUpload {
    bucket: Arc<Bucket>,
    key: String,
    id: String,
    permit: SendPermit,
    slots: Semaphore,
    failure: Mutex<Option<HttpError>>,
    on_stored: Mutex<StoredPartObserver>,
}

/// Is called for each part that the object store has taken, with its hash.
pub(crate) type StoredPartObserver = Box<dyn FnMut(&UploadedPart, &BodyHash) + Send>;

impl Bucket {
    /// Sends parts of the upload `id` of the object `key`, as long as `permit` says that they may be sent.
    pub(crate) fn part_sender(
        self: &Arc<Self>,
        key: &str,
        id: &str,
        permit: SendPermit,
        on_stored: StoredPartObserver,
    ) -> PartSender {
        PartSender {
            upload: Arc::new(PartUpload {
                bucket: Arc::clone(self),
                key: key.to_owned(),
                id: id.to_owned(),
                permit,
                slots: Semaphore::new(PARTS_AT_A_TIME),
                failure: Mutex::default(),
                on_stored: Mutex::new(on_stored),
            }),
            tasks: Vec::new(),
        }
    }
}

impl PartSender {
    /// Has `part` sent. After a failure nothing more is sent.
    pub(crate) fn send(&mut self, part: FilePart) {
        let upload = Arc::clone(&self.upload);
        let runtime = self.upload.bucket.store.runtime.handle();
        let task = runtime.spawn(async move { upload.send(part).await });
        self.tasks.push(task);
    }

    /// Whether a part could not be sent: then the object cannot be had by this upload.
    pub(crate) fn has_failed(&self) -> bool {
        lock(&self.upload.failure).is_some()
    }

    /// Waits until all parts are sent, or none is under way.
    ///
    /// # Errors
    /// One of them cannot be sent; the object store has the others that were under way.
    pub(crate) fn finish(mut self) -> Result<Vec<UploadedPart>, HttpError> {
        let runtime = &self.upload.bucket.store.runtime;
        let tasks = std::mem::take(&mut self.tasks).into_iter();
        // What is under way after a failure is of use to a later run.
        let ended: Vec<_> = tasks.map(|task| runtime.block_on(task)).collect();
        if let Some(failure) = lock(&self.upload.failure).take() {
            return Err(failure);
        }
        let sent = ended.into_iter().map(|ended| ended.ok().flatten());
        sent.collect::<Option<_>>().ok_or_else(|| {
            let url = self.upload.bucket.server().object_url(&self.upload.key);
            HttpError::new(&url, HttpErrorKind::Canceled)
        })
    }
}

impl Drop for PartSender {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl PartUpload {
    async fn send(&self, part: FilePart) -> Option<UploadedPart> {
        let _slot = self.slots.acquire().await;
        if lock(&self.failure).is_some() {
            return None;
        }

        let hash = part.hash.clone();
        let sent = self
            .bucket
            .put_part(&self.key, &self.id, part, &self.permit);
        match sent.await {
            Ok(stored) => {
                (lock(&self.on_stored))(&stored, &hash);
                Some(stored)
            }
            Err(error) => {
                lock(&self.failure).get_or_insert(error);
                None
            }
        }
    }
}
