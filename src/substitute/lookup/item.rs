//! One item while it is looked up on servers: the answers so far, and the decision. Pure.
//!
//! Servers are requested side by side, but the user's order decides: the first server in it with
//! an authorized narinfo is chosen, if that names a download that can be used. So an item is decided
//! when some server answered with authority and no server before it can still do so, or when
//! no answer is outstanding. An authorized narinfo without a usable download counts only when
//! there is no other: then an equivalent narinfo may name a download of its nar.
//!
//! Where the policy counts votes, each signed narinfo that comes in has all of them judged again. The
//! item is decided when all servers have answered, since any of them may disagree, except those that
//! are down or have kept votes waiting for too long. Before the policy refuses an item, what the lookup
//! cache had of it is requested from the servers, once.

use std::sync::Arc;

use crate::format::narinfo::{NarInfo, NarOffer};
use crate::format::server_list::{PerServer, ServerIndex};
use crate::format::store_path::StorePath;
use crate::substitute::item_lookup::{Authority, NarSource};
use crate::substitute::lookup::answer_slot::AnswerSlot;
use crate::substitute::lookup::options::{Patience, RequiredServers};
use crate::substitute::lookup::server_offer::ServerOffer;
use crate::substitute::outcome::{LookupOutcome, ServerAnswer};
use crate::trust::policy::TrustPolicy;
use crate::trust::signed::SignedNarInfo;
use crate::trust::verdict::{Judgment, Refusal, judge};

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
    pub(super) slots: PerServer<AnswerSlot>,
    /// In the user's order.
    pub(super) offers: Vec<ServerOffer>,
    /// Nars of authorized narinfos that could not be had.
    rejected: Vec<NarOffer>,
    /// Whether servers behind the one with authority matter too.
    required: RequiredServers,
    /// How many principals have to agree; `None`: any one authorized key suffices.
    pub(super) quorum: Option<usize>,
    policy: Arc<TrustPolicy>,
    /// What follows from the votes, once there are any.
    pub(super) judgment: Option<Box<Judgment>>,
    /// Whether cached answers were requested again.
    is_renewed: bool,
}

