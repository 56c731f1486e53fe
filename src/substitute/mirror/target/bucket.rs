//! A mirror in a bucket of an object store.
//!
//! What is there is listed once, when it is opened. A nar is written to a file of this machine first, verified, and
//! then sent with its hash; a large one is sent in parts meanwhile, which become an object when it is verified. An
//! object appears whole or not at all, and lasts as soon as the store says so. Objects that other programs write
//! meanwhile are noticed where the store supports conditional writes.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::sync::{Arc, Mutex};

use super::error::TargetError;
use super::incoming_nar::IncomingNar;
use super::large::{LargeNarSender, LargeUpload, WHOLE_BYTES_MAX};
use super::lease::{CLAIMS, WriterLease};
use super::object_reader::ObjectReader;
use super::spool::UploadSpool;
use super::stored_object::StoredObject;
use crate::format::hash::FileHash;
use crate::format::sha256::Sha256;
use crate::http::{BodyHash, Bucket, Client, ObjectPut, PutOutcome};
use crate::substitute::mirror::incoming::{IncomingFile, IncomingNarName};
use crate::substitute::mirror::key::{CACHE_INFO, MirrorKey, OWN_DIRECTORY};
use crate::substitute::mirror::walk::ListedFile;
use crate::sync::lock;

/// How long a narinfo may be used without another request: as `guix publish` says by default.
const NARINFO_MAX_AGE_SECONDS: u32 = 3600;
/// Nars never change.
const NAR_CACHE_CONTROL: &str = "public, max-age=31536000, immutable";
/// A mirror in a bucket.
pub(crate) struct MirrorBucket {
    client: Arc<Client>,
    pub(super) bucket: Arc<Bucket>,
    writer: Option<BucketWriter>,
    /// What the bucket has, by key.
    pub(super) objects: Mutex<HashMap<String, StoredObject>>,
    /// Texts that were read ahead, until they are used.
    pub(super) texts: Mutex<HashMap<String, String>>,
}

/// What only the process that may write has.
struct BucketWriter {
    /// Where nars are until they are sent.
    spool: UploadSpool,
    lease: WriterLease,
}

impl MirrorBucket {
    /// Lists `bucket`. With a `spool`, this process may write to it, and no other one meanwhile.
    ///
    /// # Errors
    /// The bucket cannot be listed, or another process writes to it.
    pub(crate) fn open(
        client: Arc<Client>,
        bucket: Bucket,
        spool: Option<UploadSpool>,
    ) -> Result<Self, TargetError> {
        let bucket = Arc::new(bucket);
        let writer = spool.map(|spool| {
            let lease = WriterLease::acquire(&bucket, &spool.writer)?;
            spool.uploads.abort_old(&bucket);
            Ok(BucketWriter { spool, lease })
        });
        let writer = writer.transpose()?;
        let listed = bucket
            .list("")
            .map_err(TargetError::of_bucket("list", "objects"))?;
        let objects = listed
            .into_iter()
            .filter(|object| !object.key.starts_with(CLAIMS))
            .map(StoredObject::of_listed);
        Ok(Self {
            client,
            bucket,
            writer,
            objects: Mutex::new(objects.collect()),
            texts: Mutex::default(),
        })
    }

    /// Bytes that were sent.
    pub(super) fn sent_bytes(&self) -> u64 {
        let sent = self.bucket.sent_bytes();
        sent.load(std::sync::atomic::Ordering::Relaxed)
    }

    pub(super) fn size(&self, key: &MirrorKey) -> Option<u64> {
        let objects = lock(&self.objects);
        objects.get(key.as_str()).map(|object| object.size)
    }

    /// The same now: others may have written or removed it since it was listed, unless this process is the writer.
    pub(super) fn current_size(&self, key: &MirrorKey) -> Result<Option<u64>, TargetError> {
        if self.writer.is_none() {
            let listed = self.bucket.list(key.as_str());
            let listed = listed.map_err(TargetError::of_bucket("find", key))?;
            let found = listed.into_iter().find(|it| it.key == key.as_str());
            let mut objects = lock(&self.objects);
            objects.remove(key.as_str());
            objects.extend(found.map(StoredObject::of_listed));
        }
        Ok(self.size(key))
    }

