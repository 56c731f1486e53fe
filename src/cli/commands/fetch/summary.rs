//! The summary of a fetch: how much, how long, from which servers, and what was slow.

use serde_json::{Value, json};

use crate::cli::output::{self, count};
use crate::cli::progress::{FetchTotals, ServerTransferTotals, short_address};
use crate::http::whole_bytes;

/// An item that took less is not worth to be named as the slowest one.
const SLOW_SECONDS: f64 = 1.0;

/// What a fetch has done.
pub(super) struct FetchSummary {
    /// Items that are valid now.
    pub(super) registered: usize,
    /// Items that were to be fetched.
    pub(super) items: usize,
    /// Bytes of their nars.
    pub(super) nar_size: u64,
    /// How long the run took.
    pub(super) seconds: f64,
    /// Bytes of unfinished downloads that the next run finds.
    pub(super) kept_bytes: u64,
    /// What was downloaded.
    pub(super) totals: FetchTotals,
}

impl FetchSummary {
    /// The summary for people, in several lines.
    pub(super) fn text(&self) -> String {
        let mut text = self.first_line();
        let servers = self.totals.servers.iter().filter_map(server_line);
        text.extend(servers.map(|line| format!("\n  {line}")));

        let slowest = self.totals.slowest.as_ref();
        let slowest = slowest.filter(|item| item.duration.as_secs_f64() >= SLOW_SECONDS);
        if let Some(item) = slowest.filter(|_| self.totals.items > 1) {
            text.push_str(&format!(
                "\n  slowest: {}, {} in {} from {}",
                item.name,
                output::bytes(item.downloaded),
                output::estimate(item.duration.as_secs_f64()),
                short_address(&item.server),
            ));
        }
        text
    }

    fn first_line(&self) -> String {
        let Self {
            registered,
            items,
            seconds,
            ..
        } = self;
        if registered < items {
            let kept = output::kept_text(self.kept_bytes);
            let word = if *items == 1 { "item" } else { "items" };
            return format!("{registered} of {items} {word} fetched in {seconds:.1} s{kept}");
        }

        let items = count(*items, "item", "items");
        let downloaded = output::bytes(self.totals.downloaded);
        let unpacked = output::bytes(self.nar_size);
        let saved = match self.totals.deduplicated {
            0 => String::new(),
            saved => format!(", {} saved by deduplication", output::bytes(saved)),
        };
        format!(
            "{items} fetched in {seconds:.1} s: {downloaded} downloaded, {unpacked} unpacked{saved}"
        )
    }

    /// The same as data.
    pub(super) fn as_json(&self) -> Value {
        let servers = self.totals.servers.iter().map(|server| {
            json!({
                "server": server.url, "items": server.items, "downloaded": server.downloaded,
                "bytes_per_second": server.rate().map(whole_bytes),
            })
        });
        let slowest = self.totals.slowest.as_ref().map(|item| {
            json!({
                "name": item.name, "server": item.server, "downloaded": item.downloaded,
                "seconds": item.duration.as_secs_f64(),
            })
        });
        json!({
            "fetched": self.registered, "items": self.items, "seconds": self.seconds,
            "nar_size": self.nar_size, "downloaded": self.totals.downloaded,
            "deduplicated": self.totals.deduplicated, "kept": self.kept_bytes,
            "servers": servers.collect::<Vec<_>>(), "slowest": slowest,
        })
    }
}

/// What a server has sent, and how many failures it had besides those that were reported one by one.
fn server_line(server: &ServerTransferTotals) -> Option<String> {
    let mut facts = Vec::new();
    if server.items > 0 {
        let rate = server.rate().map(|rate| output::bytes(whole_bytes(rate)));
        facts.push(format!(
            "{}, {}{}",
            count(server.items, "item", "items"),
            output::bytes(server.downloaded),
            rate.map_or_else(String::new, |rate| format!(" at {rate}/s"))
        ));
    }
    if server.repeated_failures > 0 {
        let failures = count(server.repeated_failures, "more download", "more downloads");
        facts.push(format!(
            "{failures} failed in the same way (--verbose shows all)"
        ));
    }
    let address = short_address(&server.url);
    (!facts.is_empty()).then(|| format!("{address}: {}", facts.join("; ")))
}

