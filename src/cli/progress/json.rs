//! Events for scripts: one JSON object for each.

use std::collections::HashMap;

use serde_json::json;

use crate::cli::output::say;
use crate::format::compression::Compression;
use crate::substitute::progress::{Progress, ProgressEvent, ServerProgress};

/// One JSON object for each event.
pub(super) struct Json;

impl Progress for Json {
    fn event(&self, event: ProgressEvent<'_>) {
        let value = match event {
            ProgressEvent::Looking {
                done,
                total,
                requests,
                servers,
                ..
            } => {
                let server = |server: &ServerProgress<'_>| {
                    json!({
                        "url": server.url, "state": server.state, "answered": server.answered,
                        "waiting": server.waiting,
                    })
                };
                json!({
                    "event": "looking", "done": done, "total": total, "requests": requests,
                    "servers": servers.iter().map(server).collect::<Vec<_>>(),
                })
            }
            ProgressEvent::ServerDown { server, reason } => {
                json!({"event": "server-down", "server": server, "reason": reason.to_string()})
            }
            ProgressEvent::Retrying {
                server,
                reason,
                failing_for,
            } => json!({
                "event": "retrying", "server": server, "reason": reason.to_string(),
                "seconds": failing_for.as_secs(),
            }),
            ProgressEvent::Warning(text) => json!({"event": "warning", "text": text}),
            ProgressEvent::Started {
                item,
                url,
                download_size,
                choice,
                ..
            } => json!({
                "event": "started", "item": item.base(), "url": url, "download_size": download_size,
                "expected_seconds": choice.map(|choice| {
                    let pair = |(method, seconds): &(Compression, f64)| (method.name(), *seconds);
                    choice.expected.iter().map(pair).collect::<HashMap<_, _>>()
                }),
            }),
            ProgressEvent::Progressed { item, downloaded } => {
                json!({"event": "progressed", "item": item.base(), "downloaded": downloaded})
            }
            ProgressEvent::SourceFailed { item, url, reason } => json!({
                "event": "source-failed", "item": item.base(), "url": url, "reason": reason.to_string(),
            }),
            ProgressEvent::Unpacked {
                item,
                downloaded,
                nar_size,
            } => json!({
                "event": "unpacked", "item": item.base(), "downloaded": downloaded,
                "nar_size": nar_size,
            }),
            ProgressEvent::Registered { item } => {
                json!({"event": "registered", "item": item.base()})
            }
            ProgressEvent::Failed { item, reason } => {
                json!({"event": "failed", "item": item.base(), "reason": reason.to_string()})
            }
            ProgressEvent::Planned {
                items,
                download_size,
            } => {
                json!({"event": "planned", "items": items, "download_size": download_size})
            }
            ProgressEvent::Finished => json!({"event": "finished"}),
        };
        say(&value.to_string());
    }
}
