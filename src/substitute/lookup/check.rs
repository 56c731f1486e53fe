//! Texts become narinfos, and narinfos become authorised ones or refusals, on several threads.
//!
//! Checking a signature takes some 60 microseconds, more than everything else about a lookup.
//! Texts travel in batches: waking a thread for each one would cost as much again. Narinfos
//! leave without the text of their signature, since they are kept as long as the run takes.

use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender};

use crate::format::narinfo::NarInfo;
use crate::format::store_path::{StoreDir, StorePath};
use crate::lookup_cache::AnswerKind;
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
#[derive(Clone)]
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
    /// The text as a server gave it, to be remembered; empty when the lookup cache had it.
    pub(super) text: Box<str>,
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
        let parsed = String::from_utf8(bytes)
            .map_err(|_| "the text is not UTF-8".to_owned())
            .and_then(|text| {
                let parsed = NarInfo::parse(text, &self.store_dir);
                parsed.map_err(|error| crate::substitute::chain(&error))
            });
        let narinfo = match parsed {
            Ok(narinfo) => narinfo,
            Err(why) => {
                let outcome = Outcome::Unreadable(why);
                return Checked { item, server, origin, text: Box::default(), outcome };
            }
        };
        let text = match &origin {
            TextOrigin::Server { .. } => narinfo.text().into(),
            TextOrigin::Cache { .. } => Box::default(),
        };
        let outcome = self.outcome(&path, Arc::new(narinfo), &origin);
        Checked { item, server, origin, text, outcome }
    }

    fn outcome(&self, path: &StorePath, narinfo: Arc<NarInfo>, origin: &TextOrigin) -> Outcome {
        let asked = path.as_ref();
        if let TextOrigin::Cache { vouched_by: Some(key), .. } = origin
            && let Ok(authorized) = verdict::recall(Arc::clone(&narinfo), asked, key, &self.keys)
        {
            // Else the signature could not be cut off without a copy.
            drop(narinfo);
            let authorized = Arc::new(authorized.without_signature_text());
            return Outcome::Authorized(Authority::Remembered(authorized));
        }
        match verdict::authorize(Arc::clone(&narinfo), asked, &self.keys, &self.store_dir) {
            Ok(authorized) => {
                drop(narinfo);
                let authorized = Arc::new(authorized.without_signature_text());
                Outcome::Authorized(Authority::Checked(authorized))
            }
            Err(refusal) => {
                let narinfo = Arc::unwrap_or_clone(narinfo).without_guix_signature();
                Outcome::Refused(Arc::new(narinfo), refusal)
            }
        }
    }
}

/// Servers that compress on the fly do not know the download's size yet; soon they will.
pub(super) fn kind_of(narinfo: &NarInfo) -> AnswerKind {
    if narinfo.downloads().iter().any(|download| download.file_size.is_some()) {
        AnswerKind::Positive
    } else {
        AnswerKind::PositiveWithoutFileSize
    }
}
