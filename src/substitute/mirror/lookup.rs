//! The authorized narinfos of items and of all that they refer to, as the servers have them now.
//!
//! All servers are asked, and the lookup cache is neither read nor written: a mirror keeps the very text
//! of a narinfo, and signatures of several servers. What is kept of an answer is bounded by what an
//! authorized key has signed.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::failure::MirrorFailure;
use super::tally::MirrorTally;
use super::text::unsigned_start;
use crate::format::narinfo::NarInfo;
use crate::format::server_list::{PerServer, ServerIndex, ServerList};
use crate::format::store_path::{Dialect, StoreDir, StorePath};
use crate::substitute::cancel::Cancel;
use crate::substitute::claims::ClaimRequests;
use crate::substitute::outcome::LookupOutcome;
use crate::substitute::servers::ServerHealth;
use crate::trust::acl::AuthorizedKeys;
use crate::trust::nix::fingerprint;
use crate::trust::policy::TrustPolicy;
use crate::trust::signed::{SignedNarInfo, verify_all};
use crate::trust::verdict::{Authorization, judge};

/// Items that are requested at a time.
const BATCH: usize = 500;
/// Narinfos are verified together when they have this many bytes or are this many.
const PENDING_BYTES_MAX: usize = 4 << 20;
const PENDING_MAX: usize = 32;
/// The most bytes of a narinfo that no signature covers: real ones have a few hundred.
const UNSIGNED_BYTES_MAX: usize = 16 << 10;

/// Whose narinfos are copied.
pub(crate) struct MirrorTrust {
    /// The authorized keys.
    pub(crate) keys: AuthorizedKeys,
    /// How many of them have to agree.
    pub(crate) policy: TrustPolicy,
}

/// An item, with the authorized narinfos that servers have of it.
pub(super) struct FoundItem {
    pub(super) path: StorePath,
    /// At least one, in the order of the servers.
    pub(super) narinfos: Result<Vec<ServerNarInfo>, MirrorFailure>,
}

/// An authorized narinfo, and the server that has it.
#[derive(Clone)]
pub(super) struct ServerNarInfo {
    pub(super) server: ServerIndex,
    pub(super) narinfo: Arc<NarInfo>,
}

/// Looks items up.
pub(super) struct MirrorLookup<'a> {
    pub(super) requests: ClaimRequests<'a>,
    pub(super) servers: &'a ServerList,
    pub(super) health: &'a ServerHealth,
    pub(super) trust: &'a MirrorTrust,
    pub(super) store_dir: &'a StoreDir,
    pub(super) cancel: &'a Cancel,
    pub(super) tally: &'a MirrorTally,
}

/// What the servers have answered for one item.
struct ItemAnswers {
    signed: Vec<(ServerIndex, SignedNarInfo)>,
    outcomes: PerServer<LookupOutcome>,
    /// A server has added too much to what is signed.
    has_long_tail: bool,
}

/// Narinfos whose signatures are to be verified.
#[derive(Default)]
struct PendingNarInfos {
    narinfos: Vec<(usize, ServerIndex, Arc<NarInfo>)>,
    bytes: usize,
}