    /// Opens the object `key` to read it; `None` if there is none.
    pub(super) fn file(
        &self,
        key: &MirrorKey,
    ) -> Result<Option<Box<dyn BufRead + Send>>, TargetError> {
        if self.size(key).is_none() {
            return Ok(None);
        }
        Ok(self
            .reader(key)?
            .map(|reader| Box::new(BufReader::new(reader)) as Box<_>))
    }

    fn reader(&self, key: &MirrorKey) -> Result<Option<ObjectReader>, TargetError> {
        let reader = ObjectReader::open(&self.client, &self.bucket, key.as_str());
        reader.map_err(TargetError::of_bucket("read", key))
    }

    pub(super) fn new_nar(&self) -> Result<IncomingNar<'_>, TargetError> {
        let created = self
            .writer()
            .and_then(|writer| writer.spool.incoming.create());
        let created = created.map_err(TargetError::of("create", "a temporary file for a nar"));
        created.map(IncomingNar::new)
    }

    /// The file to write the nar `name` to, with what an earlier run has written of it. If its size is `bytes` and its
    /// object `key`, a large one is sent while it is written.
    pub(super) fn incoming_nar(
        &self,
        name: &IncomingNarName,
        bytes: u64,
        key: Option<&MirrorKey>,
    ) -> Result<IncomingNar<'_>, TargetError> {
        let failed = TargetError::of("create", "a temporary file for a nar");
        let writer = self.writer();
        let opened = writer.and_then(|it| Ok((it, it.spool.incoming.open_nar(name, bytes)?)));
        let (writer, file) = opened.map_err(failed)?;
        let nar = IncomingNar::new(file);
        Ok(match key.filter(|_| bytes > WHOLE_BYTES_MAX) {
            Some(key) => nar.send(|file| self.upload(writer, key, file, bytes)),
            None => nar,
        })
    }

    /// Removes the nars on this machine that are not `wanted`.
    pub(super) fn remove_unwanted(
        &self,
        wanted: &HashSet<IncomingNarName>,
    ) -> Result<(), TargetError> {
        let removed = self
            .writer()
            .and_then(|writer| writer.spool.incoming.remove_unwanted(wanted));
        removed.map_err(TargetError::of("clear", "the temporary files"))
    }

    /// Bytes of nars on this machine that the next run continues.
    pub(super) fn kept_bytes(&self) -> u64 {
        let writer = self.writer.as_ref();
        writer.map_or(0, |writer| writer.spool.incoming.nar_bytes().unwrap_or(0))
    }

    /// Writes `nar`, whose hash is `hash`, as the object `key`. If it cannot be sent, the next run sends it.
    pub(super) fn publish(
        &self,
        nar: IncomingNar<'_>,
        key: &MirrorKey,
        hash: &FileHash,
    ) -> Result<(), TargetError> {
        let (file, upload) = nar.into_parts();
        let sent = self.send(&file, upload, key, hash);
        if matches!(
            sent,
            Err(TargetError::Bucket { .. } | TargetError::LeaseLost(_))
        ) {
            file.keep();
        }
        sent
    }

    fn send<'a>(
        &'a self,
        file: &IncomingFile<'a>,
        upload: Option<LargeUpload<'a>>,
        key: &MirrorKey,
        hash: &FileHash,
    ) -> Result<(), TargetError> {
        let (file, length) = file.contents();
        if length <= WHOLE_BYTES_MAX {
            let body_hash = BodyHash::from_digest(hash.as_bytes());
            let put = ObjectPut::file(key.as_str(), &file, length, body_hash, NAR_TYPE)
                .cache_control(NAR_CACHE_CONTROL);
            return self.put(vec![(key, put, length, *hash.as_bytes())]);
        }
        let upload = match upload.filter(|upload| upload.is_whole(key.as_str(), length)) {
            Some(upload) => upload,
            None => {
                let writer = self.writer().map_err(TargetError::of("write", key))?;
                let mut upload = self.upload(writer, key, file, length);
                upload.note_file().map_err(TargetError::of("read", key))?;
                upload
            }
        };
        let etag = match upload.complete() {
            Ok(etag) => etag,
            // Also when the store has completed it, but the connection broke before it said so.
            Err(TargetError::Bucket { .. }) if self.has_content(key, hash.as_bytes())? => None,
            Err(error) => return Err(error),
        };
        self.note_written(key, length, etag);
        Ok(())
    }

    /// Sends the `size` bytes that are written to `file` as the object `key`, in parts.
    fn upload<'a>(
        &'a self,
        writer: &'a BucketWriter,
        key: &MirrorKey,
        file: Arc<File>,
        size: u64,
    ) -> LargeUpload<'a> {
        let sender = LargeNarSender {
            bucket: &self.bucket,
            lease: &writer.lease,
            records: &writer.spool.uploads,
        };
        let put = ObjectPut::bytes(key.as_str(), Vec::new(), NAR_TYPE);
        let put = put.cache_control(NAR_CACHE_CONTROL);
        LargeUpload::new(sender, key.as_str(), put, file, size)
    }

    /// Writes whole texts as objects, many at a time.
    pub(super) fn replace(&self, texts: &[(MirrorKey, &str)]) -> Result<(), TargetError> {
        let puts = texts.iter().map(|(key, text)| {
            let content_type = match key.as_str() {
                CACHE_INFO => "text/x-nix-cache-info",
                _ if key.is_narinfo() => "text/x-nix-narinfo",
                _ => "text/plain",
            };
            let mut digest = Sha256::new();
            digest.update(text.as_bytes());
            let put = ObjectPut::bytes(key.as_str(), text.as_bytes().to_vec(), content_type)
                .cache_control(format!("max-age={NARINFO_MAX_AGE_SECONDS}"));
            (key, put, text.len() as u64, digest.finish())
        });
        self.put(puts.collect())?;
        let mut earlier = lock(&self.texts);
        for (key, _) in texts {
            earlier.remove(key.as_str());
        }
        Ok(())
    }

    /// Calls `visit` for all objects that are not the mirror's own.
    pub(super) fn list(&self, visit: &mut dyn FnMut(ListedFile)) {
        let own = format!("{OWN_DIRECTORY}/");
        for (name, object) in &*lock(&self.objects) {
            if name.starts_with(&own) {
                continue;
            }
            visit(ListedFile {
                name: name.clone(),
                key: MirrorKey::of_file(name),
                size: object.size,
                modified: object.modified.unwrap_or(u64::MAX),
            });
        }
    }

    /// Removes those of the objects `keys` that are there, many at a time.
    pub(super) fn remove(&self, keys: &[MirrorKey]) -> Result<(), TargetError> {
        let writer = self
            .writer()
            .map_err(TargetError::of("remove", "objects"))?;
        let names: Vec<String> = keys.iter().map(|key| key.as_str().to_owned()).collect();
        let first = names.first().cloned().unwrap_or_default();
        let permit = writer.lease.permit();
        let removed = self.bucket.remove_all(&names, Some(&permit));
        if removed.is_err() {
            writer.lease.check()?;
        }
        removed.map_err(TargetError::of_bucket("remove", first))?;
        for name in &names {
            lock(&self.texts).remove(name);
            lock(&self.objects).remove(name);
        }
        Ok(())
    }

    fn writer(&self) -> io::Result<&BucketWriter> {
        let writer = self.writer.as_ref();
        writer.ok_or_else(|| io::Error::other("the mirror is open for reading"))
    }

    /// Writes objects, each with its size and hash.
    fn put(&self, objects: Vec<(&MirrorKey, ObjectPut, u64, [u8; 32])>) -> Result<(), TargetError> {
        let writer = self.writer().map_err(TargetError::of("write", "objects"))?;
        writer.lease.check()?;
        let first = objects.first().map(|(key, ..)| key.to_string());
        let action = TargetError::of_bucket("write", first.unwrap_or_default());
        let puts: Vec<ObjectPut> = {
            let stored = lock(&self.objects);
            objects
                .iter()
                .map(|(key, put, ..)| {
                    let stored = stored.get(key.as_str());
                    put.clone().condition(StoredObject::condition(stored))
                })
                .collect()
        };

        let outcomes = self.bucket.put_all(&puts, Some(&writer.lease.permit()));
        if outcomes.is_err() {
            writer.lease.check()?;
        }
        let outcomes = outcomes.map_err(action)?;
        for ((key, _, size, hash), outcome) in objects.into_iter().zip(outcomes) {
            let etag = match outcome {
                PutOutcome::Written(etag) => etag,
                // Also when the store has written it, but the connection broke before it said so.
                PutOutcome::Refused if self.has_content(key, &hash)? => None,
                PutOutcome::Refused => return Err(TargetError::Changed(key.to_string())),
            };
            self.note_written(key, size, etag);
        }
        Ok(())
    }

    /// Notes that the bucket has the object `key` now.
    fn note_written(&self, key: &MirrorKey, size: u64, etag: Option<String>) {
        let stored = StoredObject {
            size,
            etag,
            modified: None,
        };
        lock(&self.objects).insert(key.as_str().to_owned(), stored);
    }

    /// Whether the object `key` has the content with this hash now.
    fn has_content(&self, key: &MirrorKey, hash: &[u8; 32]) -> Result<bool, TargetError> {
        let Some(reader) = self.reader(key)? else {
            return Ok(false);
        };
        let found = reader.hash();
        Ok(found.map_err(TargetError::of_bucket("read", key))? == *hash)
    }
}

