//! The narinfos and other texts in a bucket, many of which are read before they are used: each takes a round trip.

use super::bucket::MirrorBucket;
use super::error::TargetError;
use crate::substitute::mirror::key::MirrorKey;
use crate::sync::lock;

/// Narinfos that are read together, and the bytes of those that are read before they are used.
const TEXTS_AT_A_TIME: usize = 1000;
const TEXT_BYTES_AHEAD: usize = if cfg!(test) { 2048 } else { 128 << 20 };

impl MirrorBucket {
    /// Reads the texts of `keys`, many at a time, for [`MirrorBucket::text`]: as many as may be held at the same time.
    pub(super) fn read_ahead(
        &self,
        keys: &[MirrorKey],
        bytes_max: usize,
    ) -> Result<(), TargetError> {
        let new: Vec<(String, usize)> = {
            let (objects, texts) = (lock(&self.objects), lock(&self.texts));
            let mut room = TEXT_BYTES_AHEAD.saturating_sub(texts.values().map(String::len).sum());
            let keys = keys.iter().map(MirrorKey::as_str);
            let new = keys.filter(|key| !texts.contains_key(*key));
            let fitting = new.filter_map(|key| {
                let size = usize::try_from(objects.get(key)?.size).ok()?;
                room = room.checked_sub(size).filter(|_| size <= bytes_max)?;
                Some((key.to_owned(), size))
            });
            fitting.collect()
        };
        new.chunks(TEXTS_AT_A_TIME)
            .try_for_each(|keys| self.read_texts(keys))
    }

    /// Reads the texts of these keys, each of at most so many bytes.
    fn read_texts(&self, keys: &[(String, usize)]) -> Result<(), TargetError> {
        let read = self.bucket.read_all(keys);
        let read = read.map_err(TargetError::of_bucket("read", "narinfos"))?;
        let (mut objects, mut texts) = (lock(&self.objects), lock(&self.texts));
        for ((key, _), object) in keys.iter().zip(read) {
            let Some(object) = object else { continue };
            if let Some(stored) = objects.get_mut(key) {
                stored.etag = object.etag;
            }
            let text = String::from_utf8(object.bytes.into());
            texts.extend(text.ok().map(|text| (key.clone(), text)));
        }
        Ok(())
    }

    pub(super) fn text(
        &self,
        key: &MirrorKey,
        bytes_max: usize,
    ) -> Result<Option<String>, TargetError> {
        let ahead = lock(&self.texts).remove(key.as_str());
        if ahead.is_some() || self.size(key).is_none() {
            return Ok(ahead);
        }
        self.read_texts(&[(key.to_string(), bytes_max)])?;
        Ok(lock(&self.texts).remove(key.as_str()))
    }
}