impl MirrorLookup<'_> {
    /// Looks up `items` and everything that they refer to.
    pub(super) fn closure(
        &mut self,
        items: Vec<StorePath>,
    ) -> Result<Vec<FoundItem>, MirrorFailure> {
        let mut known: HashSet<StorePath> = items.iter().cloned().collect();
        let (mut all, mut next) = (Vec::new(), items);
        while !next.is_empty() {
            let rest = next.split_off(next.len().min(BATCH));
            self.tally.found.store(known.len(), Ordering::Relaxed);
            let batch = std::mem::replace(&mut next, rest);
            let found = self.batch(batch);
            // Then answers are missing.
            if self.cancel.is_canceled() {
                return Err(MirrorFailure::Interrupted);
            }
            for item in found {
                let narinfos = item.narinfos.iter().flatten();
                let references = narinfos.flat_map(|it| it.narinfo.references());
                for reference in references.map(|reference| reference.to_path()) {
                    if known.insert(reference.clone()) {
                        next.push(reference);
                    }
                }
                all.push(item);
            }
        }
        self.tally.found.store(all.len(), Ordering::Relaxed);
        Ok(all)
    }

    fn batch(&mut self, items: Vec<StorePath>) -> Vec<FoundItem> {
        let offline: PerServer<LookupOutcome> = self
            .servers
            .iter()
            .map(|_| LookupOutcome::Offline)
            .collect();
        let mut answers: Vec<ItemAnswers> = items
            .iter()
            .map(|_| ItemAnswers {
                signed: Vec::new(),
                outcomes: offline.clone(),
                has_long_tail: false,
            })
            .collect();

        let mut pending = PendingNarInfos::default();
        let (trust, store_dir, health) = (self.trust, self.store_dir, self.health);
        self.requests
            .request_narinfos(&items, |place, server, answer| {
                match answer {
                    Ok(narinfo) => {
                        health.answered(server);
                        pending.bytes += narinfo.text().len();
                        pending
                            .narinfos
                            .push((place, server, Arc::new(narinfo.clone())));
                    }
                    Err(outcome) => answers[place].outcomes[server] = outcome.clone(),
                }
                if pending.narinfos.len() >= PENDING_MAX || pending.bytes >= PENDING_BYTES_MAX {
                    verify(&mut pending, &items, &mut answers, trust, store_dir);
                }
            });
        verify(&mut pending, &items, &mut answers, trust, store_dir);

        let mut found = Vec::with_capacity(items.len());
        for (path, mut answers) in items.into_iter().zip(answers) {
            for (server, other) in self.requests.other_stores() {
                answers.outcomes[*server] = LookupOutcome::OtherStore(other.clone());
                answers.signed.retain(|(signed_at, _)| signed_at != server);
            }
            let narinfos = self.authorized(&path, answers);
            found.push(FoundItem { path, narinfos });
        }
        found
    }

    /// The narinfos of `path` that are authorized.
    fn authorized(
        &self,
        path: &StorePath,
        mut answers: ItemAnswers,
    ) -> Result<Vec<ServerNarInfo>, MirrorFailure> {
        answers.signed.sort_unstable_by_key(|(server, _)| *server);
        let signed: Vec<&SignedNarInfo> = answers.signed.iter().map(|(_, signed)| signed).collect();
        let need = self.trust.policy.quorum(path.as_ref());
        let judgment = judge(&self.trust.policy, need, &signed);
        if let Some(refusal) = judgment.refusal().filter(|_| !signed.is_empty()) {
            return Err(MirrorFailure::Policy(refusal.clone()));
        }

        let (mut narinfos, mut is_content_only) = (Vec::new(), false);
        for (server, signed) in &answers.signed {
            let Some(Authorization::Verified(authorized)) = judgment.authorize(signed) else {
                continue;
            };
            let narinfo = Arc::clone(authorized.narinfo());
            match authorized.verified_nar_size() {
                None => is_content_only = true,
                Some(_) => narinfos.push(ServerNarInfo {
                    server: *server,
                    narinfo,
                }),
            }
        }
        match narinfos.is_empty() {
            false => Ok(narinfos),
            true if answers.has_long_tail => Err(MirrorFailure::LongTail(UNSIGNED_BYTES_MAX)),
            true if is_content_only => Err(MirrorFailure::ContentOnly),
            true => Err(MirrorFailure::Unavailable(self.with_urls(answers.outcomes))),
        }
    }

    fn with_urls(&self, outcomes: PerServer<LookupOutcome>) -> Vec<(String, LookupOutcome)> {
        let servers = self.servers.iter().map(|server| server.as_str().to_owned());
        servers.zip(outcomes.iter().cloned()).collect()
    }
}

/// Verifies what is pending.
fn verify(
    pending: &mut PendingNarInfos,
    items: &[StorePath],
    answers: &mut [ItemAnswers],
    trust: &MirrorTrust,
    store_dir: &StoreDir,
) {
    let PendingNarInfos { narinfos, .. } = std::mem::take(pending);
    let claims = narinfos
        .iter()
        .map(|(place, _, narinfo)| (Arc::clone(narinfo), items[*place].as_ref()))
        .collect();
    let scope = trust.policy.signature_scope();
    let verdicts = verify_all(claims, &trust.keys, store_dir, scope);
    for ((place, server, _), verdict) in narinfos.into_iter().zip(verdicts) {
        match verdict {
            Ok(signed) if unsigned_bytes(signed.narinfo(), store_dir) > UNSIGNED_BYTES_MAX => {
                answers[place].has_long_tail = true;
            }
            Ok(signed) => {
                answers[place].outcomes[server] = LookupOutcome::Authorized;
                answers[place].signed.push((server, signed));
            }
            Err(refusal) => answers[place].outcomes[server] = LookupOutcome::Refused(refusal),
        }
    }
}

/// Bytes of the text that no signature covers.
fn unsigned_bytes(narinfo: &NarInfo, store_dir: &StoreDir) -> usize {
    let signed = match store_dir.dialect() {
        Dialect::Guix => unsigned_start(narinfo, Dialect::Guix),
        Dialect::Nix => fingerprint(narinfo, store_dir).len(),
    };
    narinfo.text().len().saturating_sub(signed)
}
