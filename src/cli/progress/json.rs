//! Events for scripts: one JSON object for each. `docs/schema/progress-event.json` describes them.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cli::download_summary;
use crate::cli::output::say_json;
use crate::http::whole_bytes;
use crate::substitute::clock::Clock;
use crate::substitute::progress::{
    ComparisonProgress, DownloadChoice, MirrorProgress, ProgressEvent, ServerProgress,
    VerifyProgress,
};

use super::tally::{FetchProgress, RunTally};

/// The time between two events about the progress of everything.
const TOTALS_INTERVAL: Duration = Duration::from_secs(1);

/// One JSON object for each event.
pub(super) struct JsonProgress {
    clock: Clock,
    next_totals: Duration,
}

impl JsonProgress {
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            clock,
            next_totals: Duration::ZERO,
        }
    }

    pub(super) fn show(&mut self, event: &ProgressEvent<'_>, tally: &RunTally, now: Duration) {
        let totals = match event {
            ProgressEvent::Tick if now >= self.next_totals => tally.progress(now),
            ProgressEvent::Finished => tally.last_progress(now),
            _ => None,
        };
        if let Some(totals) = totals {
            self.next_totals = now + TOTALS_INTERVAL;
            say_json(&self.clock, totals_object(&totals, now));
        }

        match event {
            ProgressEvent::Tick => {}
            event => say_json(&self.clock, object(event)),
        }
    }
}

/// How far everything is.
fn totals_object(totals: &FetchProgress, now: Duration) -> Value {
    json!({
        "event": "totals", "items_done": totals.items_done, "items": totals.items,
        "bytes_done": totals.bytes_done, "bytes": totals.bytes,
        "bytes_per_second": totals.bytes_per_second.map(whole_bytes),
        "seconds": now.as_secs_f64(), "seconds_left": totals.seconds_left,
    })
}

fn object(event: &ProgressEvent<'_>) -> Value {
    match event {
        ProgressEvent::Planned {
            items,
            download_size,
        } => {
            json!({"event": "planned", "items": items, "download_size": download_size})
        }
        ProgressEvent::Looking {
            done,
            total,
            requests,
            servers,
            ..
        } => json!({
            "event": "looking", "done": done, "total": total, "requests": requests,
            "servers": servers.iter().map(server_object).collect::<Vec<_>>(),
        }),
        ProgressEvent::DownloadsPlanned(summary) => {
            let mut object = download_summary::json(summary);
            object["event"] = "downloads-planned".into();
            object
        }
        ProgressEvent::ServerDown { server, reason } => {
            json!({"event": "server-down", "server": server, "reason": reason.to_string()})
        }
        ProgressEvent::Retrying {
            server,
            reason,
            failing_for,
            ..
        } => json!({
            "event": "retrying", "server": server, "reason": reason.to_string(),
            "seconds": failing_for.as_secs(),
        }),
        ProgressEvent::Preparing {
            items,
            waited,
            limit,
            ..
        } => json!({
            "event": "preparing", "items": items, "seconds": waited.as_secs(),
            "limit_seconds": limit.as_secs(),
        }),
        ProgressEvent::Verifying(progress) => verifying_object(progress),
        ProgressEvent::Comparing(progress) => comparing_object(progress),
        ProgressEvent::Mirroring(progress) => mirroring_object(progress),
        ProgressEvent::Warning(text) => json!({"event": "warning", "text": text}),
        ProgressEvent::Finished => json!({"event": "finished"}),
        ProgressEvent::Started { .. }
        | ProgressEvent::Progressed { .. }
        | ProgressEvent::SourceFailed { .. }
        | ProgressEvent::Unpacked { .. }
        | ProgressEvent::Registered { .. }
        | ProgressEvent::Failed { .. } => item_object(event),
        ProgressEvent::Tick => Value::Null,
    }
}

/// How far a verification is.
fn verifying_object(progress: &VerifyProgress) -> Value {
    json!({
        "event": "verifying", "items_done": progress.items, "items": progress.expected_items,
        "bytes_done": progress.bytes, "bytes": progress.expected_bytes,
    })
}

/// How far a comparison is.
fn comparing_object(progress: &ComparisonProgress) -> Value {
    json!({
        "event": "comparing", "items_done": progress.items, "items": progress.expected_items,
        "bytes_done": progress.bytes, "answers_done": progress.answers,
        "answers": progress.expected_answers,
    })
}

/// How far a copy to a mirror is.
fn mirroring_object(progress: &MirrorProgress) -> Value {
    json!({
        "event": "mirroring", "items_done": progress.items, "items": progress.expected_items,
        "bytes_done": progress.bytes, "bytes": progress.expected_bytes,
    })
}

/// An event of one item.
fn item_object(event: &ProgressEvent<'_>) -> Value {
    match event {
        ProgressEvent::Started {
            item,
            server,
            url,
            compression,
            download_size,
            choice,
            ..
        } => json!({
            "event": "started", "item": item.base(), "server": server, "url": url,
            "compression": compression.name(), "download_size": download_size,
            "expected_seconds": choice.map(expected_seconds),
        }),
        ProgressEvent::Progressed { item, downloaded } => {
            json!({"event": "progressed", "item": item.base(), "downloaded": downloaded})
        }
        ProgressEvent::SourceFailed {
            item, url, reason, ..
        } => json!({
            "event": "source-failed", "item": item.base(), "url": url, "reason": reason.to_string(),
        }),
        ProgressEvent::Unpacked {
            item,
            downloaded,
            nar_size,
            deduplicated,
        } => json!({
            "event": "unpacked", "item": item.base(), "downloaded": downloaded,
            "nar_size": nar_size, "deduplicated": deduplicated,
        }),
        ProgressEvent::Registered { item } => json!({"event": "registered", "item": item.base()}),
        ProgressEvent::Failed { item, reason } => {
            json!({"event": "failed", "item": item.base(), "reason": reason})
        }
        _ => Value::Null,
    }
}

fn server_object(server: &ServerProgress<'_>) -> Value {
    json!({
        "url": server.url, "state": server.state, "answered": server.answered,
        "waiting": server.waiting,
    })
}

/// The expected time of each download by its compression method.
fn expected_seconds(choice: &DownloadChoice) -> HashMap<&'static str, f64> {
    let expected = choice.expected.iter();
    expected
        .map(|(method, seconds)| (method.name(), *seconds))
        .collect()
}
