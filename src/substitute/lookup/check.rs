//! Texts become narinfos, and narinfos become authorised ones or refusals, on several threads.
//!
//! Checking a signature takes some 60 microseconds, more than everything else about a lookup.
//! Texts travel in batches: waking a thread for each one would cost as much again.

use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender};

use crate::format::narinfo::NarInfo;
use crate::format::store_path::{StoreDir, StorePath};
use crate::substitute::answer::Authority;
use crate::trust::acl::AuthorizedKeys;
use crate::trust::verdict::{self, Refusal};

use super::engine::Message;

/// Texts that are checked together.
pub(super) const BATCH: usize = 32;

/// A text that a server gave for an item, now or earlier.
pub(super) struct Text {
    pub(super) item: u32,
    pub(super) server: u16,
    pub(super) path: StorePath,
    pub(super) bytes: Vec<u8>,
    pub(super) origin: TextOrigin,
}

/// Where a text came from.
pub(super) enum TextOrigin {
    /// The server, which lets it be kept so long.
    Server { max_age: Option<u64> },
    /// The lookup cache, with a verdict when one may be believed.
    Cache { asked_at: u64, expires_at: u64, vouched_by: Option<Box<str>> },
}

/// What a text turned out to be.
pub(super) struct Checked {
    pub(super) item: u32,
    pub(super) server: u16,
    pub(super) origin: TextOrigin,
    pub(super) outcome: Outcome,
}

pub(super) enum Outcome {
    Authorized(Authority),
    Refused(Arc<NarInfo>, Refusal),
    Unreadable(String),
}

/// What texts are checked against.
#[derive(Clone)]
pub(super) struct Checker {
    pub(super) store_dir: StoreDir,
    pub(super) keys: Arc<AuthorizedKeys>,
}

impl Checker {
    /// Starts `threads` threads that check what comes in through `texts`.
    pub(super) fn start(
        &self,
        threads: usize,
        texts: &Receiver<Vec<Text>>,
        results: &Sender<Message>,
    ) -> std::io::Result<Vec<JoinHandle<()>>> {
        let start = |number| {
            let (checker, texts, results) = (self.clone(), texts.clone(), results.clone());
            std::thread::Builder::new().name(format!("check-{number}")).spawn(move || {
                for batch in &texts {
                    let checked = batch.into_iter().map(|text| checker.check(text)).collect();
                    if results.send(Message::Checked(checked)).is_err() {
                        break;
                    }
                }
            })
        };
        (0..threads.max(1)).map(start).collect()
    }

    fn check(&self, text: Text) -> Checked {
        let Text { item, server, path, bytes, origin } = text;
        let outcome = self.outcome(&path, bytes, &origin);
        Checked { item, server, origin, outcome }
    }

    fn outcome(&self, path: &StorePath, bytes: Vec<u8>, origin: &TextOrigin) -> Outcome {
        let parsed = String::from_utf8(bytes)
            .map_err(|_| "the text is not UTF-8".to_owned())
            .and_then(|text| {
                NarInfo::parse(text, &self.store_dir)
                    .map_err(|error| crate::substitute::chain(&error))
            });
        let narinfo = match parsed {
            Ok(narinfo) => Arc::new(narinfo),
            Err(why) => return Outcome::Unreadable(why),
        };
        if let TextOrigin::Cache { vouched_by: Some(key), .. } = origin
            && let Ok(authorized) =
                verdict::recall(Arc::clone(&narinfo), path.as_ref(), key, &self.keys)
        {
            return Outcome::Authorized(Authority::Remembered(Arc::new(authorized)));
        }
        let verdict =
            verdict::authorize(Arc::clone(&narinfo), path.as_ref(), &self.keys, &self.store_dir);
        match verdict {
            Ok(authorized) => Outcome::Authorized(Authority::Checked(Arc::new(authorized))),
            Err(refusal) => Outcome::Refused(narinfo, refusal),
        }
    }
}
