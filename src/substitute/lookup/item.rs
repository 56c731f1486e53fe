//! One item while it is looked up on servers: the answers so far, and the decision. Pure.
//!
//! Servers are requested side by side, but the user's order decides: the first server in it with
//! an authorized narinfo is chosen, if that names a download that can be used. So an item is decided
//! when some server answered with authority and no server before it can still do so, or when
//! no answer is outstanding. An authorized narinfo without a usable download counts only when
//! there is no other: then an equivalent narinfo may name a download of its nar.
//!
//! Where the policy counts votes, each signed narinfo that comes in has all of them judged again. The
//! item is decided when all servers have answered that are not down: any of them may disagree.

use std::sync::Arc;

use crate::format::narinfo::{NarInfo, NarOffer};
use crate::format::server_list::{PerServer, ServerIndex};
use crate::format::store_path::StorePath;
use crate::substitute::item_lookup::{
    Authority, ItemBuild, ItemLookup, ItemStatus, NarSource, status_without_authority,
};
use crate::substitute::lookup::options::RequiredServers;
use crate::substitute::lookup::server_offer::ServerOffer;
use crate::substitute::outcome::{LookupOutcome, ServerAnswer};
use crate::trust::policy::TrustPolicy;
use crate::trust::signed::SignedNarInfo;
use crate::trust::verdict::{Judgment, Refusal, judge};

/// What is known of one server's answer.
#[derive(Debug, Clone)]
enum AnswerSlot {
    /// Nothing yet; it can be requested.
    Open,
    /// The lookup cache has a narinfo; its signature is being checked.
    Cached,
    /// It has been requested from the server.
    Requested,
    /// Known.
    Answered(ServerAnswer),
}

/// What to do next about an item.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NextStep {
    /// Request the item from these servers.
    Request(Vec<ServerIndex>),
    /// Wait for answers.
    Wait,
    /// Nothing can change the result any more.
    Decided,
}

pub(super) struct LookupItem {
    pub(super) path: StorePath,
    slots: PerServer<AnswerSlot>,
    /// In the user's order.
    offers: Vec<ServerOffer>,
    /// Nars of authorized narinfos that could not be had.
    rejected: Vec<NarOffer>,
    /// Whether servers behind the one with authority matter too.
    required: RequiredServers,
    /// How many principals have to agree; `None`: any one authorized key suffices.
    quorum: Option<usize>,
    /// What follows from the votes, once there are any.
    judgment: Option<Box<Judgment>>,
}

impl LookupItem {
    pub(super) fn new(path: StorePath, servers: usize, quorum: Option<usize>) -> Self {
        Self {
            path,
            slots: std::iter::repeat_n(AnswerSlot::Open, servers).collect(),
            offers: Vec::new(),
            rejected: Vec::new(),
            required: match quorum {
                None => RequiredServers::UntilAuthorized,
                Some(_) => RequiredServers::Reachable,
            },
            quorum,
            judgment: None,
        }
    }

    /// The same item, which has not been looked up. What was rejected stays so.
    pub(super) fn renewed(&mut self) -> Self {
        let rejected = std::mem::take(&mut self.rejected);
        Self {
            rejected,
            ..Self::new(self.path.clone(), self.slots.len(), self.quorum)
        }
    }

    /// Stops going by `narinfo` and equivalent ones: the nar cannot be had.
    pub(super) fn reject(&mut self, narinfo: &NarInfo) {
        self.rejected.push(NarOffer::of(narinfo));
    }

    /// The selected narinfo: the first authorized one with a usable download. Failing that, one
    /// whose download is described by an equivalent narinfo alone.
    fn selected(&self) -> Option<(&ServerOffer, &Authority)> {
        let by_itself = self.authorized().find(|(offer, _)| offer.is_usable());
        by_itself.or_else(|| {
            self.authorized()
                .find(|(offer, _)| self.has_sources(&offer.source.offer))
        })
    }

