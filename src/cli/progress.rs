//! Progress for people (bars, lines) and for scripts (JSON events), all on standard error.

mod bars;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::format::compression::Compression;
use crate::format::store_path::StorePath;
use crate::substitute::choose::Choice;
use crate::substitute::progress::{Event, Progress, ServerProgress};

use super::args::ProgressMode;
use super::output::{self, say, shown};
use super::settings::Verbosity;

/// What shows progress as `mode` says. Bars need a terminal.
#[must_use]
pub fn choose(mode: ProgressMode, verbosity: Verbosity, is_terminal: bool) -> Arc<dyn Progress> {
    match mode {
        ProgressMode::Auto if is_terminal && verbosity > Verbosity::Quiet => {
            Arc::new(bars::Bars::new(verbosity))
        }
        ProgressMode::Auto | ProgressMode::None => Arc::new(Warnings { verbosity }),
        ProgressMode::Plain => Arc::new(Plain::new(verbosity)),
        ProgressMode::Json => Arc::new(Json),
    }
}

/// The words for events that deserve a line of their own; `None` for those that do not.
fn words(event: &Event<'_>, verbosity: Verbosity) -> Option<String> {
    let line = match event {
        Event::ServerDown { server, reason } => {
            format!("subst: warning: {} is not used: {}", shown(server), shown(reason))
        }
        Event::Warning(text) => format!("subst: warning: {}", shown(text)),
        Event::SourceFailed { item, url, reason } => {
            format!("subst: warning: {item} from {}: {}", shown(url), shown(reason))
        }
        Event::Started { item, url, choice, .. } if verbosity >= Verbosity::Verbose => {
            let why = choice.map(|choice| format!(" ({})", choice_words(choice)));
            format!("subst: {item} from {}{}", shown(url), why.unwrap_or_default())
        }
        _ => return None,
    };
    Some(line)
}

/// Such as `lzip in 40 ms, zstd in 52 ms at 7.5 MiB/s`.
fn choice_words(choice: &Choice) -> String {
    let expected: Vec<String> = choice
        .expected
        .iter()
        .map(|(method, seconds)| format!("{method} in {}", output::estimate(*seconds)))
        .collect();
    let assumed = if choice.link_is_measured { "" } else { ", assumed" };
    format!("{} at {}/s{assumed}", expected.join(", "), output::bytes(choice.link))
}

/// Shows nothing but warnings.
struct Warnings {
    verbosity: Verbosity,
}

impl Progress for Warnings {
    fn event(&self, event: Event<'_>) {
        if self.verbosity > Verbosity::Quiet
            && let Some(line) = words(&event, self.verbosity)
        {
            say(&line);
        }
    }
}

/// How far everything is.
#[derive(Debug, Default)]
struct Tally {
    looked_up: usize,
    to_look_up: usize,
    requests: u64,
    /// The servers, how each is doing.
    servers: String,
    downloads: HashMap<StorePath, u64>,
    downloaded: u64,
    /// What is to be fetched: items, and bytes as far as known.
    planned: (usize, u64),
    unpacked: usize,
}

impl Tally {
    fn note(&mut self, event: &Event<'_>) {
        match event {
            Event::Looking { done, total, requests, servers, .. } => {
                (self.looked_up, self.to_look_up, self.requests) = (*done, *total, *requests);
                self.servers = servers_line(servers);
            }
            Event::Started { item, .. } => {
                self.downloads.insert((*item).clone(), 0);
            }
            Event::Progressed { item, downloaded } => {
                if let Some(known) = self.downloads.get_mut(item) {
                    *known = *downloaded;
                }
            }
            Event::Unpacked { item, downloaded, .. } => {
                self.downloads.remove(item);
                self.downloaded += downloaded;
                self.unpacked += 1;
            }
            Event::Failed { item } => {
                self.downloads.remove(item);
            }
            Event::Planned { items, download_size } => self.planned = (*items, *download_size),
            Event::Registered { .. }
            | Event::ServerDown { .. }
            | Event::Warning(_)
            | Event::SourceFailed { .. }
            | Event::Finished => {}
        }
    }

