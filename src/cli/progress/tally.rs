//! How far everything is, summed up from events.

use std::collections::HashMap;

use crate::cli::output::{self, printable};
use crate::format::store_path::StorePath;
use crate::substitute::progress::{ProgressEvent, ServerProgress};

/// How far everything is.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) looked_up: usize,
    pub(super) to_look_up: usize,
    requests: u64,
    /// The servers, how each is doing.
    pub(super) servers: String,
    downloads: HashMap<StorePath, Download>,
    downloaded: u64,
    /// What is to be fetched, once that is known: items, and bytes as far as servers say. Another
    /// download than the announced one may be taken, of another size.
    pub(super) planned: Option<(usize, u64)>,
    pub(super) unpacked: usize,
}

/// A download under way.
#[derive(Debug, Default)]
struct Download {
    received: u64,
    /// What it counts for in the bytes that are planned.
    counted: u64,
}

impl Tally {
    pub(super) fn note(&mut self, event: &ProgressEvent<'_>) {
        match event {
            ProgressEvent::Looking {
                done,
                total,
                requests,
                servers,
                ..
            } => {
                (self.looked_up, self.to_look_up, self.requests) = (*done, *total, *requests);
                self.servers = servers_line(servers);
            }
            ProgressEvent::Started {
                item,
                download_size,
                announced,
                ..
            } => self.start(item, *download_size, announced.unwrap_or_default()),
            ProgressEvent::Progressed { item, downloaded } => {
                if let Some(download) = self.downloads.get_mut(item) {
                    download.received = *downloaded;
                }
            }
            ProgressEvent::Unpacked {
                item, downloaded, ..
            } => self.finish(item, *downloaded),
            // It may be an item whose references failed, and still be on its way.
            ProgressEvent::Failed { item, .. } => {
                if let Some(download) = self.downloads.get_mut(*item) {
                    download.received = 0;
                }
            }
            ProgressEvent::Planned {
                items,
                download_size,
            } => {
                self.planned = Some((*items, *download_size));
            }
            ProgressEvent::DownloadsPlanned(_)
            | ProgressEvent::Registered { .. }
            | ProgressEvent::ServerDown { .. }
            | ProgressEvent::Retrying { .. }
            | ProgressEvent::Preparing { .. }
            | ProgressEvent::Warning(_)
            | ProgressEvent::SourceFailed { .. }
            | ProgressEvent::Finished => {}
        }
    }

    /// A download of the item begins, perhaps another one than was announced.
    fn start(&mut self, item: &StorePath, download_size: Option<u64>, announced: u64) {
        let earlier = self.downloads.remove(item);

        let counted = download_size.unwrap_or(announced);
        self.count(
            earlier.map_or(announced, |download| download.counted),
            counted,
        );
        let download = Download {
            received: 0,
            counted,
        };
        self.downloads.insert(item.clone(), download);
    }

    /// The item is unpacked, after a download of this size.
    fn finish(&mut self, item: &StorePath, downloaded: u64) {
        let counted = self.downloads.remove(item).unwrap_or_default().counted;
        self.count(counted, downloaded);
        self.downloaded += downloaded;
        self.unpacked += 1;
    }

    /// What counted for `before` bytes turns out to be `now` bytes.
    fn count(&mut self, before: u64, now: u64) {
        if let Some((_, size)) = &mut self.planned {
            *size = size.saturating_sub(before).saturating_add(now);
        }
    }

    /// Bytes downloaded so far.
    pub(super) fn bytes(&self) -> u64 {
        self.downloaded
            + self
                .downloads
                .values()
                .map(|download| download.received)
                .sum::<u64>()
    }

    /// All of it in one line; `None` before anything has begun.
    pub(super) fn line(&self) -> Option<String> {
        if let Some((items, size)) = self.planned {
            let (bytes, size) = (output::bytes(self.bytes()), output::bytes(size));
            return Some(format!(
                "unpacked {} of {items}, {bytes} of {size} downloaded",
                self.unpacked
            ));
        }

        let Self {
            looked_up,
            to_look_up,
            requests,
            servers,
            ..
        } = self;
        let line = format!("looked up {looked_up} of {to_look_up}, {requests} answers ({servers})");
        (*to_look_up > 0).then_some(line)
    }
}

/// The servers in few words, such as `a.example up 120, b.example down`.
fn servers_line(servers: &[ServerProgress<'_>]) -> String {
    let words = servers.iter().map(|server| {
        let name = server
            .url
            .split_once("://")
            .map_or(server.url, |(_, name)| name);
        match (server.state, server.waiting) {
            ("not-asked", 0) => format!("{} not asked", printable(name)),
            ("not-asked", _) => format!("{} silent", printable(name)),
            ("up", _) => format!("{} {}", printable(name), server.answered),
            (state, _) => format!("{} {state}", printable(name)),
        }
    });

    words.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Notes the lookup of two items, one after the other.
    fn note_lookups(tally: &mut Tally) {
        for done in [1, 2] {
            let servers = &[ServerProgress {
                url: "http://a",
                state: "up",
                answered: done as u64,
                waiting: 0,
            }];
            tally.note(&ProgressEvent::Looking {
                done,
                total: 2,
                asked: 2,
                requests: 3,
                servers,
            });
            let line = format!("looked up {done} of 2, 3 answers (a {done})");
            assert_eq!(tally.line(), Some(line));
        }
    }

    #[test]
    fn downloads_count_with_their_final_sizes() {
        let mut tally = Tally::default();
        assert_eq!(tally.line(), None);
        note_lookups(&mut tally);

        tally.note(&ProgressEvent::Planned {
            items: 5,
            download_size: 1024,
        });
        assert_eq!(
            tally.line().unwrap(),
            "unpacked 0 of 5, 0 B of 1.0 KiB downloaded"
        );
        // Of two downloads the larger one was taken, then another one that tells no size.
        let item = &StorePath::parse(&format!("{}-x", "0".repeat(32))).unwrap();
        let (url, announced, choice) = ("http://a", Some(512), None);
        for download_size in [Some(1024), None] {
            tally.note(&ProgressEvent::Started {
                item,
                url,
                download_size,
                announced,
                choice,
            });
            let size = 512 + download_size.unwrap_or(512);
            let line = format!("unpacked 0 of 5, 0 B of {} downloaded", output::bytes(size));
            assert_eq!(tally.line().unwrap(), line);
        }
        tally.note(&ProgressEvent::Progressed {
            item,
            downloaded: 100,
        });
        tally.note(&ProgressEvent::Unpacked {
            item,
            downloaded: 600,
            nar_size: 1,
        });
        assert_eq!(
            tally.line().unwrap(),
            "unpacked 1 of 5, 600 B of 1.1 KiB downloaded"
        );
        // A narinfo that is asked for anew meanwhile is not what people wait for.
        tally.note(&ProgressEvent::Looking {
            done: 0,
            total: 1,
            asked: 3,
            requests: 3,
            servers: &[],
        });
        assert!(tally.line().unwrap().starts_with("unpacked 1 of 5"));
    }
}
