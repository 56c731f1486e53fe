//! The data of the page: that of the JSON report, with texts for people and the widths of bars.

use std::collections::BTreeMap;

use data_encoding::BASE64;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::cli::commands::query::report::{CacheMissReport, MissGroup};
use crate::cli::commands::query::view::{QuerySummary, short_name};
use crate::cli::output::{bytes, count, duration};
use crate::format::store_path::StoreDir;

use super::template::fill;

/// The page without data.
const PAGE: &str = include_str!("page.html");

/// Statuses in the order of the page, and their names for people.
const STATUSES: [(&str, &str); 6] = [
    ("available", "Available"),
    ("valid", "In the store"),
    ("preparing", "Preparing"),
    ("missing", "Missing"),
    ("refused", "Refused"),
    ("unknown", "Unknown"),
];

/// The page about `report`, at `now` in Unix seconds.
#[must_use]
pub(in crate::cli::commands::query) fn render(
    report: &CacheMissReport,
    summary: &QuerySummary,
    store_dir: &StoreDir,
    now: u64,
) -> String {
    // Both are data for scripts anyway, so that the page has the same numbers.
    let report = serde_json::to_value(report).unwrap_or_default();
    let mut summary = serde_json::to_value(summary).unwrap_or_default();
    let items = list(&report, "items");
    let title = title(
        number(&summary, "available"),
        number(&summary, "valid"),
        items.len() as u64,
    );

    let statuses = STATUSES.map(
        |(name, label)| json!({ "name": name, "label": label, "count": number(&summary, name) }),
    );
    let shares = statuses.iter().filter(|status| number(status, "count") > 0);
    let shares: Vec<String> = shares
        .map(|status| format!("{} {}", text(status, "name"), number(status, "count")))
        .collect();

    let size = |name| bytes(number(&summary, name));
    let texts = json!({
        "download_text": size("download_size"), "nar_text": size("nar_size"),
        "requests_text": count(number(&summary, "requests"), "request", "requests"),
        "cache_hits_text": count(number(&summary, "cache_hits"), "answer", "answers"),
        "cache_misses_text": count(number(&summary, "cache_misses"), "other", "others"),
        "seconds_text": format!("{:.2}", summary["seconds"].as_f64().unwrap_or_default()),
        "version": env!("CARGO_PKG_VERSION"),
    });
    extend(&mut summary, texts);

    let created = utc(now);
    let data = json!({
        "summary_title": title, "store_dir": store_dir.as_str(),
        "items_text": count(items.len() as u64, "item", "items"),
        "created": created.replace(' ', "T") + "Z", "created_text": format!("{created} UTC"),
        "script_hash": script_hash(), "shares_text": shares.join(", "), "statuses": statuses,
        "to_build": report["to_build"], "summary": summary,
        "servers": list(&report, "servers").iter().map(server).collect::<Vec<_>>(),
        "groups": groups(items), "items": item_rows(items),
    });
    fill(PAGE, &data)
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().map_or(&[], Vec::as_slice)
}

/// The heading: what can be had, of all items.
fn title(available: u64, valid: u64, items: u64) -> String {
    let place = match (available, valid) {
        (_, 0) => "available",
        (0, _) => "in the store",
        _ => "available or in the store",
    };
    format!(
        "{} of {} {place}",
        available + valid,
        count(items, "item", "items")
    )
}

