//! Which callers wait for which items, and which items follow from others.

use std::collections::HashSet;

use crossbeam_channel::Sender;

use crate::substitute::lookup::items::ItemIndex;
use crate::substitute::lookup::options::{LookupObserver, LookupScope};
use crate::substitute::lookup::resolution::Resolution;

/// One call of `resolve` or `prefetch`.
struct LookupRequest {
    /// Items in the order in which they came up.
    items: Vec<ItemIndex>,
    seen: HashSet<ItemIndex>,
    undecided: usize,
    walk: LookupScope,
    reply: Option<Sender<Resolution>>,
    observer: Option<LookupObserver>,
}

/// All requests that still wait for something.
#[derive(Default)]
pub(super) struct LookupRequests {
    slots: Vec<Option<LookupRequest>>,
}

/// A request that waits for nothing any more.
pub(super) struct CompletedLookupRequest {
    pub(super) items: Vec<ItemIndex>,
    pub(super) reply: Option<Sender<Resolution>>,
}

impl LookupRequests {
    pub(super) fn open(
        &mut self,
        walk: LookupScope,
        reply: Option<Sender<Resolution>>,
        observer: Option<LookupObserver>,
    ) -> usize {
        let request = LookupRequest {
            items: Vec::new(),
            seen: HashSet::new(),
            undecided: 0,
            walk,
            reply,
            observer,
        };

        let free = self
            .slots
            .iter()
            .position(Option::is_none)
            .unwrap_or_else(|| {
                self.slots.push(None);
                self.slots.len() - 1
            });
        self.slots[free] = Some(request);
        free
    }

    /// Adds `item` to the request; whether it was not part of it before.
    pub(super) fn add(&mut self, request: usize, item: ItemIndex) -> bool {
        let Some(Some(request)) = self.slots.get_mut(request) else {
            return false;
        };
        let is_new = request.seen.insert(item);
        if is_new {
            request.items.push(item);
            request.undecided += 1;
        }
        is_new
    }

    /// How the request goes on from an item to its references.
    pub(super) fn walk(&self, request: usize) -> Option<LookupScope> {
        self.slots
            .get(request)?
            .as_ref()
            .map(|request| request.walk.clone())
    }

    /// What is told of each item of the request when it is decided.
    pub(super) fn observer(&self, request: usize) -> Option<LookupObserver> {
        self.slots.get(request)?.as_ref()?.observer.clone()
    }

    /// An item of the request is decided, and the items that follow from it have been added.
    pub(super) fn decided(&mut self, request: usize) {
        if let Some(Some(request)) = self.slots.get_mut(request) {
            request.undecided -= 1;
        }
    }

    /// Takes out the request when it waits for nothing any more.
    pub(super) fn take_complete(&mut self, request: usize) -> Option<CompletedLookupRequest> {
        let slot = self.slots.get_mut(request)?;
        let LookupRequest { items, reply, .. } = slot.take_if(|request| request.undecided == 0)?;
        Some(CompletedLookupRequest { items, reply })
    }

    /// How many items that callers wait for are decided, and how many there are.
    pub(super) fn progress(&self) -> (usize, usize) {
        let waiting = self
            .slots
            .iter()
            .flatten()
            .filter(|request| request.reply.is_some());
        waiting.fold((0, 0), |(done, total), request| {
            let known = request.items.len();
            (done + known - request.undecided, total + known)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_complete_when_everything_that_follows_is_decided() {
        let (first, second) = (ItemIndex::at(7), ItemIndex::at(8));
        let mut requests = LookupRequests::default();
        let request = requests.open(LookupScope::Closure(None), None, None);
        assert!(requests.add(request, first));
        assert!(!requests.add(request, first));
        assert!(requests.take_complete(request).is_none());
        assert!(requests.add(request, second));
        requests.decided(request);
        assert!(requests.take_complete(request).is_none());
        requests.decided(request);
        assert_eq!(
            requests.take_complete(request).unwrap().items,
            [first, second]
        );
        assert_eq!(
            requests.open(LookupScope::ItemsOnly, None, None),
            request,
            "the slot is free again"
        );
    }
}
