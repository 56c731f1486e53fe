//! What a query found as metrics, in the text format of OpenMetrics 1.0, which the textfile collector of
//! node_exporter reads as well.
//!
//! All metrics are gauges: each run describes itself, and its file replaces that of the run before.

use std::collections::HashMap;
use std::fmt::{Display, Write as _};

use serde_json::Value;

use crate::format::escape::printable;

use super::report::{CacheMissReport, MissGroup};
use super::view::QuerySummary;

/// The statuses of items, as the summary names them.
const STATUSES: [&str; 6] = [
    "available",
    "valid",
    "preparing",
    "missing",
    "refused",
    "unknown",
];

/// The kinds of answers, as the totals of a server name them.
const ANSWERS: [&str; 5] = ["available", "missing", "preparing", "refused", "failed"];

/// The metrics of a query that ended at `now`, in Unix seconds.
#[must_use]
pub(super) fn render(report: &CacheMissReport, summary: &QuerySummary, now: u64) -> String {
    // Both are data for scripts anyway, so that the metrics have the same numbers.
    let summary = serde_json::to_value(summary).unwrap_or_default();
    let totals = serde_json::to_value(report).unwrap_or_default();
    let servers = totals["servers"].as_array().map_or(&[][..], Vec::as_slice);
    let servers = with_labels(servers);

    let mut metrics = MetricsText::default();
    add_items(&mut metrics, report, &summary);
    add_run(&mut metrics, &summary, now);
    add_servers(&mut metrics, &servers);
    metrics.text.push_str("# EOF\n");
    metrics.text
}

fn add_items(metrics: &mut MetricsText, report: &CacheMissReport, summary: &Value) {
    metrics.family("subst_query_items", None, "Items of the query by status.");
    for status in STATUSES {
        metrics.sample(&[("status", status)], number(summary, status));
    }

    let help = "Items of the query by the reason for their status.";
    metrics.family("subst_query_items_by_reason", None, help);
    for group in MissGroup::ALL {
        let count = report.count(|other| other == group);
        metrics.sample(&[("reason", group.name())], count);
    }

    let help = "Items that have to be built, because no server has a usable substitute.";
    metrics.family("subst_query_items_to_build", None, help);
    metrics.sample(&[], report.count(MissGroup::must_be_built));

    let help = "Size of the downloads of all available items, as far as servers announce it.";
    metrics.family("subst_query_download_size_bytes", Some("bytes"), help);
    metrics.sample(&[], number(summary, "download_size"));

    let help = "Unpacked size of all available items.";
    metrics.family("subst_query_nar_size_bytes", Some("bytes"), help);
    metrics.sample(&[], number(summary, "nar_size"));
}

fn add_run(metrics: &mut MetricsText, summary: &Value, now: u64) {
    let help = "Requests about items, each as often as it was sent.";
    metrics.family("subst_query_requests", None, help);
    metrics.sample(&[], number(summary, "requests"));

    let help = "Answers about items by where they came from.";
    metrics.family("subst_query_answers", None, help);
    metrics.sample(&[("source", "cache")], number(summary, "cache_hits"));
    metrics.sample(&[("source", "server")], number(summary, "cache_misses"));

    let help = "How long the query took.";
    metrics.family("subst_query_duration_seconds", Some("seconds"), help);
    metrics.sample(&[], summary["seconds"].as_f64().unwrap_or_default());

    let help = "When the query ended, in Unix time.";
    metrics.family("subst_query_end_timestamp_seconds", Some("seconds"), help);
    metrics.sample(&[], now);
}

fn add_servers(metrics: &mut MetricsText, servers: &[(String, &Value)]) {
    let help = "Answers of a server about items, by kind.";
    metrics.family("subst_query_server_answers", None, help);
    for (label, server) in servers {
        let label = label.as_str();
        for answer in ANSWERS {
            let labels = [("server", label), ("answer", answer)];
            metrics.sample(&labels, number(server, answer));
        }
    }

    let help = "Answers of a server about items, by where they came from.";
    metrics.family("subst_query_server_lookups", None, help);
    for (label, server) in servers {
        let label = label.as_str();
        for (source, key) in [("cache", "from_cache"), ("server", "asked")] {
            let labels = [("server", label), ("source", source)];
            metrics.sample(&labels, number(server, key));
        }
    }

    let help = "Share of the items about which a server was asked that are available from it.";
    metrics.family("subst_query_server_coverage_ratio", Some("ratio"), help);
    for (label, server) in servers {
        let label = label.as_str();
        let answers = number(server, "asked") + number(server, "from_cache");
        if answers > 0 {
            let share = number(server, "available") as f64 / answers as f64;
            metrics.sample(&[("server", label)], share);
        }
    }

    let help = "Whether a server that was needed is up and for this store.";
    metrics.family("subst_query_server_up", None, help);
    for (label, server) in servers {
        let label = label.as_str();
        let state = server["state"].as_str().unwrap_or_default();
        if state != "not-asked" {
            metrics.sample(&[("server", label)], u8::from(state == "up"));
        }
    }
}

fn number(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or(0)
}

/// The servers, each with a label of its own: their URLs are shown without credentials, and may differ in
/// nothing else.
fn with_labels(servers: &[Value]) -> Vec<(String, &Value)> {
    let mut seen: HashMap<&str, usize> = HashMap::new();
    let labeled = servers.iter().map(|server| {
        let url = server["url"].as_str().unwrap_or_default();
        let number = seen.entry(url).or_default();
        *number += 1;
        let label = match *number {
            1 => url.to_owned(),
            number => format!("{url} ({number})"),
        };
        (label, server)
    });
    labeled.collect()
}

/// Metrics as text. Samples belong to the family that was begun last.
#[derive(Default)]
struct MetricsText {
    text: String,
    family: &'static str,
}

impl MetricsText {
    fn family(&mut self, name: &'static str, unit: Option<&str>, help: &str) {
        self.family = name;
        self.text.push_str(&format!("# TYPE {name} gauge\n"));
        if let Some(unit) = unit {
            self.text.push_str(&format!("# UNIT {name} {unit}\n"));
        }
        self.text.push_str(&format!("# HELP {name} {help}\n"));
    }

    fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.text.push_str(self.family);
        for (index, (name, text)) in labels.iter().enumerate() {
            let before = if index == 0 { '{' } else { ',' };
            let text = escaped(text);
            // Writing to memory does not fail.
            let _ = write!(self.text, "{before}{name}=\"{text}\"");
        }
        let end = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.text, "{end} {value}");
    }
}

/// The value of a label between its quotes.
fn escaped(text: &str) -> String {
    let text = printable(text).replace('\\', "\\\\");
    text.replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_labels_are_escaped() {
        let mut metrics = MetricsText::default();
        metrics.family("name", None, "Help.");
        metrics.sample(&[("a", "x\"y\\z\nw\u{202e}"), ("b", "")], 0.5);
        metrics.sample(&[], 3);
        let expected = "# TYPE name gauge\n# HELP name Help.\n\
                        name{a=\"x\\\"y\\\\z\\nw\\\\u{202e}\",b=\"\"} 0.5\nname 3\n";
        assert_eq!(metrics.text, expected);
    }
}
