//! One item while servers are being asked about it: pure bookkeeping and the decision.
//!
//! Servers are asked side by side, but the user's order decides: the first server in it with
//! an authorised narinfo wins. So an item is decided when some server answered with authority
//! and no server before it can still do so, or when nobody is left to answer.

use std::sync::Arc;

use crate::format::narinfo::NarInfo;
use crate::format::store_path::StorePath;
use crate::substitute::answer::{self, Answer, Authority, Found, Said, Source, Status};

/// What is known of one server's answer.
#[derive(Debug, Clone)]
enum Slot {
    /// Nothing yet; the server can be asked.
    Open,
    /// The lookup cache has a narinfo; its signature is being checked.
    Remembered,
    /// The server has been asked.
    Asked,
    /// Known.
    Answered(Answer),
}

/// What to do next about an item.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Ask these servers.
    Ask(Vec<usize>),
    /// Wait for answers.
    Wait,
    /// Nothing can change the result any more.
    Decided,
}

pub(super) struct Item {
    pub(super) path: StorePath,
    slots: Vec<Slot>,
    narinfos: Vec<Source>,
    authority: Option<(usize, Authority)>,
    /// Whether servers behind the one with authority matter too.
    asks_everybody: bool,
}

impl Item {
    pub(super) fn new(path: StorePath, servers: usize) -> Self {
        Self {
            path,
            slots: vec![Slot::Open; servers],
            narinfos: Vec::new(),
            authority: None,
            asks_everybody: false,
        }
    }

    /// Whether nothing is known of the server's answer and nobody has asked.
    pub(super) fn is_open(&self, server: usize) -> bool {
        matches!(self.slots[server], Slot::Open)
    }

    /// The servers whose answer was not waited for, though the user prefers them to the one
    /// with authority.
    pub(super) fn left_behind(&self) -> Vec<usize> {
        let first = self.authority.as_ref().map_or(0, |(first, _)| *first);
        self.unanswered().into_iter().filter(|server| *server < first).collect()
    }

    /// The servers that were asked and have not answered.
    pub(super) fn unanswered(&self) -> Vec<usize> {
        let is_asked = |server: &usize| matches!(self.slots[*server], Slot::Asked);
        (0..self.slots.len()).filter(is_asked).collect()
    }

    /// The narinfo to go by, if there is an authorised one.
    pub(super) fn narinfo(&self) -> Option<&Arc<NarInfo>> {
        self.authority.as_ref().map(|(_, authority)| authority.narinfo())
    }

    /// Makes it possible to ask those of `servers` that were skipped, when nobody else has the
    /// item or its bytes; whether there are any.
    pub(super) fn reopen(&mut self, servers: &[usize]) -> bool {
        let mut reopened = false;
        let is_wanted = self.authority.is_none() || self.asks_everybody;
        for &server in servers.iter().filter(|_| is_wanted) {
            let slot = &mut self.slots[server];
            if matches!(slot, Slot::Answered(Answer { said: Said::Skipped(_), .. })) {
                *slot = Slot::Open;
                reopened = true;
            }
        }
        reopened
    }

    /// From now on every server matters: the bytes of those before could not be had.
    pub(super) fn ask_everybody(&mut self) {
        self.asks_everybody = true;
    }

    pub(super) fn mark_remembered(&mut self, server: usize) {
        self.slots[server] = Slot::Remembered;
    }

    /// Records an answer without a usable narinfo. Only the first answer of a server counts.
    pub(super) fn answer(&mut self, server: usize, answer: Answer) {
        if !matches!(self.slots[server], Slot::Answered(_)) {
            self.slots[server] = Slot::Answered(answer);
        }
    }

    /// Records a narinfo that came with `answer`, and the authority that vouches for it.
    pub(super) fn note_narinfo(
        &mut self,
        server: usize,
        answer: Answer,
        narinfo: Arc<NarInfo>,
        authority: Option<Authority>,
    ) {
        if matches!(self.slots[server], Slot::Answered(_)) {
            return;
        }
        self.slots[server] = Slot::Answered(answer);
        // Nearly always the only one.
        self.narinfos.reserve_exact(1);
        self.narinfos.push(Source { server, narinfo });
        let is_first = self.authority.as_ref().is_none_or(|(first, _)| server < *first);
        if let Some(authority) = authority.filter(|_| is_first) {
            self.authority = Some((server, authority));
        }
    }

    /// What to do next, when servers for which `lags` holds need not be waited for: those who
    /// have answered are enough, unless their bytes could not be had.
    pub(super) fn next(&mut self, lags: impl Fn(usize) -> bool) -> Next {
        let before = match &self.authority {
            Some((server, _)) if !self.asks_everybody => *server,
            _ => self.slots.len(),
        };
        let relevant = &self.slots[..before];
        if relevant.iter().any(|slot| matches!(slot, Slot::Remembered)) {
            return Next::Wait;
        }
        let open: Vec<usize> =
            (0..before).filter(|&server| matches!(self.slots[server], Slot::Open)).collect();
        if !open.is_empty() {
            for &server in &open {
                self.slots[server] = Slot::Asked;
            }
            return Next::Ask(open);
        }
        let is_enough = self.authority.is_some() && !self.asks_everybody;
        let is_waited_for = |server: &usize| {
            matches!(self.slots[*server], Slot::Asked) && !(is_enough && lags(*server))
        };
        if (0..before).any(|server| is_waited_for(&server)) { Next::Wait } else { Next::Decided }
    }