impl LookupItem {
    pub(super) fn new(path: StorePath, servers: usize, policy: Arc<TrustPolicy>) -> Self {
        let quorum = policy.quorum(path.as_ref());
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
            policy,
            judgment: None,
            is_renewed: false,
        }
    }

    /// The same item, which has not been looked up. What was rejected stays so.
    pub(super) fn renewed(&mut self) -> Self {
        let rejected = std::mem::take(&mut self.rejected);
        Self {
            rejected,
            ..Self::new(
                self.path.clone(),
                self.slots.len(),
                Arc::clone(&self.policy),
            )
        }
    }

    /// Stops going by `narinfo` and equivalent ones: the nar cannot be had.
    pub(super) fn reject(&mut self, narinfo: &NarInfo) {
        self.rejected.push(NarOffer::of(narinfo));
    }

    /// The selected narinfo: the first authorized one with a usable download. Failing that, one
    /// whose download is described by an equivalent narinfo alone.
    pub(super) fn selected(&self) -> Option<(&ServerOffer, &Authority)> {
        let by_itself = self.authorized().find(|(offer, _)| offer.is_usable());
        by_itself.or_else(|| {
            self.authorized()
                .find(|(offer, _)| self.has_sources(&offer.source.offer))
        })
    }

    /// The authorized narinfos that have not been rejected, in the user's order.
    pub(super) fn authorized(&self) -> impl Iterator<Item = (&ServerOffer, &Authority)> {
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
    pub(super) fn sources(&self, nar: &NarOffer) -> Vec<NarSource> {
        let usable = self.offers.iter().filter(|offer| offer.is_usable());
        usable
            .filter(|offer| offer.is_same_nar(nar))
            .map(|offer| offer.source.clone())
            .collect()
    }

    /// The first server with an authorized narinfo that needs no other server.
    pub(super) fn server_with_authority(&self) -> Option<ServerIndex> {
        let (offer, _) = self.selected()?;
        offer.is_usable().then_some(offer.source.server)
    }

    /// What the lookup on `server` gave, if it has ended.
    pub(super) fn outcome(&self, server: ServerIndex) -> Option<&LookupOutcome> {
        self.slots[server].known().map(|answer| &answer.outcome)
    }

    /// Whether there is no answer of the server and no request to it.
    pub(super) fn is_open(&self, server: ServerIndex) -> bool {
        matches!(self.slots[server], AnswerSlot::Open)
    }

    /// The servers whose answer was not waited for, though the user prefers them to the one
    /// with authority, or votes are counted.
    pub(super) fn not_awaited(&self) -> Vec<ServerIndex> {
        let first = self.selected().map(|(offer, _)| offer.source.server);
        let mut servers = self.unanswered();
        servers
            .retain(|server| self.quorum.is_some() || first.is_some_and(|first| *server < first));
        servers
    }

    /// The servers that owe an answer.
    pub(super) fn unanswered(&self) -> Vec<ServerIndex> {
        let servers = self.slots.enumerated();
        let asked = servers.filter(|(_, slot)| slot.is_owed());
        asked.map(|(server, _)| server).collect()
    }

    /// The selected narinfo, if there is an authorized one.
    pub(super) fn narinfo(&self) -> Option<&Arc<NarInfo>> {
        self.selected().map(|(_, authority)| authority.narinfo())
    }

    /// A narinfo that authorized keys have signed and the policy has refused, for reports.
    pub(super) fn refused_narinfo(&self) -> Option<&Arc<NarInfo>> {
        self.policy_refusal()?;
        let mut signed = self.offers.iter().filter_map(|offer| offer.signed.as_ref());
        Some(signed.next()?.narinfo())
    }

    /// Why the policy refuses what authorized keys have signed.
    pub(super) fn policy_refusal(&self) -> Option<&Refusal> {
        self.judgment.as_ref()?.refusal()
    }

    /// Why the policy has accepted the item with a warning only.
    pub(super) fn objection(&self) -> Option<&Refusal> {
        self.judgment.as_ref()?.objection()
    }

    /// Whether no server has the item, the policy refuses it, or its bytes cannot be had.
    pub(super) fn is_more_wanted(&self) -> bool {
        self.selected().is_none() || self.required == RequiredServers::All
    }

    /// Makes it possible to use those of `servers` that were skipped; which of them were.
    pub(super) fn reopen(&mut self, servers: &[ServerIndex]) -> Vec<ServerIndex> {
        let mut reopened = servers.to_vec();
        reopened.retain(|server| self.slots[*server].reopen());
        reopened
    }

    /// Notes that the answers of those of `servers` are requested again whose answers came from the
    /// lookup cache; none the next time.
    pub(super) fn request_cached_again(&mut self, servers: &[ServerIndex]) -> Vec<ServerIndex> {
        if std::mem::replace(&mut self.is_renewed, true) {
            return Vec::new();
        }
        let mut renewed = servers.to_vec();
        renewed.retain(|server| self.slots[*server].request_again());
        renewed
    }

    /// Whether an answer of `server` that the lookup cache had counts until there is a new one.
    pub(super) fn is_requested_again(&self, server: ServerIndex) -> bool {
        matches!(self.slots[server], AnswerSlot::RequestedAgain(_))
    }

    /// From now on more servers matter: the bytes of those before cannot be had, or not now.
    pub(super) fn require_servers(&mut self, required: RequiredServers) {
        self.required = self.required.max(required);
    }

    pub(super) fn mark_cached(&mut self, server: ServerIndex) {
        self.slots[server] = AnswerSlot::Cached;
    }

    /// Records an answer without a usable narinfo, if it counts.
    pub(super) fn answer(&mut self, server: ServerIndex, answer: ServerAnswer) {
        if self.slots[server].accept(answer) {
            self.withdraw_offer(server);
        }
    }

    /// Removes what an earlier answer of `server` offered.
    fn withdraw_offer(&mut self, server: ServerIndex) {
        let count = self.offers.len();
        self.offers.retain(|offer| offer.source.server != server);
        if self.offers.len() < count && self.quorum.is_some() {
            self.count_votes();
        }
    }

    /// Records a narinfo that came with `answer`; `signed` is it if its signature was not refused.
    pub(super) fn note_narinfo(
        &mut self,
        answer: ServerAnswer,
        mut offer: ServerOffer,
        signed: Option<SignedNarInfo>,
    ) {
        let server = offer.source.server;
        if !self.slots[server].accept(answer) {
            return;
        }

        self.withdraw_offer(server);
        let is_vote = self.quorum.is_some() && signed.is_some();
        if is_vote {
            offer.signed = signed.map(Box::new);
        } else if let Some(signed) = signed {
            offer.authorize(&judge(&self.policy, None, &[]), &signed);
        }

        // Nearly always the only one.
        self.offers.reserve_exact(1);
        let place = self
            .offers
            .partition_point(|earlier| earlier.source.server < server);
        self.offers.insert(place, offer);
        if is_vote {
            self.count_votes();
        }
    }

    /// Judges all signed narinfos again.
    fn count_votes(&mut self) {
        let offers = self.offers.iter();
        let signed: Vec<_> = offers.filter_map(|offer| offer.signed.as_deref()).collect();
        if signed.is_empty() {
            self.judgment = None;
            return;
        }

        let judgment = judge(&self.policy, self.quorum, &signed);
        for offer in &mut self.offers {
            offer.judge(&judgment);
        }
        self.judgment = Some(Box::new(judgment));
    }

    /// How long answers are waited for; `None`: as long as it takes.
    fn patience(&self) -> Option<Patience> {
        match (self.required, self.selected().is_some()) {
            (RequiredServers::All, _) => None,
            (RequiredServers::Reachable, true) => Some(Patience::Dissent),
            (RequiredServers::Reachable, false) => Some(Patience::Vote),
            (RequiredServers::UntilAuthorized | RequiredServers::Responsive, is_selected) => {
                is_selected.then_some(Patience::Lag)
            }
        }
    }

    /// What to do next, when servers for which `is_late` holds need not be waited for: those that
    /// have answered are enough, unless their bytes could not be had.
    pub(super) fn next(&mut self, is_late: impl Fn(ServerIndex, Patience) -> bool) -> NextStep {
        let first = self
            .server_with_authority()
            .filter(|_| self.required == RequiredServers::UntilAuthorized);
        let patience = self.patience();

        let (mut open, mut is_awaited) = (Vec::new(), false);
        for (server, slot) in self.slots.enumerated() {
            if first.is_some_and(|first| server >= first) {
                break;
            }
            match slot {
                AnswerSlot::Cached => return NextStep::Wait,
                AnswerSlot::Open => open.push(server),
                AnswerSlot::Requested | AnswerSlot::RequestedAgain(_) => {
                    is_awaited |= !patience.is_some_and(|patience| is_late(server, patience));
                }
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
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::format::store_path::StoreDir;
    use crate::substitute::item_lookup::ItemStatus;
    use crate::substitute::outcome::{AnswerOrigin, LookupFailure};
    use crate::trust::acl::{Acl, AuthorizedKeys};
    use crate::trust::signed::verify_all;
    use crate::trust::signer::SignatureScope;

    fn item() -> LookupItem {
        LookupItem::new(
            StorePath::parse(&format!("{}-x", "0".repeat(32))).unwrap(),
            3,
            Arc::default(),
        )
    }

    fn at<const N: usize>(places: [u32; N]) -> Vec<ServerIndex> {
        places.map(ServerIndex::at).into()
    }

    const NO_SERVER: fn(ServerIndex, Patience) -> bool = |_, _| false;

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
        assert_eq!(item.next(|_, _| true), NextStep::Request(at([0, 1, 2])));
        item.answer(
            ServerIndex::at(1),
            ServerAnswer::of(LookupOutcome::Missing(404)),
        );
        item.answer(
            ServerIndex::at(2),
            ServerAnswer::of(LookupOutcome::Missing(404)),
        );
        assert_eq!(item.next(|_, _| true), NextStep::Wait);
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

        let answer = ServerAnswer::of(LookupOutcome::Authorized);
        item.note_narinfo(answer, ServerOffer::new(source, Ok(())), Some(signed));
        assert_eq!(item.next(|_, _| true), NextStep::Decided);
        assert!(!item.is_more_wanted());
        item.require_servers(RequiredServers::All);
        assert_eq!(item.next(|_, _| true), NextStep::Wait);
        item.answer(
            ServerIndex::at(1),
            ServerAnswer::of(LookupOutcome::Missing(404)),
        );
        assert_eq!(item.next(|_, _| true), NextStep::Decided);
        assert!(item.is_more_wanted());
        assert_eq!(item.reopen(&at([0, 1])), at([0]));
        assert_eq!(item.next(|_, _| true), NextStep::Request(at([0])));
    }

    #[test]
    fn a_cached_answer_counts_until_the_server_has_given_another_one() {
        let mut item = item();
        let cached = || ServerAnswer {
            outcome: LookupOutcome::Missing(404),
            origin: AnswerOrigin::Cache {
                asked_at: 1,
                expires_at: 2,
            },
            expires_at: Some(2),
        };
        let servers = at([0, 1, 2]);
        for &server in &servers[..2] {
            item.answer(server, cached());
        }
        assert_eq!(item.next(NO_SERVER), NextStep::Request(at([2])));
        item.answer(servers[2], ServerAnswer::of(LookupOutcome::Missing(404)));

        assert_eq!(item.request_cached_again(&servers), at([0, 1]));
        assert_eq!(item.next(NO_SERVER), NextStep::Wait);
        let late = LookupOutcome::Failed(LookupFailure::Cached("late".into()));
        item.answer(servers[0], ServerAnswer::of(late));
        item.answer(servers[1], ServerAnswer::of(LookupOutcome::Preparing(202)));
        assert_eq!(item.next(NO_SERVER), NextStep::Decided);
        let names = servers
            .iter()
            .map(|&server| item.outcome(server).unwrap().name());
        assert_eq!(
            names.collect::<Vec<_>>(),
            ["missing", "preparing", "missing"]
        );

        item.answer(servers[0], cached());
        assert!(item.request_cached_again(&servers).is_empty());
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