fn number(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or(0)
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

/// Adds the fields of `more` to the object `value`.
fn extend(value: &mut Value, more: Value) {
    if let (Value::Object(fields), Value::Object(more)) = (value, more) {
        fields.extend(more);
    }
}

/// `part` of `all` in percent, with one decimal.
fn percent(part: u64, all: u64) -> f64 {
    if all == 0 {
        return 0.0;
    }
    (part as f64 / all as f64 * 1000.0).round() / 10.0
}

fn server(totals: &Value) -> Value {
    let answers = number(totals, "asked") + number(totals, "from_cache");
    let mut server = totals.clone();
    extend(
        &mut server,
        json!({
            "name": short_name(text(totals, "url")), "answers": answers,
            "answers_text": count(answers, "answer", "answers"),
            "coverage": percent(number(totals, "available"), answers),
        }),
    );
    server
}

/// The groups that have items, gravest first.
fn groups(items: &[Value]) -> Vec<Value> {
    let mut members: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for item in items {
        members.entry(text(item, "group")).or_default().push(item);
    }

    let all = MissGroup::ALL.iter();
    let found = all.filter_map(|group| Some((group, members.get(group.name())?)));
    found
        .map(|(group, members)| {
            let sizes = members.iter().map(|item| number(item, "nar_size"));
            let nar_size = sizes.fold(0, u64::saturating_add);
            let (label, reason) = heading_parts(*group);
            let mut count_text = count(members.len() as u64, "item", "items");
            if nar_size > 0 {
                count_text.push_str(&format!(", {} unpacked", bytes(nar_size)));
            }

            json!({
                "name": group.name(), "status": text(members[0], "status"), "label": label,
                "reason": reason, "count": members.len(), "nar_size": nar_size,
                "count_text": count_text,
                "percent": percent(members.len() as u64, items.len() as u64),
                "hints": hints(*group, members),
            })
        })
        .collect()
}

/// The parts of a heading, such as `MISSING` and `no server has it`.
fn heading_parts(group: MissGroup) -> (&'static str, &'static str) {
    let heading = group.heading();
    heading.split_once(", ").unwrap_or((heading, ""))
}

fn hints(group: MissGroup, members: &[&Value]) -> Vec<Value> {
    if !group.is_worth_a_hint() {
        return Vec::new();
    }
    let mut hints: Vec<&str> = members.iter().map(|item| text(item, "hint")).collect();
    hints.sort_unstable();
    hints.dedup();
    let hints = hints.into_iter();
    hints
        .map(|hint| json!({ "parts": hint_parts(hint) }))
        .collect()
}

/// The parts of a hint: text, and commands, which are between backquotes.
fn hint_parts(hint: &str) -> Vec<Value> {
    let parts = hint.split('`').enumerate();
    parts
        .map(|(index, part)| match index % 2 {
            0 => json!({ "text": part, "code": null }),
            _ => json!({ "text": null, "code": part }),
        })
        .collect()
}

/// The items, those of the gravest group first.
fn item_rows(items: &[Value]) -> Vec<Value> {
    let largest = items.iter().map(|item| number(item, "nar_size")).max();
    let reasons = MissGroup::ALL.iter().enumerate();
    let reasons: BTreeMap<&str, (usize, &str)> = reasons
        .map(|(rank, group)| (group.name(), (rank, heading_parts(*group).1)))
        .collect();
    let reason_of = |item: &Value| reasons.get(text(item, "group")).copied();

    let mut sorted: Vec<&Value> = items.iter().collect();
    sorted.sort_by_key(|item| reason_of(item).map(|(rank, _)| rank));
    let rows = sorted.into_iter();
    rows.map(|item| {
        let reason = reason_of(item).map(|(_, reason)| reason);
        item_row(item, reason.unwrap_or_default(), largest.unwrap_or(0))
    })
    .collect()
}

fn item_row(item: &Value, reason: &str, largest: u64) -> Value {
    let path = text(item, "path");
    let base = path.rsplit_once('/').map_or(path, |(_, base)| base);
    let (hash, name) = base.split_once('-').unwrap_or(("", base));
    let size = |name: &str| item[name].as_u64().map(bytes);
    let answers = list(item, "answers").iter();
    let needed = answers.filter(|answer| text(answer, "answer") != "not-asked");

    let mut row = Map::new();
    for name in ["path", "status", "group", "nar_size", "download_size"] {
        row.insert(name.to_owned(), item[name].clone());
    }
    let mut row = Value::Object(row);
    extend(
        &mut row,
        json!({
            "hash": hash, "name": name, "reason": reason, "nar_text": size("nar_size"),
            "nar_percent": percent(number(item, "nar_size"), largest),
            "download_text": size("download_size"), "answers": needed.map(answer).collect::<Vec<_>>(),
        }),
    );
    row
}

fn answer(answer: &Value) -> Value {
    let is_cached = answer["from_cache"] == true;
    let age = answer["age"].as_u64().filter(|_| is_cached);
    json!({
        "server_name": short_name(text(answer, "server")), "detail": answer["detail"],
        "age_text": age.map(|age| format!("asked {} ago", duration(age))),
    })
}

/// The hash by which the page allows its own script and no other.
fn script_hash() -> String {
    let script = PAGE
        .split_once("<script>")
        .and_then(|(_, behind)| behind.split_once("</script>"));
    let digest = Sha256::digest(script.map_or("", |(script, _)| script));
    format!("sha256-{}", BASE64.encode(&digest))
}

/// The time in Unix seconds as date and time of the day, such as `2026-11-27 03:05:09`.
fn utc(unix_seconds: u64) -> String {
    // The algorithm of Howard Hinnant's `civil_from_days`: years begin in March, in eras of 400 years.
    let days = unix_seconds / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);

    let time = unix_seconds % 86_400;
    let (hours, minutes, seconds) = (time / 3600, time / 60 % 60, time % 60);
    format!("{year:04}-{month:02}-{day:02} {hours:02}:{minutes:02}:{seconds:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let cases = [
            (0, "1970-01-01 00:00:00"),
            (951_782_399, "2000-02-28 23:59:59"),
            (951_782_400, "2000-02-29 00:00:00"),
            (1_795_748_709, "2026-11-27 03:05:09"),
            (4_102_444_800, "2100-01-01 00:00:00"),
        ];
        for (seconds, expected) in cases {
            assert_eq!(utc(seconds), expected);
        }
    }

    #[test]
    fn the_heading_counts_what_can_be_had() {
        assert_eq!(title(1, 0, 1), "1 of 1 item available");
        assert_eq!(title(0, 7, 7), "7 of 7 items in the store");
        assert_eq!(title(6, 1, 8), "7 of 8 items available or in the store");
        assert_eq!(title(0, 0, 2), "0 of 2 items available");
    }

    /// Phones show no header, and each cell in a line of its own.
    #[test]
    fn only_cells_of_the_header_have_the_width_of_a_column() {
        let rules = PAGE.lines().filter(|line| line.contains(":nth-child("));
        let of_rows: Vec<&str> = rules.filter(|line| !line.contains("thead th")).collect();
        assert_eq!(of_rows, [""; 0]);
    }

    #[test]
    fn the_page_needs_nothing_from_elsewhere() {
        for word in ["http:", "https:", "//", "src=", "@import", "url("] {
            let place = PAGE
                .find(word)
                .map(|at| &PAGE[at..(at + 60).min(PAGE.len())]);
            let is_comment = place.is_some_and(|place| place.starts_with("// What is not known"));
            assert!(place.is_none() || is_comment, "{place:?}");
        }
    }
}
