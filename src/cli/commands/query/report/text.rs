//! The report for people, within the width of the terminal where names allow it.
//!
//! Items with the same answers from every server are listed together, with the answers once below.

use std::collections::HashMap;

use crate::cli::commands::query::view::{QuerySummary, fitted_item, short_name};
use crate::cli::output::{self, bytes, duration, printable};
use crate::cli::text::{padded, widest, width, wrapped};

use super::data::{CacheMissReport, ReportAnswer, ReportItem};
use super::group::MissGroup;
use super::probes::NarProbe;
use super::totals::ServerTotals;

/// The widest column of server names; longer names take more room.
const NAME_WIDTH_MAX: usize = 28;
/// The columns that an answer needs beside the name of its server.
const ANSWER_WIDTH_MIN: usize = 36;
/// The numbers in the table of totals.
const TOTALS_WIDTH: usize = 51;

/// The columns of a report.
struct ReportColumns {
    /// All of them.
    all: usize,
    /// Those of the names of servers.
    names: usize,
}

impl ReportColumns {
    fn new(all: usize, names: &[String]) -> Self {
        // As wide as the longest name, up to a limit that leaves room for the rest.
        let names = widest(names.iter().map(String::as_str)).min(NAME_WIDTH_MAX);
        Self { all, names }
    }

    /// Whether answers stand below the names of their servers, because there is no room beside them.
    fn is_narrow(&self) -> bool {
        self.names + ANSWER_WIDTH_MIN > self.all
    }

    /// The indentation of answers.
    fn answer_indent(&self) -> usize {
        if self.is_narrow() { 6 } else { self.names + 6 }
    }
}

/// The whole report, in lines of `columns`.
pub(in crate::cli::commands::query) fn lines(
    report: &CacheMissReport,
    summary: &QuerySummary,
    columns: usize,
) -> Vec<String> {
    let names: Vec<String> = report
        .servers
        .iter()
        .map(|server| short_name(&server.url))
        .collect();
    let layout = ReportColumns::new(columns, &names);

    let mut lines = groups(&report.items, &names, &layout);
    lines.extend(totals(&report.servers, &names, &layout));
    lines.push(String::new());
    lines.extend(conclusion(report, columns));
    lines.extend(wrapped(&summary.sentence(), columns, "", "  "));
    lines
}

/// The items, grouped by what their answers mean.
fn groups(items: &[ReportItem], names: &[String], layout: &ReportColumns) -> Vec<String> {
    let mut lines = Vec::new();
    for group in MissGroup::ALL {
        let members: Vec<&ReportItem> = items.iter().filter(|item| item.group == group).collect();
        if members.is_empty() {
            continue;
        }
        let heading = format!("{}: {}", group.heading(), members.len());
        lines.extend(wrapped(&heading, layout.all, "", "  "));

        let mut hints: Vec<&str> = members.iter().map(|item| &*item.hint).collect();
        hints.sort_unstable();
        hints.dedup();
        let listed: Vec<&ReportItem> = members
            .into_iter()
            .filter(|item| !group.is_no_miss() || lacks_nar(item))
            .collect();
        lines.extend(clusters(&listed, names, layout));
        if group.is_worth_a_hint() {
            let hints = hints.iter();
            lines.extend(hints.flat_map(|hint| wrapped(hint, layout.all, "  hint: ", "        ")));
        }
        lines.push(String::new());
    }
    lines
}

/// Whether a server has the narinfo but does not send the nar.
fn lacks_nar(item: &ReportItem) -> bool {
    let nars = item.answers.iter().filter_map(|answer| answer.nar.as_ref());
    nars.into_iter().any(|nar| !nar.is_available())
}

/// The items with their answers below; those with the same answers together.
fn clusters(items: &[&ReportItem], names: &[String], layout: &ReportColumns) -> Vec<String> {
    let mut clusters: Vec<(Vec<String>, Vec<String>)> = Vec::new();
    let mut positions = HashMap::new();
    for item in items {
        let answers: Vec<String> = item
            .answers
            .iter()
            .zip(names)
            .flat_map(|(answer, name)| answer_lines(answer, name, layout))
            .collect();
        let position = *positions.entry(answers.clone()).or_insert_with(|| {
            clusters.push((Vec::new(), answers));
            clusters.len() - 1
        });
        clusters[position].0.extend(item_lines(item, layout.all));
    }
    clusters
        .into_iter()
        .flat_map(|(items, answers)| items.into_iter().chain(answers))
        .collect()
}