    /// The authorized narinfos that have not been rejected, in the user's order.
    fn authorized(&self) -> impl Iterator<Item = (&ServerOffer, &Authority)> {
        let offers = self.offers.iter().filter(|offer| {
            let mut rejected = self.rejected.iter();
            !rejected.any(|rejected| offer.is_same_nar(rejected))
        });
        offers.filter_map(|offer| Some((offer, offer.authority.as_ref()?)))
    }

    fn has_sources(&self, nar: &NarOffer) -> bool {
        self.offers
            .iter()
            .any(|offer| offer.is_usable() && offer.is_same_nar(nar))
    }

    /// The servers that have the nar.
    fn sources(&self, nar: &NarOffer) -> Vec<NarSource> {
        let usable = self.offers.iter().filter(|offer| offer.is_usable());
        usable
            .filter(|offer| offer.is_same_nar(nar))
            .map(|offer| offer.source.clone())
            .collect()
    }

    /// The first server with an authorized narinfo that needs no other server.
    fn server_with_authority(&self) -> Option<ServerIndex> {
        let (offer, _) = self.selected()?;
        offer.is_usable().then_some(offer.source.server)
    }

    /// What the lookup on `server` gave, if it has ended.
    pub(super) fn outcome(&self, server: ServerIndex) -> Option<&LookupOutcome> {
        match &self.slots[server] {
            AnswerSlot::Answered(answer) => Some(&answer.outcome),
            AnswerSlot::Requested | AnswerSlot::Open | AnswerSlot::Cached => None,
        }
    }

    /// Whether there is no answer of the server and no request to it.
    pub(super) fn is_open(&self, server: ServerIndex) -> bool {
        matches!(self.slots[server], AnswerSlot::Open)
    }

    /// The servers whose answer was not waited for, though the user prefers them to the one
    /// with authority.
    pub(super) fn not_awaited(&self) -> Vec<ServerIndex> {
        let Some((offer, _)) = self.selected() else {
            return Vec::new();
        };
        let mut servers = self.unanswered();
        servers.retain(|server| *server < offer.source.server);
        servers
    }

    /// The servers that owe an answer.
    pub(super) fn unanswered(&self) -> Vec<ServerIndex> {
        let servers = self.slots.enumerated();
        let asked = servers.filter(|(_, slot)| matches!(slot, AnswerSlot::Requested));
        asked.map(|(server, _)| server).collect()
    }

    /// The selected narinfo, if there is an authorized one.
    pub(super) fn narinfo(&self) -> Option<&Arc<NarInfo>> {
        self.selected().map(|(_, authority)| authority.narinfo())
    }

    /// A narinfo that authorized keys have signed and the policy has refused, for reports.
    pub(super) fn refused_narinfo(&self) -> Option<&Arc<NarInfo>> {
        self.judgment.as_ref()?.refusal()?;
        let mut signed = self.offers.iter().filter_map(|offer| offer.signed.as_ref());
        Some(signed.next()?.narinfo())
    }

    /// Why the policy has accepted the item with a warning only.
    pub(super) fn objection(&self) -> Option<&Refusal> {
        self.judgment.as_ref()?.objection()
    }

    /// Makes it possible to use those of `servers` that were skipped, when no other server has the
    /// item or its bytes; whether there are any.
    pub(super) fn reopen(&mut self, servers: &[ServerIndex]) -> bool {
        let mut reopened = false;
        let is_wanted = self.selected().is_none() || self.required == RequiredServers::All;
        for &server in servers.iter().filter(|_| is_wanted) {
            let slot = &mut self.slots[server];
            if matches!(
                slot,
                AnswerSlot::Answered(ServerAnswer {
                    outcome: LookupOutcome::Skipped(_),
                    ..
                })
            ) {
                *slot = AnswerSlot::Open;
                reopened = true;
            }
        }
        reopened
    }

    /// From now on more servers matter: the bytes of those before cannot be had, or not now.
    pub(super) fn require_servers(&mut self, required: RequiredServers) {
        self.required = self.required.max(required);
    }

    pub(super) fn mark_cached(&mut self, server: ServerIndex) {
        self.slots[server] = AnswerSlot::Cached;
    }

