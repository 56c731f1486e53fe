//! Progress events, for those that show them. Events only: no terminal.

use std::fmt;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, bounded};

use crate::format::compression::Compression;
use crate::format::store_path::StorePath;
use crate::http::LineRate;
use crate::substitute::download::plan::PlanLimit;

/// Something that happened.
#[derive(Debug, Clone)]
pub(crate) enum ProgressEvent<'a> {
    /// Lookups: how many items are decided, and how many are known of so far.
    Looking {
        /// Items whose answer is final.
        done: usize,
        /// Requested items, references found on the way included.
        total: usize,
        /// Questions put to servers: what the lookup cache did not know.
        asked: u64,
        /// Requests answered by servers.
        requests: u64,
        /// How each server is doing, in the user's order.
        servers: &'a [ServerProgress<'a>],
    },
    /// It is known what is to be fetched.
    Planned {
        /// How many items.
        items: usize,
        /// Bytes to download, as far as servers say.
        download_size: u64,
    },
    /// The downloads were planned: before the first one, and when the line has been measured.
    DownloadsPlanned(&'a DownloadSummary),
    /// A server has become unusable for this run.
    ServerDown {
        /// Its address, without credentials.
        server: &'a str,
        /// Why.
        reason: fmt::Arguments<'a>,
    },
    /// Requests to a server fail, and are retried.
    Retrying {
        /// The server's host, and its port unless it is the usual one.
        server: &'a str,
        /// Why the last one failed.
        reason: fmt::Arguments<'a>,
        /// Whether it refused the last one for being one too many.
        is_too_busy: bool,
        /// For how long nothing has arrived.
        failing_for: Duration,
    },
    /// Servers are preparing items, which are looked up again after a while; reported every second.
    Preparing {
        /// How many items.
        items: usize,
        /// For how long nothing has been ready.
        waited: Duration,
        /// For how long they are waited for.
        limit: Duration,
        /// Whether they have just been looked up.
        is_first: bool,
    },
    /// Something worth knowing that stops nothing.
    Warning(&'a str),
    /// An item's nar starts to arrive.
    Started {
        /// The item.
        item: &'a StorePath,
        /// The address of the server, without credentials.
        server: &'a str,
        /// Where from, without credentials. It may be on another host than the server.
        url: &'a str,
        /// How the nar is compressed.
        compression: Compression,
        /// Bytes to download, when known.
        download_size: Option<u64>,
        /// Bytes that were expected for it when [`ProgressEvent::Planned`] was reported.
        announced: Option<u64>,
        /// Why this download, when the server has several.
        choice: Option<&'a DownloadChoice>,
    },
    /// More of an item's nar has arrived.
    Progressed {
        /// The item.
        item: &'a StorePath,
        /// Bytes downloaded so far.
        downloaded: u64,
    },
    /// Time has passed, and how far each download is was reported. Sent several times a second while
    /// items are fetched, also when nothing arrives.
    Tick,
    /// A source failed; another one is tried next, if there is one.
    SourceFailed {
        /// The item.
        item: &'a StorePath,
        /// The address of the server, without credentials.
        server: &'a str,
        /// The source.
        url: &'a str,
        /// Why.
        reason: fmt::Arguments<'a>,
        /// Whether a failure of this kind at the same server was reported before.
        is_repeated: bool,
    },
    /// An item is unpacked and its content checked.
    Unpacked {
        /// The item.
        item: &'a StorePath,
        /// Bytes downloaded.
        downloaded: u64,
        /// Bytes of its nar.
        nar_size: u64,
        /// Bytes of its files that are links to files of the store, and take no space of their own.
        deduplicated: u64,
    },
    /// An item has become valid.
    Registered {
        /// The item.
        item: &'a StorePath,
    },
    /// An item could not be had.
    Failed {
        /// The item.
        item: &'a StorePath,
        /// Why.
        reason: fmt::Arguments<'a>,
    },
    /// A store is verified: how far that is.
    Verifying(VerifyProgress),
    /// Builds are compared with those of servers: how far that is.
    Comparing(ComparisonProgress),
    /// Items are copied to a mirror: how far that is.
    Mirroring(MirrorProgress),
    /// Nothing more will be fetched, verified, compared or copied.
    Finished,
}

/// How far the verification of a store is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct VerifyProgress {
    /// Items that were verified.
    pub(crate) items: u64,
    /// Items that are to be verified.
    pub(crate) expected_items: u64,
    /// Bytes that were read.
    pub(crate) bytes: u64,
    /// Bytes of the nars of all items.
    pub(crate) expected_bytes: u64,
}

/// How far a comparison of builds is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ComparisonProgress {
    /// Items whose trees were read, as far as they count.
    pub(crate) items: u64,
    /// Items that are to be compared.
    pub(crate) expected_items: u64,
    /// Bytes of nars that were read.
    pub(crate) bytes: u64,
    /// Lookups that servers have answered.
    pub(crate) answers: u64,
    /// Lookups that servers are to answer.
    pub(crate) expected_answers: u64,
}

/// How far a copy to a mirror is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MirrorProgress {
    /// Items that are in the mirror, or cannot be copied.
    pub(crate) items: usize,
    /// Items that are known of so far.
    pub(crate) expected_items: usize,
    /// Bytes of nars that have arrived.
    pub(crate) bytes: u64,
    /// Bytes of the nars to copy, as far as narinfos say.
    pub(crate) expected_bytes: u64,
}

/// The downloads of a fetch that are not under way.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DownloadSummary {
    /// Bytes to download with each compression method, most first.
    pub(crate) bytes_by_method: Vec<(Compression, u64)>,
    /// How long everything is expected to take, what is under way included, in seconds.
    pub(crate) seconds: f64,
    /// What ends last.
    pub(crate) limit: PlanLimit,
    /// The line that takes longest.
    pub(crate) line: LineRate,
}

/// Why a server's download was preferred to its others: what was expected of each.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DownloadChoice {
    /// Bytes per second from the server.
    pub(crate) link: u64,
    /// Whether that was measured in this run, rather than assumed.
    pub(crate) link_is_measured: bool,
    /// The server's downloads, best first: their methods, and in how many seconds each would
    /// be here and decoded.
    pub(crate) expected: Vec<(Compression, f64)>,
}

/// How a server is doing while items are looked up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ServerProgress<'a> {
    /// Its address, without credentials.
    pub(crate) url: &'a str,
    /// The name of its state, such as `up`.
    pub(crate) state: &'static str,
    /// Answers it gave.
    pub(crate) answered: u64,
    /// Answers it owes.
    pub(crate) waiting: u64,
}

/// Receives events, from several threads.
pub(crate) trait Progress: Send + Sync {
    /// `event` happened.
    fn event(&self, event: ProgressEvent<'_>);
}

/// Shows nothing.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SilentProgress;

impl Progress for SilentProgress {
    fn event(&self, _event: ProgressEvent<'_>) {}
}

/// Calls `tick` in every `interval` while `work` runs.
pub(crate) fn with_ticks<T>(
    interval: Duration,
    tick: impl Fn() + Send,
    work: impl FnOnce() -> T,
) -> T {
    let (done, is_done) = bounded::<()>(0);
    std::thread::scope(|scope| {
        let ticker = std::thread::Builder::new().spawn_scoped(scope, move || {
            while is_done.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                tick();
            }
        });

        // Without a thread to spare there is no progress to be seen, nothing worse.
        drop(ticker);
        let result = work();
        drop(done);
        result
    })
}