/// An item and its size.
fn item_lines(item: &ReportItem, columns: usize) -> Vec<String> {
    let size = match (item.download_size, item.nar_size) {
        (Some(download), _) => format!("  {}", bytes(download)),
        (None, Some(nar)) => format!("  {} unpacked", bytes(nar)),
        (None, None) => String::new(),
    };
    let path = format!("  {}", fitted_item(&item.path, columns - 2));
    if size.is_empty() || width(&path) + width(&size) <= columns {
        vec![path + &size]
    } else {
        vec![path, format!("  {size}")]
    }
}

/// One server's answer: its name, the answer, the answer's age and how long it is used.
fn answer_lines(answer: &ReportAnswer, name: &str, layout: &ReportColumns) -> Vec<String> {
    if answer.is_needless {
        return Vec::new();
    }
    let others = " ".repeat(layout.answer_indent());
    let (mut lines, first) = if layout.is_narrow() {
        (vec![format!("    {name}")], others.clone())
    } else {
        (Vec::new(), format!("    {}  ", padded(name, layout.names)))
    };
    lines.extend(wrapped(
        &printable(&answer.detail),
        layout.all,
        &first,
        &others,
    ));

    add_times(&mut lines, &times(answer), layout.all, &others);
    if let Some(nar) = &answer.nar {
        lines.extend(wrapped(&nar_line(nar), layout.all, &others, &others));
    }
    lines
}

/// Adds `times`, which may be empty, to the last line of an answer, or below it where there is no room.
fn add_times(lines: &mut Vec<String>, times: &str, columns: usize, indent: &str) {
    match lines.last_mut() {
        Some(last) if width(last) + width(times) < columns => last.push_str(times),
        _ if times.is_empty() => {}
        _ => {
            let times = times.trim_start_matches([',', ' ']);
            lines.extend(wrapped(times, columns, indent, indent));
        }
    }
}

/// How old an answer is and for how long it is used.
fn times(answer: &ReportAnswer) -> String {
    let asked = match (answer.view.from_cache, answer.age.map(duration)) {
        (true, Some(age)) => format!(", asked {age} ago"),
        (false, Some(_)) => ", asked just now".to_owned(),
        (_, None) => String::new(),
    };
    match (answer.view.expires_in, answer.age) {
        (Some(left), _) => format!("{asked}, expires in {}", duration(left)),
        (None, Some(_)) => format!("{asked}, not cached"),
        (None, None) => asked,
    }
}

fn nar_line(nar: &NarProbe) -> String {
    // Proxies cache errors as well: what they say of their cache matters only for an available nar.
    let state = match (&nar.error, nar.status) {
        (Some(error), _) => format!("not available: {error}"),
        (None, Some(status @ (404 | 410))) => {
            format!("gone, HTTP {status}: the narinfo is stale")
        }
        (None, Some(status)) if !nar.is_available() => format!("not available: HTTP {status}"),
        (None, _) => match (&nar.proxy_cache, nar.age.map(duration)) {
            (Some(word), Some(age)) => format!("proxy cache {word}, {age} old"),
            (Some(word), None) => format!("proxy cache {word}"),
            (None, Some(age)) => format!("from a proxy's cache, {age} old"),
            (None, None) => "available; no proxy-cache header".to_owned(),
        },
    };
    format!("nar: {}", printable(&state))
}

/// Totals per server.
fn totals(servers: &[ServerTotals], names: &[String], layout: &ReportColumns) -> Vec<String> {
    let name_column = layout.names.max("SERVER".len());
    let is_table = name_column + TOTALS_WIDTH <= layout.all;
    let mut lines = Vec::new();
    if is_table {
        lines.push(format!(
            "{:<name_column$} {:>5} {:>6} {:>5} {:>6} {:>9} {:>7} {:>6}",
            "SERVER", "asked", "cached", "has", "lacks", "preparing", "refused", "failed"
        ));
    }

    for (totals, name) in servers.iter().zip(names) {
        if is_table {
            lines.extend(totals_row(totals, name, name_column));
        } else {
            lines.push(name.clone());
            lines.extend(wrapped(&totals.in_words(), layout.all, "  ", "  "));
        }

        if let Some(reason) = &totals.reason {
            let text = format!("{}: {reason}", totals.state.replace('-', " "));
            lines.extend(wrapped(&printable(&text), layout.all, "    ", "      "));
        }
        let (hits, misses) = (totals.nar_cache_hits, totals.nar_cache_misses);
        if hits + misses > 0 {
            let text = format!("nars in its proxy's cache: {hits} hits, {misses} misses");
            lines.extend(wrapped(&text, layout.all, "    ", "      "));
        }
    }
    lines
}

