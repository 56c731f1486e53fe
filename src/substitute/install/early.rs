//! One item whose nar is in memory already, before it is known whether it will be part of a plan.
//!
//! Nothing of it is reported then: the events are held until the plan is. Nothing is retried either: a failure is
//! left for the worker that gets the item, which requests the nar again.

use std::sync::Mutex;

use crate::format::compression::Compression;
use crate::format::store_path::StorePath;
use crate::store::Checked;
use crate::substitute::download::read_ahead::ArrivedNar;
use crate::substitute::install::installer::{DownloadStart, Installer, UnpackRequest};
use crate::substitute::progress::{Progress, ProgressEvent};
use crate::sync::lock;

impl Installer {
    /// Makes the item's tree at its destination, of the nar that has `arrived`. `None` when that is not the nar that
    /// the narinfo describes, or the tree cannot be written; nothing is left behind.
    #[must_use]
    pub(crate) fn unpack_arrived(
        &self,
        request: &UnpackRequest<'_>,
        arrived: ArrivedNar,
    ) -> Option<Checked> {
        let start = DownloadStart {
            prefetched: Some(arrived.nar),
            ..DownloadStart::default()
        };
        let retries = self.new_retries(Box::new(Vec::new));
        let attempted = self.attempt_once(request, &arrived.candidate, start, &retries);
        attempted
            .inspect_err(|error| tracing::debug!(reason = error.reason(), "not unpacked early"))
            .ok()
    }
}

/// The events of one item's download, to be reported later.
#[derive(Default)]
pub(crate) struct HeldEvents(Mutex<Vec<HeldEvent>>);

/// What is worth reporting of a download that went well.
enum HeldEvent {
    Started {
        server: String,
        url: String,
        compression: Compression,
        download_size: Option<u64>,
        announced: Option<u64>,
    },
    Unpacked {
        downloaded: u64,
        nar_size: u64,
        deduplicated: u64,
    },
}

impl HeldEvents {
    /// Reports them, as those of `item`, to `progress`.
    pub(crate) fn report(self, item: &StorePath, progress: &dyn Progress) {
        for event in lock(&self.0).drain(..) {
            progress.event(match &event {
                HeldEvent::Started {
                    server,
                    url,
                    compression,
                    download_size,
                    announced,
                } => ProgressEvent::Started {
                    item,
                    server,
                    url,
                    compression: *compression,
                    download_size: *download_size,
                    announced: *announced,
                    // It was requested when there was nothing to compare yet.
                    choice: None,
                },
                HeldEvent::Unpacked {
                    downloaded,
                    nar_size,
                    deduplicated,
                } => ProgressEvent::Unpacked {
                    item,
                    downloaded: *downloaded,
                    nar_size: *nar_size,
                    deduplicated: *deduplicated,
                },
            });
        }
    }
}

impl Progress for HeldEvents {
    fn event(&self, event: ProgressEvent<'_>) {
        let held = match event {
            ProgressEvent::Started {
                server,
                url,
                compression,
                download_size,
                announced,
                ..
            } => HeldEvent::Started {
                server: server.to_owned(),
                url: url.to_owned(),
                compression,
                download_size,
                announced,
            },
            ProgressEvent::Unpacked {
                downloaded,
                nar_size,
                deduplicated,
                ..
            } => HeldEvent::Unpacked {
                downloaded,
                nar_size,
                deduplicated,
            },
            _ => return,
        };
        lock(&self.0).push(held);
    }
}
