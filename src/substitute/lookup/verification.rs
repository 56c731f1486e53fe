//! Texts become narinfos, and narinfos become authorized ones or refusals, on several threads.
//!
//! Checking a signature takes longer than everything else about a lookup, and many together take
//! less than half of that. So texts travel in batches, which also saves waking a thread for each
//! one. A result holds no more of a narinfo than may be kept until the run ends, and in the lookup
//! cache: the abridged narinfo if an authorized key has signed it, and a bounded offer. Whether the
//! signers suffice is not decided here.

use std::sync::Arc;

use crossbeam_channel::Receiver;

use crate::format::narinfo::{NarInfo, NarOffer};
use crate::format::server_list::ServerIndex;
use crate::format::store_path::{StoreDir, StorePath};
use crate::lookup_cache::AnswerKind;
use crate::substitute::lookup::items::ItemIndex;
use crate::substitute::outcome::UnreadableNarInfo;
use crate::sync::{Threads, catch_panic};
use crate::trust::acl::AuthorizedKeys;
use crate::trust::signed::{SignedNarInfo, reuse_signature, verify_all};
use crate::trust::signer::SignatureScope;
use crate::trust::verdict::Refusal;

/// At most this many texts are verified together.
pub(super) const BATCH: usize = 32;
/// A batch is full when its texts have this many bytes together.
pub(super) const BATCH_BYTES: usize = 256 << 10;

/// A text that a server gave for an item, now or earlier.
pub(super) struct UnverifiedText {
    pub(super) item: ItemIndex,
    pub(super) server: ServerIndex,
    pub(super) path: StorePath,
    pub(super) bytes: Vec<u8>,
    pub(super) origin: TextOrigin,
}

/// Where a text came from.
#[derive(Clone)]
pub(super) enum TextOrigin {
    /// The server, and for how long it may be cached.
    Server { max_age: Option<u64> },
    /// The lookup cache, with the key of an earlier check when that may be reused.
    Cache {
        asked_at: u64,
        expires_at: u64,
        signed_by: Option<Box<str>>,
    },
}

/// The result of verifying a text: authorized, refused, or no narinfo.
pub(super) struct VerificationResult {
    pub(super) item: ItemIndex,
    pub(super) server: ServerIndex,
    pub(super) origin: TextOrigin,
    /// What the lookup cache keeps of a server's text; empty when it is refused, or from there.
    pub(super) text: Box<str>,
    pub(super) outcome: VerificationOutcome,
}

pub(super) enum VerificationOutcome {
    /// At least one authorized key has signed it, or the store path proves the content.
    Signed(SignedNarInfo, NarOffer),
    Refused(NarOffer, Refusal),
    Unreadable(UnreadableNarInfo),
}

/// What texts are checked against.
#[derive(Clone)]
pub(super) struct Verifier {
    pub(super) store_dir: StoreDir,
    pub(super) keys: Arc<AuthorizedKeys>,
    /// Whether all signatures matter.
    pub(super) scope: SignatureScope,
}

impl Verifier {
    /// Starts up to `threads` threads that check what comes in through `texts` and `deliver` it, or
    /// nothing when the check of a batch panics; they end when it returns false.
    ///
    /// # Errors
    /// The system refuses the first thread.
    pub(super) fn start(
        self,
        threads: usize,
        texts: Receiver<Vec<UnverifiedText>>,
        deliver: impl Fn(Option<Vec<VerificationResult>>) -> bool + Clone + Send + 'static,
    ) -> std::io::Result<Threads> {
        Threads::start("check", threads, move || {
            for batch in &texts {
                if !deliver(catch_panic(|| self.verify(batch))) {
                    break;
                }
            }
        })
    }

    fn verify(&self, batch: Vec<UnverifiedText>) -> Vec<VerificationResult> {
        let parsed: Vec<(Parsed, Step)> = batch.into_iter().map(|text| self.parse(text)).collect();
        let claims = parsed.iter().filter_map(|(text, step)| match step {
            Step::Claimed(narinfo) => Some((Arc::clone(narinfo), text.path.as_ref())),
            Step::Decided(_) => None,
        });
        let claims = claims.collect();
        let verdicts = verify_all(claims, &self.keys, &self.store_dir, self.scope);
        let mut verdicts = verdicts.into_iter();
        let verified = parsed.into_iter().map(|(parsed, step)| {
            let Parsed {
                item,
                server,
                origin,
                ..
            } = parsed;
            let (text, outcome) = match step {
                Step::Decided(outcome) => (Box::default(), outcome),
                Step::Claimed(narinfo) => {
                    let verdict = verdicts.next().expect("every claim has a verdict");
                    decided(&narinfo, verdict, &origin)
                }
            };
            VerificationResult {
                item,
                server,
                origin,
                text,
                outcome,
            }
        });
        verified.collect()
    }

    fn parse(&self, text: UnverifiedText) -> (Parsed, Step) {
        let UnverifiedText {
            item,
            server,
            path,
            bytes,
            origin,
        } = text;
        let narinfo = String::from_utf8(bytes)
            .map_err(|_| UnreadableNarInfo::NotUtf8)
            .and_then(|text| {
                NarInfo::parse(text, &self.store_dir).map_err(UnreadableNarInfo::Invalid)
            });
        let step = match narinfo {
            Err(why) => Step::Decided(VerificationOutcome::Unreadable(why)),
            Ok(narinfo) => self.reuse_signature(&path, Arc::new(narinfo), &origin),
        };

        (
            Parsed {
                item,
                server,
                path,
                origin,
            },
            step,
        )
    }

    /// Reuses an earlier check of the signature, if its key is still authorized and no other one
    /// matters.
    fn reuse_signature(
        &self,
        path: &StorePath,
        narinfo: Arc<NarInfo>,
        origin: &TextOrigin,
    ) -> Step {
        let TextOrigin::Cache {
            signed_by: Some(key),
            ..
        } = origin
        else {
            return Step::Claimed(narinfo);
        };

        match reuse_signature(&narinfo, path.as_ref(), key, &self.keys, self.scope) {
            Ok(Some(signed)) => {
                let offer = NarOffer::of(&narinfo);
                Step::Decided(VerificationOutcome::Signed(signed, offer))
            }
            Ok(None) | Err(_) => Step::Claimed(narinfo),
        }
    }
}

/// A text that was read.
struct Parsed {
    item: ItemIndex,
    server: ServerIndex,
    path: StorePath,
    origin: TextOrigin,
}

/// How far it is.
enum Step {
    Decided(VerificationOutcome),
    /// Its signature is to be checked.
    Claimed(Arc<NarInfo>),
}

/// What follows from a verdict, and the text that the lookup cache keeps.
fn decided(
    narinfo: &NarInfo,
    verdict: Result<SignedNarInfo, Refusal>,
    origin: &TextOrigin,
) -> (Box<str>, VerificationOutcome) {
    let offer = NarOffer::of(narinfo);
    match verdict {
        Ok(signed) => {
            let text = match origin {
                TextOrigin::Server { .. } => narinfo.kept_text(),
                TextOrigin::Cache { .. } => Box::default(),
            };
            (text, VerificationOutcome::Signed(signed.abridged(), offer))
        }
        Err(refusal) => (Box::default(), VerificationOutcome::Refused(offer, refusal)),
    }
}

/// Servers that compress on the fly do not know the download's size yet; soon they will.
pub(super) fn answer_kind(offer: &NarOffer) -> AnswerKind {
    if offer
        .downloads()
        .iter()
        .any(|download| download.file_size.is_some())
    {
        AnswerKind::Positive
    } else {
        AnswerKind::PositiveWithoutFileSize
    }
}