/// A row of the table of totals. A name that would push the numbers out of their columns is above
/// them.
fn totals_row(totals: &ServerTotals, name: &str, name_column: usize) -> Vec<String> {
    let is_long = width(name) > name_column;
    let numbers = format!(
        "{} {:>5} {:>6} {:>5} {:>6} {:>9} {:>7} {:>6}",
        padded(if is_long { "" } else { name }, name_column),
        totals.asked,
        totals.from_cache,
        totals.available,
        totals.missing,
        totals.preparing,
        totals.refused,
        totals.failed,
    );
    let name = is_long.then(|| name.to_owned());
    name.into_iter().chain([numbers]).collect()
}

/// What has to be built, and about what nothing is known.
fn conclusion(report: &CacheMissReport, columns: usize) -> Vec<String> {
    let mut lines = Vec::new();
    if report.to_build > 0 {
        let to_build = output::count(report.to_build, "item", "items");
        let mut text = format!("to be built now: {to_build}");
        let preparing = report.count(|group| group == MissGroup::Preparing);
        if preparing > 0 {
            text.push_str(&format!(
                "; {preparing} of them may be available soon (`subst fetch --wait`)"
            ));
        }
        let mut missing = report.items.iter().filter(|item| item.group.is_missing());
        let are_servers_wrong = report.servers.iter().all(|server| server.lacks_cache_info);
        text.push_str(match report.to_build {
            _ if are_servers_wrong && missing.clone().next().is_some() => {
                ", if the addresses of the servers are right"
            }
            _ if !missing.any(|item| item.is_requested) => "",
            1 => ", unless its name is mistyped",
            _ => ", unless names are mistyped",
        });
        lines.extend(wrapped(&text, columns, "", "  "));
    }

    if report.unknown > 0 {
        let unknown = output::count(report.unknown, "item", "items");
        let mut text = format!("unknown: {unknown}");
        let open = report.count(MissGroup::is_open);
        match open {
            0 => {}
            open if open == report.unknown => {
                text.push_str(", which servers that did not answer may have");
            }
            open => text.push_str(&format!(
                "; servers that did not answer may have {open} of them"
            )),
        }
        lines.extend(wrapped(&text, columns, "", "  "));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::text::REPORT_WIDTH;

    #[test]
    fn a_nar_is_available_only_with_status_200() {
        fn line(status: u16, proxy_cache: Option<&str>, age: Option<u64>) -> String {
            nar_line(&NarProbe {
                url: String::new(),
                status: Some(status),
                proxy_cache: proxy_cache.map(str::to_owned),
                age,
                error: None,
            })
        }
        assert_eq!(
            line(200, None, None),
            "nar: available; no proxy-cache header"
        );
        assert_eq!(
            line(200, Some("HIT"), Some(9)),
            "nar: proxy cache HIT, 9 s old"
        );
        assert_eq!(
            line(404, Some("HIT"), Some(9)),
            "nar: gone, HTTP 404: the narinfo is stale"
        );
        assert_eq!(
            line(410, None, Some(9)),
            "nar: gone, HTTP 410: the narinfo is stale"
        );
        assert_eq!(
            line(403, Some("MISS"), None),
            "nar: not available: HTTP 403"
        );
        assert_eq!(line(500, None, None), "nar: not available: HTTP 500");
    }

    #[test]
    fn no_empty_line_follows_an_answer_that_fills_its_line() {
        let added = |line: &str, times: &str| {
            let mut lines = vec![line.to_owned()];
            add_times(&mut lines, times, 10, "  ");
            lines
        };
        assert_eq!(added("no answer:", ""), ["no answer:"]);
        assert_eq!(
            added("no answer:", ", 1 s ago"),
            ["no answer:", "  1 s ago"]
        );
        assert_eq!(added("no", ", 1 s"), ["no, 1 s"]);
    }

    #[test]
    fn totals_fit_a_terminal() {
        let names = ["x".repeat(5), "y".repeat(28), "z".repeat(60)];
        let of = |name: &String| ServerTotals {
            url: format!("https://{name}"),
            ..Default::default()
        };
        let servers: Vec<ServerTotals> = names.iter().map(of).collect();
        let layout = ReportColumns::new(REPORT_WIDTH, &names);
        let lines = super::totals(&servers, &names, &layout);
        assert!(lines.iter().all(|line| line.len() <= 80), "{lines:#?}");
        // Below each other, whatever the name.
        let zeros = lines
            .iter()
            .filter_map(|line| line.find(" 0"))
            .collect::<Vec<_>>();
        assert_eq!((lines.len(), zeros), (5, vec![32; 3]), "{lines:#?}");
    }
}
