//! What lookups report to the caller.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::request::RequestTarget;
use crate::format::server_list::ServerIndex;
use crate::format::store_path::HashPart;
use crate::http::error::HttpError;
use crate::http::net::runtime::HttpRuntime;
use crate::http::options::{PipeliningSupport, Protocol};
use crate::http::queue::{QueueSender, Queued, byte_queue};

/// One thing that happened to the lookups.
#[derive(Debug)]
pub(crate) enum LookupEvent {
    /// The server's `nix-cache-info`; once for each server where it had to be fetched, and again when that was to
    /// show whether the server answers.
    CacheInfo {
        /// The server.
        server: ServerIndex,
        /// The file; none: the server has no such file, the defaults hold.
        info: Result<Option<CacheInfoText>, HttpError>,
    },
    /// The answer to one [`request`](super::client::Lookups::request); exactly one for each.
    Answer {
        /// The server.
        server: ServerIndex,
        /// The requested item.
        item: HashPart,
        /// The server's answer.
        answer: Result<NarInfoAnswer, HttpError>,
    },
    /// A property of the server, worth keeping for the next run.
    ServerProperty {
        /// The server.
        server: ServerIndex,
        /// The property.
        property: ServerProperty,
    },
    /// The server does not answer, or refuses requests, and is waited for.
    ServerAwaited {
        /// The server.
        server: ServerIndex,
        /// How the last request failed.
        error: HttpError,
        /// For how long it has answered nothing.
        failing_for: Duration,
    },
    /// The server is down; sent once. All its unanswered and further lookups fail with this
    /// error.
    ServerDown {
        /// The server.
        server: ServerIndex,
        /// Why.
        error: HttpError,
    },
}

impl LookupEvent {
    /// The request for `target` failed.
    pub(super) fn failed(server: ServerIndex, target: RequestTarget, error: HttpError) -> Self {
        match target {
            RequestTarget::CacheInfo => Self::CacheInfo {
                server,
                info: Err(error),
            },
            RequestTarget::NarInfo(item) => Self::Answer {
                server,
                item,
                answer: Err(error),
            },
        }
    }
}

/// A server's `nix-cache-info`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CacheInfoText {
    /// The file.
    pub(crate) text: String,
    /// For how many seconds it may be cached, if the server says so.
    pub(crate) max_age: Option<u64>,
}

/// A server's answer to the lookup of one item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NarInfoAnswer {
    /// Available.
    Found {
        /// The narinfo, not parsed yet.
        text: Vec<u8>,
        /// For how many seconds the answer may be cached, if the server says so.
        max_age: Option<u64>,
    },
    /// Missing.
    Missing {
        /// The HTTP status; 0 where the server is a directory.
        status: u16,
        /// For how many seconds the answer may be cached, if the server says so.
        max_age: Option<u64>,
    },
    /// Being prepared by the server.
    Preparing {
        /// The HTTP status.
        status: u16,
        /// For how many seconds the answer may be cached, if the server says so.
        max_age: Option<u64>,
    },
}

/// A property of a server that makes the next run quicker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ServerProperty {
    /// Whether it supports pipelining.
    Pipelining(PipeliningSupport),
    /// After how many responses it closes a connection.
    RequestsPerConnection(u32),
    /// The protocol that it speaks.
    Protocol(Protocol),
}

/// The receiving side of the lookups.
#[derive(Debug)]
pub(crate) struct LookupEvents {
    events: Receiver<Queued<LookupEvent>>,
    /// The connections live as long as this.
    _runtime: Arc<HttpRuntime>,
}

impl LookupEvents {
    /// The queue itself, to wait for it and others at once. `self` must be kept: the connections
    /// live only as long.
    #[must_use]
    pub(crate) fn queue(&self) -> Receiver<Queued<LookupEvent>> {
        self.events.clone()
    }

    /// Waits for the next event; none: every [`Lookups`](super::client::Lookups) handle is gone.
    pub(crate) fn recv(&mut self) -> Option<LookupEvent> {
        self.events.recv().ok().map(Queued::into_inner)
    }

    /// The same; none as soon as `is_canceled`, too.
    pub(crate) fn recv_unless(&mut self, is_canceled: impl Fn() -> bool) -> Option<LookupEvent> {
        loop {
            match self.events.recv_timeout(CANCEL_INTERVAL) {
                Ok(event) => return Some(event.into_inner()),
                Err(RecvTimeoutError::Timeout) if !is_canceled() => {}
                Err(_) => return None,
            }
        }
    }
}

/// How often a wait for events looks whether it is canceled.
const CANCEL_INTERVAL: Duration = Duration::from_millis(100);

/// The connections' side of the queue.
pub(super) type EventSender = QueueSender<LookupEvent>;

/// The queue for the events of lookups that run on `runtime`.
pub(super) fn event_queue(runtime: Arc<HttpRuntime>) -> (EventSender, LookupEvents) {
    let (sender, events) = byte_queue(QUEUED_BYTES_MAX);
    let events = LookupEvents {
        events,
        _runtime: runtime,
    };
    (sender, events)
}

/// Answers that wait to be taken out, in bytes: some thousand narinfos.
const QUEUED_BYTES_MAX: u32 = 4 << 20;