/// What is said of an interrupted fetch that has `unpacked` that many of `items` and `registered` fewer:
/// a tree that waits for what its item refers to does not outlive the run.
pub(super) fn interrupted_text(
    registered: usize,
    items: usize,
    unpacked: usize,
    kept_bytes: u64,
) -> String {
    let fetched = match items {
        0 => String::new(),
        1 => format!(": {registered} of 1 item fetched"),
        _ => format!(": {registered} of {items} items fetched"),
    };
    let discarded = match unpacked.saturating_sub(registered) {
        0 => String::new(),
        more => format!(", {more} more discarded before what they refer to was there"),
    };
    format!(
        "interrupted{fetched}{discarded}{}",
        output::kept_text(kept_bytes)
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cli::progress::FetchedItem;

    fn server(url: &str, items: usize, downloaded: u64, seconds: u64) -> ServerTransferTotals {
        ServerTransferTotals {
            url: url.to_owned(),
            items,
            downloaded,
            busy: Duration::from_secs(seconds),
            repeated_failures: 0,
        }
    }

    fn summary() -> FetchSummary {
        FetchSummary {
            registered: 15,
            items: 15,
            nar_size: 300 << 20,
            seconds: 12.34,
            kept_bytes: 0,
            totals: FetchTotals {
                items: 15,
                downloaded: 75 << 20,
                deduplicated: 12 << 20,
                servers: vec![
                    server("https://a.example", 12, 60 << 20, 10),
                    server("https://b.example", 0, 0, 1),
                    server("file:///srv/cache", 3, 15 << 20, 0),
                ],
                slowest: Some(FetchedItem {
                    name: "linux-6.1".to_owned(),
                    server: "https://a.example".to_owned(),
                    method: "zstd",
                    downloaded: 40 << 20,
                    duration: Duration::from_millis(9_800),
                }),
            },
        }
    }

    #[test]
    fn the_summary_names_servers_and_what_was_slow() {
        let lines = [
            "15 items fetched in 12.3 s: 75.0 MiB downloaded, 300.0 MiB unpacked, 12.0 MiB saved by \
             deduplication",
            "  a.example: 12 items, 60.0 MiB at 6.0 MiB/s",
            "  /srv/cache: 3 items, 15.0 MiB",
            "  slowest: linux-6.1, 40.0 MiB in 9.8 s from a.example",
        ];
        assert_eq!(summary().text(), lines.join("\n"));
        let data = summary().as_json();
        assert_eq!(data["servers"][0]["bytes_per_second"], 6 << 20);
        assert_eq!(data["slowest"]["name"], "linux-6.1");
    }

    #[test]
    fn a_short_summary_has_nothing_to_explain() {
        let mut summary = summary();
        summary.totals.servers.truncate(1);
        summary.totals.deduplicated = 0;
        summary.totals.slowest = None;
        let text = "15 items fetched in 12.3 s: 75.0 MiB downloaded, 300.0 MiB unpacked\n  \
                    a.example: 12 items, 60.0 MiB at 6.0 MiB/s";
        assert_eq!(summary.text(), text);

        summary.totals.servers[0].repeated_failures = 11;
        summary.totals.servers.push(ServerTransferTotals {
            repeated_failures: 1,
            ..server("https://c.example", 0, 0, 0)
        });
        let failures = [
            "  a.example: 12 items, 60.0 MiB at 6.0 MiB/s; 11 more downloads failed in the same way \
             (--verbose shows all)",
            "  c.example: 1 more download failed in the same way (--verbose shows all)",
        ];
        assert!(
            summary.text().ends_with(&failures.join("\n")),
            "{}",
            summary.text()
        );

        (summary.registered, summary.kept_bytes) = (3, 1 << 20);
        let text = "3 of 15 items fetched in 12.3 s, 1.0 MiB kept for the next run\n";
        assert!(summary.text().starts_with(text), "{}", summary.text());
    }

    #[test]
    fn an_interrupted_fetch_says_what_is_lost_and_what_is_kept() {
        let cases = [
            ((0, 0, 0, 0), "interrupted"),
            ((0, 1, 0, 0), "interrupted: 0 of 1 item fetched"),
            (
                (4, 10, 4, 1 << 20),
                "interrupted: 4 of 10 items fetched, 1.0 MiB kept for the next run",
            ),
            (
                (4, 10, 8, 0),
                "interrupted: 4 of 10 items fetched, 4 more discarded before what they refer to was there",
            ),
        ];
        for ((registered, items, unpacked, kept), expected) in cases {
            assert_eq!(
                interrupted_text(registered, items, unpacked, kept),
                expected
            );
        }
    }
}
