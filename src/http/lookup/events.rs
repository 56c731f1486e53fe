//! What lookups report, and the queue it comes through.
//!
//! The connections' side never blocks a thread and the caller's side never touches the runtime.
//! What waits in the queue is bounded in *bytes*: a connection that has an answer pays for its
//! size before it may put it in, and the payment comes back when the caller takes it out. So a
//! server with large answers stops being read, instead of filling the memory.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};
#[cfg(test)]
use crossbeam_channel::{RecvTimeoutError, TryRecvError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::format::store_path::HashPart;
use crate::http::error::HttpError;
use crate::http::net::runtime::Engine;
use crate::http::options::{Pipelining, Protocol};

/// One thing that happened to the lookups.
#[derive(Debug)]
pub(crate) enum LookupEvent {
    /// What the server says of itself; once per server of which it was to be asked.
    CacheInfo {
        /// The server's place in the list.
        server: usize,
        /// Its `nix-cache-info`; none: it has no such file, the defaults hold.
        info: Result<Option<CacheInfoText>, HttpError>,
    },
    /// The answer to one [`ask`](crate::http::Lookups::ask); exactly one for each.
    Answer {
        /// The server's place in the list.
        server: usize,
        /// The item asked for.
        item: HashPart,
        /// What the server says.
        answer: Result<NarInfoAnswer, HttpError>,
    },
    /// Something to remember for the next time.
    Learned {
        /// The server's place in the list.
        server: usize,
        /// What was learned of it.
        what: Learned,
    },
    /// The server is given up; sent once. What was asked and will be asked of it is answered with
    /// an error.
    ServerDown {
        /// The server's place in the list.
        server: usize,
        /// Why.
        error: HttpError,
    },
}

/// A server's `nix-cache-info`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CacheInfoText {
    /// The file.
    pub(crate) text: String,
    /// For how many seconds the server vouches for it.
    pub(crate) max_age: Option<u64>,
}

/// What a server says of an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NarInfoAnswer {
    /// It has it.
    Found {
        /// The narinfo, not looked at yet.
        text: Vec<u8>,
        /// For how many seconds the server vouches for the answer.
        max_age: Option<u64>,
    },
    /// It does not have it.
    Missing {
        /// The HTTP status.
        status: u16,
        /// For how many seconds the server vouches for the answer.
        max_age: Option<u64>,
    },
    /// It is preparing it.
    Baking {
        /// The HTTP status.
        status: u16,
        /// For how many seconds the server vouches for the answer.
        max_age: Option<u64>,
    },
}

/// Something about a server that makes the next run quicker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Learned {
    /// Whether it can be asked ahead.
    Pipelining(Pipelining),
    /// After how many answers it closes a connection.
    RequestsPerConnection(u32),
    /// What it speaks.
    Protocol(Protocol),
}

/// Why there is no event to take.
#[cfg(test)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoEvent {
    /// There may be one later.
    NotYet,
    /// There will be none: every [`Lookups`](crate::http::Lookups) handle is gone.
    Ended,
}

/// The receiving side of the lookups.
#[derive(Debug)]
pub(crate) struct LookupEvents {
    events: Receiver<QueuedEvent>,
    /// The connections live as long as somebody listens.
    _engine: Arc<Engine>,
}

impl LookupEvents {
    /// The queue itself, to wait for it and others at once. `self` must be kept: the connections
    /// live only as long.
    #[must_use]
    pub(crate) fn queue(&self) -> Receiver<QueuedEvent> {
        self.events.clone()
    }

    /// Waits for the next event; none: every [`Lookups`](crate::http::Lookups) handle is gone.
    pub(crate) fn recv(&mut self) -> Option<LookupEvent> {
        self.events.recv().ok().map(|queued| queued.event)
    }

    /// Waits for the next event, at most `timeout`.
    ///
    /// # Errors
    /// There is none in that time, or ever.
    #[cfg(test)]
    pub(crate) fn recv_timeout(
        &mut self,
        timeout: std::time::Duration,
    ) -> Result<LookupEvent, NoEvent> {
        match self.events.recv_timeout(timeout) {
            Ok(queued) => Ok(queued.event),
            Err(RecvTimeoutError::Timeout) => Err(NoEvent::NotYet),
            Err(RecvTimeoutError::Disconnected) => Err(NoEvent::Ended),
        }
    }

    /// The next event if it is there already.
    ///
    /// # Errors
    /// There is none now, or ever.
    #[cfg(test)]
    pub(crate) fn try_recv(&mut self) -> Result<LookupEvent, NoEvent> {
        match self.events.try_recv() {
            Ok(queued) => Ok(queued.event),
            Err(TryRecvError::Empty) => Err(NoEvent::NotYet),
            Err(TryRecvError::Disconnected) => Err(NoEvent::Ended),
        }
    }
}

/// The connections' side of the queue.
#[derive(Debug, Clone)]
pub(in crate::http) struct EventSender {
    events: Sender<QueuedEvent>,
    budget: Arc<Semaphore>,
}

/// An event, and what it takes of the queue's budget in bytes.
#[derive(Debug)]
pub(crate) struct QueuedEvent {
    event: LookupEvent,
    _paid: Option<OwnedSemaphorePermit>,
}

impl QueuedEvent {
    /// Takes the event out; its bytes no longer count.
    #[must_use]
    pub(crate) fn into_event(self) -> LookupEvent {
        self.event
    }
}

impl EventSender {
    /// Queues `event` at once. For events of a few bytes, of which the caller's own questions
    /// bound the number.
    pub(in crate::http) fn send(&self, event: LookupEvent) {
        // A caller that no longer listens has no use for it.
        let _ = self.events.send(QueuedEvent { event, _paid: None });
    }

    /// Waits until there is room for `size` bytes from a server.
    pub(in crate::http) async fn room(&self, size: usize) -> Room {
        let price = u32::try_from(size)
            .unwrap_or(u32::MAX)
            .min(QUEUED_BYTES_MAX);
        let paid = Arc::clone(&self.budget).acquire_many_owned(price).await;
        Room(paid.expect("nobody closes the budget"))
    }

    /// Queues `event` where there is room for it.
    pub(in crate::http) fn send_in(&self, room: Room, event: LookupEvent) {
        let _ = self.events.send(QueuedEvent {
            event,
            _paid: Some(room.0),
        });
    }
}

/// Room for one event; given back when the event is taken out.
pub(in crate::http) struct Room(OwnedSemaphorePermit);

pub(in crate::http) fn queue(engine: Arc<Engine>) -> (EventSender, LookupEvents) {
    let (sender, receiver) = crossbeam_channel::unbounded();
    let budget = Arc::new(Semaphore::new(QUEUED_BYTES_MAX as usize));
    (
        EventSender {
            events: sender,
            budget,
        },
        LookupEvents {
            events: receiver,
            _engine: engine,
        },
    )
}

/// Answers that wait to be taken out, in bytes: some thousand narinfos.
const QUEUED_BYTES_MAX: u32 = 4 << 20;
