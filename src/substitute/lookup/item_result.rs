//! The result of looking an item up, from the answers so far.

use crate::format::narinfo::NarOffer;
use crate::format::server_list::PerServer;
use crate::substitute::item_lookup::{ItemBuild, ItemLookup, ItemStatus, status_without_authority};
use crate::substitute::lookup::answer_slot::AnswerSlot;
use crate::substitute::lookup::item::LookupItem;
use crate::substitute::lookup::server_offer::ServerOffer;
use crate::substitute::outcome::{LookupOutcome, ServerAnswer};

impl LookupItem {
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
                AnswerSlot::Answered(answer) | AnswerSlot::RequestedAgain(answer) => answer.clone(),
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