/// What clients are told that nars are; the other types are in [`MirrorBucket::replace`].
const NAR_TYPE: &str = "application/x-nix-nar";

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::{TcpListener, TcpStream};
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::http::Options;
    use crate::http::testing::bucket;

    /// A mirror in an object store that does with each connection what `serve` does, and the directory of its spool.
    fn mirror(
        serve: impl Fn(&MirrorBucket, TcpStream) + Send + 'static,
    ) -> (Arc<MirrorBucket>, tempfile::TempDir) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let bucket = bucket(&format!("http://{}", listener.local_addr().unwrap()));
        let cache = tempfile::tempdir().unwrap();
        let spool = UploadSpool::open(cache.path(), cache.path(), bucket.server()).unwrap();
        let lease = WriterLease::unrenewed(&bucket);
        let mirror = Arc::new(MirrorBucket {
            client: Arc::new(Client::new(Options::default()).unwrap()),
            bucket: Arc::new(bucket),
            writer: Some(BucketWriter { spool, lease }),
            objects: Mutex::default(),
            texts: Mutex::default(),
        });
        let served = Arc::clone(&mirror);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                serve(&served, stream.unwrap());
            }
        });
        (mirror, cache)
    }

    #[test]
    fn without_the_claim_no_text_is_sent_again_and_its_loss_is_the_cause() {
        let connections = Arc::new(AtomicUsize::new(0));
        let accepted = Arc::clone(&connections);
        let (mirror, _cache) = mirror(move |mirror, _broken| {
            accepted.fetch_add(1, Ordering::Relaxed);
            mirror.writer().unwrap().lease.set_lost(true);
        });
        let failure = mirror.replace(&[(MirrorKey::of_cache_info(), "text")]);
        assert!(
            matches!(failure, Err(TargetError::LeaseLost(_))),
            "{failure:?}"
        );
        assert_eq!(connections.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn texts_are_read_ahead_as_far_as_there_is_room_for_their_listed_sizes() {
        // Each object is what its key says, in 50 lines.
        let (mirror, _cache) = mirror(|_, mut stream| {
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let head: Vec<String> = lines
                .map(Result::unwrap)
                .take_while(|it| !it.is_empty())
                .collect();
            let body = head[0].split([' ', '?']).nth(1).unwrap().repeat(50);
            let length = body.len();
            let head = format!("Connection: close\r\nContent-Length: {length}\r\n\r\n");
            let answer = format!("HTTP/1.1 200 OK\r\n{head}{body}");
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let length = "/b/x.narinfo".len() * 50;
        let names = ["v", "w", "x", "y", "z"].map(|name| format!("{name}.narinfo"));
        let keys = names.map(|name| MirrorKey::of_file(&name).unwrap());
        // The second one is larger than it was listed, and three of the others have room.
        for (key, size) in keys.iter().zip([length, 3, length, length, length]) {
            mirror.note_written(key, size as u64, None);
        }

        mirror.read_ahead(&keys, 1 << 20).unwrap();
        let texts = lock(&mirror.texts).clone();
        let ahead = keys.iter().map(|key| texts.contains_key(key.as_str()));
        assert!(ahead.eq([true, false, true, true, false]), "{texts:?}");
        for key in &keys {
            let text = mirror.text(key, 1 << 20).unwrap();
            assert_eq!(text.map(|text| text.len()), Some(length));
        }
        assert!(lock(&mirror.texts).is_empty());
    }
}