    fn bytes(&self) -> u64 {
        self.downloaded + self.downloads.values().sum::<u64>()
    }
}

/// The servers in few words, such as `a.example up 120, b.example down`.
fn servers_line(servers: &[ServerProgress<'_>]) -> String {
    let words = servers.iter().map(|server| {
        let name = server.url.split_once("://").map_or(server.url, |(_, name)| name);
        match (server.state, server.waiting) {
            ("not-asked", 0) => format!("{} not asked", shown(name)),
            ("not-asked", _) => format!("{} silent", shown(name)),
            ("up", _) => format!("{} {}", shown(name), server.answered),
            (state, _) => format!("{} {state}", shown(name)),
        }
    });
    words.collect::<Vec<_>>().join(", ")
}

/// One line a second.
struct Plain {
    verbosity: Verbosity,
    state: Mutex<(Tally, Instant)>,
}

/// Between two lines.
const PLAIN_INTERVAL: Duration = Duration::from_secs(1);

impl Plain {
    fn new(verbosity: Verbosity) -> Self {
        Self { verbosity, state: Mutex::new((Tally::default(), Instant::now())) }
    }
}

impl Progress for Plain {
    fn event(&self, event: Event<'_>) {
        if let Some(line) = words(&event, self.verbosity) {
            say(&line);
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (tally, last) = &mut *state;
        tally.note(&event);
        if last.elapsed() < PLAIN_INTERVAL {
            return;
        }
        *last = Instant::now();
        if tally.looked_up < tally.to_look_up {
            let Tally { looked_up, to_look_up, requests, servers, .. } = tally;
            let answers = format!("{requests} answers ({servers})");
            say(&format!("subst: looked up {looked_up} of {to_look_up}, {answers}"));
        } else {
            let (unpacked, (items, size)) = (tally.unpacked, tally.planned);
            let (bytes, size) = (output::bytes(tally.bytes()), output::bytes(size));
            say(&format!("subst: unpacked {unpacked} of {items}, {bytes} of {size} downloaded"));
        }
    }
}

/// One JSON object for each event.
struct Json;

impl Progress for Json {
    fn event(&self, event: Event<'_>) {
        let value = match event {
            Event::Looking { done, total, requests, servers, .. } => {
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
            Event::ServerDown { server, reason } => {
                json!({"event": "server-down", "server": server, "reason": reason})
            }
            Event::Warning(text) => json!({"event": "warning", "text": text}),
            Event::Started { item, url, download_size, choice } => json!({
                "event": "started", "item": item.base(), "url": url, "download_size": download_size,
                "expected_seconds": choice.map(|choice| {
                    let pair = |(method, seconds): &(Compression, f64)| (method.name(), *seconds);
                    choice.expected.iter().map(pair).collect::<HashMap<_, _>>()
                }),
            }),
            Event::Progressed { item, downloaded } => {
                json!({"event": "progressed", "item": item.base(), "downloaded": downloaded})
            }
            Event::SourceFailed { item, url, reason } => json!({
                "event": "source-failed", "item": item.base(), "url": url, "reason": reason,
            }),
            Event::Unpacked { item, downloaded, nar_size } => json!({
                "event": "unpacked", "item": item.base(), "downloaded": downloaded,
                "nar_size": nar_size,
            }),
            Event::Registered { item } => json!({"event": "registered", "item": item.base()}),
            Event::Failed { item } => json!({"event": "failed", "item": item.base()}),
            Event::Planned { items, download_size } => {
                json!({"event": "planned", "items": items, "download_size": download_size})
            }
            Event::Finished => json!({"event": "finished"}),
        };
        say(&value.to_string());
    }
}