    /// Records an answer without a usable narinfo. Only the first answer of a server counts.
    pub(super) fn answer(&mut self, server: ServerIndex, answer: ServerAnswer) {
        if !matches!(self.slots[server], AnswerSlot::Answered(_)) {
            self.slots[server] = AnswerSlot::Answered(answer);
        }
    }

    /// Records a narinfo that came with `answer`; `signed` is it if its signature was not refused.
    pub(super) fn note_narinfo(
        &mut self,
        answer: ServerAnswer,
        mut offer: ServerOffer,
        signed: Option<SignedNarInfo>,
        policy: &TrustPolicy,
    ) {
        let server = offer.source.server;
        if matches!(self.slots[server], AnswerSlot::Answered(_)) {
            return;
        }

        self.slots[server] = AnswerSlot::Answered(answer);
        let is_vote = self.quorum.is_some() && signed.is_some();
        if is_vote {
            offer.signed = signed.map(Box::new);
        } else if let Some(signed) = signed {
            offer.authorize(&judge(policy, None, &[]), &signed);
        }

        // Nearly always the only one.
        self.offers.reserve_exact(1);
        let place = self
            .offers
            .partition_point(|earlier| earlier.source.server < server);
        self.offers.insert(place, offer);
        if is_vote {
            self.count_votes(policy);
        }
    }

    /// Judges all signed narinfos again.
    fn count_votes(&mut self, policy: &TrustPolicy) {
        let signed = self
            .offers
            .iter()
            .filter_map(|offer| offer.signed.as_deref());
        let judgment = judge(policy, self.quorum, &signed.collect::<Vec<_>>());
        for offer in &mut self.offers {
            offer.judge(&judgment);
        }
        self.judgment = Some(Box::new(judgment));
    }

    /// What to do next, when servers for which `is_slow` holds need not be waited for: those that
    /// have answered are enough, unless their bytes could not be had.
    pub(super) fn next(&mut self, is_slow: impl Fn(ServerIndex) -> bool) -> NextStep {
        let first = self
            .server_with_authority()
            .filter(|_| self.required == RequiredServers::UntilAuthorized);
        let is_enough = self.selected().is_some() && self.required < RequiredServers::Reachable;

        let (mut open, mut is_awaited) = (Vec::new(), false);
        for (server, slot) in self.slots.enumerated() {
            if first.is_some_and(|first| server >= first) {
                break;
            }
            match slot {
                AnswerSlot::Cached => return NextStep::Wait,
                AnswerSlot::Open => open.push(server),
                AnswerSlot::Requested => is_awaited |= !(is_enough && is_slow(server)),
                AnswerSlot::Answered(_) => {}
            }
        }

        for &server in &open {
            self.slots[server] = AnswerSlot::Requested;
        }
        match (open.is_empty(), is_awaited) {
            (false, _) => NextStep::Request(open),
            (true, true) => NextStep::Wait,
            (true, false) => NextStep::Decided,
        }
    }

    /// The result as far as it is known; what is unanswered by now was not needed, or is late.
    pub(super) fn found(&self) -> ItemLookup {
        let mut builds = self.builds().into_iter();
        let (authority, sources) = match builds.next() {
            Some(ItemBuild { authority, sources }) => (Some(authority), sources),
            None => (None, Vec::new()),
        };

        let answers = self.answers(self.selected().map(|(offer, _)| &*offer.source.offer));
        let status = match authority {
            Some(_) => ItemStatus::Available,
            None => status_without_authority(&answers),
        };

        let (path, alternatives) = (self.path.clone(), builds.collect());
        ItemLookup {
            judgment: self.judgment.clone(),
            path,
            status,
            authority,
            sources,
            alternatives,
            answers,
        }
    }