    /// The result as far as it is known; what is unanswered by now was not needed, or is late.
    /// Sources for which `is_usable` does not hold name no download that could be taken.
    pub(super) fn found(&self, is_usable: &dyn Fn(&Source) -> bool) -> Found {
        let needed = self.authority.as_ref().map_or(self.slots.len(), |(server, _)| *server);
        let authority = self.authority.as_ref().map(|(_, authority)| authority.clone());
        let mut sources = Vec::with_capacity(self.narinfos.len());
        let mut answers: Vec<Answer> = (0..self.slots.len())
            .map(|server| match &self.slots[server] {
                Slot::Answered(answer) => answer.clone(),
                // Behind the server with authority no answer was needed.
                Slot::Asked if server < needed => Answer::of(Said::Late),
                Slot::Asked | Slot::Open | Slot::Remembered => Answer::of(Said::NotAsked),
            })
            .collect();
        if let Some(authority) = &authority {
            for source in &self.narinfos {
                if !source.narinfo.is_equivalent(authority.narinfo()) {
                    continue;
                }
                let said = &mut answers[source.server].said;
                if !is_usable(source) {
                    *said = Said::Unusable;
                    continue;
                }
                sources.push(source.clone());
                if let Said::Refused(refusal) = said {
                    *said = Said::Equivalent(refusal.clone());
                }
            }
            sources.sort_by_key(|source| source.server);
        }
        let authority = authority.filter(|_| !sources.is_empty());
        let status = match authority {
            Some(_) => Status::Available,
            None => answer::status_without_authority(&answers),
        };
        Found { path: self.path.clone(), status, authority, sources, answers }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::format::store_path::StoreDir;
    use crate::trust::acl::{Acl, AuthorizedKeys};
    use crate::trust::verdict::authorize;

    fn item() -> Item {
        Item::new(StorePath::parse(&format!("{}-x", "0".repeat(32))).unwrap(), 3)
    }

    const NOBODY: fn(usize) -> bool = |_| false;

    #[test]
    fn asks_every_server_at_once_and_waits_for_all() {
        let mut item = item();
        assert_eq!(item.next(NOBODY), Next::Ask(vec![0, 1, 2]));
        assert_eq!(item.next(NOBODY), Next::Wait);
        for server in 0..3 {
            assert_eq!(item.next(NOBODY), Next::Wait);
            item.answer(server, Answer::of(Said::Missing(404)));
        }
        assert_eq!(item.next(NOBODY), Next::Decided);
        assert_eq!(item.found(&|_| true).status, Status::Missing);
    }

    #[test]
    fn a_remembered_narinfo_is_checked_before_anybody_is_asked() {
        let mut item = item();
        item.mark_remembered(1);
        assert_eq!(item.next(NOBODY), Next::Wait);
        item.answer(1, Answer::of(Said::Missing(404)));
        assert_eq!(item.next(NOBODY), Next::Ask(vec![0, 2]));
    }

    #[test]
    fn everybody_is_asked_when_the_first_answer_was_not_enough() {
        let mut item = item();
        item.ask_everybody();
        item.mark_remembered(0);
        item.answer(0, Answer::of(Said::Authorized));
        assert_eq!(item.next(NOBODY), Next::Ask(vec![1, 2]));
        item.answer(2, Answer::of(Said::Missing(404)));
        assert_eq!(item.next(NOBODY), Next::Wait);
        item.answer(1, Answer::of(Said::Missing(404)));
        assert_eq!(item.next(NOBODY), Next::Decided);
    }

    #[test]
    fn a_server_that_lags_is_waited_for_when_nobody_else_has_the_item() {
        let mut item = item();
        assert_eq!(item.next(|_| true), Next::Ask(vec![0, 1, 2]));
        item.answer(1, Answer::of(Said::Missing(404)));
        item.answer(2, Answer::of(Said::Missing(404)));
        assert_eq!(item.next(|_| true), Next::Wait);
    }

    #[test]
    fn whoever_was_left_out_matters_when_the_bytes_cannot_be_had() {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/guix");
        let read = |name| std::fs::read_to_string(fixtures.join(name)).unwrap();
        let text = read("brvhk9q2pz7v2244vx5l34z1497khx1q.narinfo");
        let store_dir = StoreDir::parse(StoreDir::GUIX).unwrap();
        let narinfo = Arc::new(NarInfo::parse(text, &store_dir).unwrap());
        let keys = AuthorizedKeys::Guix(Acl::parse(read("acl").as_bytes()).unwrap());
        let authorized =
            authorize(Arc::clone(&narinfo), narinfo.store_path(), &keys, &store_dir).unwrap();
        let authority = Authority::Checked(Arc::new(authorized));

        let mut item = item();
        assert_eq!(item.next(NOBODY), Next::Ask(vec![0, 1, 2]));
        item.answer(0, Answer::of(Said::Skipped("down".into())));
        item.note_narinfo(2, Answer::of(Said::Authorized), narinfo, Some(authority));
        assert_eq!(item.next(|_| true), Next::Decided);
        assert!(!item.reopen(&[0]));
        item.ask_everybody();
        assert_eq!(item.next(|_| true), Next::Wait);
        item.answer(1, Answer::of(Said::Missing(404)));
        assert_eq!(item.next(|_| true), Next::Decided);
        assert!(item.reopen(&[0]));
        assert_eq!(item.next(|_| true), Next::Ask(vec![0]));
    }

    #[test]
    fn only_the_first_answer_of_a_server_counts() {
        let mut item = item();
        item.answer(0, Answer::of(Said::Missing(404)));
        item.answer(0, Answer::of(Said::Failed("late".into())));
        let found = item.found(&|_| true);
        assert_eq!(found.answers[0].said, Said::Missing(404));
        assert_eq!(found.answers[1].said, Said::NotAsked);
    }
}