    /// The selected narinfo, and after it all that describe other nars.
    fn builds(&self) -> Vec<ItemBuild> {
        let Some((first, authority)) = self.selected() else {
            return Vec::new();
        };
        let sources = self.sources(&first.source.offer);
        let mut builds = vec![ItemBuild {
            authority: authority.clone(),
            sources,
        }];
        let mut known = vec![&first.source.offer];
        for (offer, authority) in self.authorized() {
            let nar = &offer.source.offer;
            let sources = self.sources(nar);
            if !sources.is_empty() && !known.iter().any(|other| other.is_same_nar(nar)) {
                builds.push(ItemBuild {
                    authority: authority.clone(),
                    sources,
                });
                known.push(nar);
            }
        }
        builds
    }

    /// The answer of every server, when `nar` is the selected one.
    fn answers(&self, nar: Option<&NarOffer>) -> PerServer<ServerAnswer> {
        let first = self
            .server_with_authority()
            .filter(|_| self.quorum.is_none());
        let mut answers: PerServer<ServerAnswer> = self
            .slots
            .enumerated()
            .map(|(server, slot)| match slot {
                AnswerSlot::Answered(answer) => answer.clone(),
                // Behind the server with authority no answer was needed.
                AnswerSlot::Requested if first.is_none_or(|first| server < first) => {
                    ServerAnswer::of(LookupOutcome::NotAwaited)
                }
                AnswerSlot::Requested | AnswerSlot::Open | AnswerSlot::Cached => {
                    ServerAnswer::of(LookupOutcome::NotNeeded)
                }
            })
            .collect();

        for ServerOffer {
            source,
            authority,
            signed,
            usable,
        } in &self.offers
        {
            let is_same = nar.is_some_and(|nar| source.offer.is_same_nar(nar));
            let outcome = &mut answers[source.server].outcome;
            if signed.is_some() && authority.is_none() {
                if let Some(refusal) = self.judgment.as_ref().and_then(|it| it.refusal_of_others())
                {
                    *outcome = LookupOutcome::Refused(refusal);
                }
                continue;
            }
            match (usable, &outcome) {
                (Err(why), _) if is_same || authority.is_some() => {
                    *outcome = LookupOutcome::Unusable(why.clone());
                }
                (Ok(()), LookupOutcome::Refused(refusal)) if is_same => {
                    *outcome = LookupOutcome::Equivalent(refusal.clone());
                }
                _ => {}
            }
        }
        answers
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::format::store_path::StoreDir;
    use crate::substitute::outcome::LookupFailure;
    use crate::trust::acl::{Acl, AuthorizedKeys};
    use crate::trust::signed::verify_all;
    use crate::trust::signer::SignatureScope;

    fn item() -> LookupItem {
        LookupItem::new(
            StorePath::parse(&format!("{}-x", "0".repeat(32))).unwrap(),
            3,
            None,
        )
    }

    fn at<const N: usize>(places: [u32; N]) -> Vec<ServerIndex> {
        places.map(ServerIndex::at).into()
    }

    const NO_SERVER: fn(ServerIndex) -> bool = |_| false;

    #[test]
    fn every_server_is_requested_at_once_and_awaited() {
        let mut item = item();
        assert_eq!(item.next(NO_SERVER), NextStep::Request(at([0, 1, 2])));
        assert_eq!(item.next(NO_SERVER), NextStep::Wait);
        for server in 0..3 {
            assert_eq!(item.next(NO_SERVER), NextStep::Wait);
            item.answer(
                ServerIndex::at(server),
                ServerAnswer::of(LookupOutcome::Missing(404)),
            );
        }

        assert_eq!(item.next(NO_SERVER), NextStep::Decided);
        assert_eq!(item.found().status, ItemStatus::Missing);
    }

    #[test]
    fn a_cached_narinfo_is_verified_before_any_request() {
        let mut item = item();
        item.mark_cached(ServerIndex::at(1));
        assert_eq!(item.next(NO_SERVER), NextStep::Wait);
        item.answer(
            ServerIndex::at(1),
            ServerAnswer::of(LookupOutcome::Missing(404)),
        );
        assert_eq!(item.next(NO_SERVER), NextStep::Request(at([0, 2])));
    }

    #[test]
    fn the_other_servers_are_requested_when_the_first_answer_is_not_enough() {
        let mut item = item();
        item.require_servers(RequiredServers::All);
        item.mark_cached(ServerIndex::at(0));
        item.answer(
            ServerIndex::at(0),
            ServerAnswer::of(LookupOutcome::Authorized),
        );
        assert_eq!(item.next(NO_SERVER), NextStep::Request(at([1, 2])));
        item.answer(
            ServerIndex::at(2),
            ServerAnswer::of(LookupOutcome::Missing(404)),
        );
        assert_eq!(item.next(NO_SERVER), NextStep::Wait);
        item.answer(
            ServerIndex::at(1),
            ServerAnswer::of(LookupOutcome::Missing(404)),
        );
        assert_eq!(item.next(NO_SERVER), NextStep::Decided);
    }

    #[test]
    fn a_slow_server_is_awaited_when_no_other_has_the_item() {
        let mut item = item();
        assert_eq!(item.next(|_| true), NextStep::Request(at([0, 1, 2])));
        item.answer(
            ServerIndex::at(1),
            ServerAnswer::of(LookupOutcome::Missing(404)),
        );
        item.answer(
            ServerIndex::at(2),
            ServerAnswer::of(LookupOutcome::Missing(404)),
        );
        assert_eq!(item.next(|_| true), NextStep::Wait);
    }

    #[test]
    fn servers_that_were_left_out_matter_when_the_nar_cannot_be_downloaded() {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/guix");
        let narinfo = fixtures.join("brvhk9q2pz7v2244vx5l34z1497khx1q.narinfo");
        let text = std::fs::read_to_string(narinfo).unwrap();
        let acl = std::fs::read(fixtures.join("acl")).unwrap();
        let store_dir = StoreDir::parse(StoreDir::GUIX).unwrap();
        let narinfo = Arc::new(NarInfo::parse(text, &store_dir).unwrap());
        let keys = AuthorizedKeys::Guix(Acl::parse(&acl).unwrap());
        let claims = vec![(Arc::clone(&narinfo), narinfo.store_path())];
        let signed = verify_all(claims, &keys, &store_dir, SignatureScope::First);
        let signed = signed.into_iter().next().unwrap().unwrap();

        let mut item = item();
        assert_eq!(item.next(NO_SERVER), NextStep::Request(at([0, 1, 2])));
        item.answer(
            ServerIndex::at(0),
            ServerAnswer::of(LookupOutcome::Skipped(LookupFailure::Cached("down".into()))),
        );
        let source = NarSource {
            server: ServerIndex::at(2),
            offer: Arc::new(NarOffer::of(&narinfo)),
        };

        let (answer, policy) = (
            ServerAnswer::of(LookupOutcome::Authorized),
            TrustPolicy::default(),
        );
        item.note_narinfo(
            answer,
            ServerOffer::new(source, Ok(())),
            Some(signed),
            &policy,
        );
        assert_eq!(item.next(|_| true), NextStep::Decided);
        assert!(!item.reopen(&at([0])));
        item.require_servers(RequiredServers::All);
        assert_eq!(item.next(|_| true), NextStep::Wait);
        item.answer(
            ServerIndex::at(1),
            ServerAnswer::of(LookupOutcome::Missing(404)),
        );
        assert_eq!(item.next(|_| true), NextStep::Decided);
        assert!(item.reopen(&at([0])));
        assert_eq!(item.next(|_| true), NextStep::Request(at([0])));
    }

    #[test]
    fn only_the_first_answer_of_a_server_counts() {
        let mut item = item();
        item.answer(
            ServerIndex::at(0),
            ServerAnswer::of(LookupOutcome::Missing(404)),
        );
        item.answer(
            ServerIndex::at(0),
            ServerAnswer::of(LookupOutcome::Failed(LookupFailure::Cached("late".into()))),
        );
        let found = item.found();
        let [first, second] = [0, 1].map(|server| &found.answers[ServerIndex::at(server)].outcome);
        assert!(matches!(first, LookupOutcome::Missing(404)));
        assert!(matches!(second, LookupOutcome::NotNeeded));
    }
}
