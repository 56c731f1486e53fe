//! Progress as lines that fit into the columns of a terminal.
//!
//! A line is one column narrower than the terminal, because terminals differ in what they do after the
//! last one. What does not fit is left out, the least important first, and names are cut.

use std::time::Duration;

use crate::cli::live_lines::TerminalSize;
use crate::cli::output::{self, printable};
use crate::cli::text::{padded, widest, width};
use crate::http::whole_bytes;

use super::style::{Emphasis, TerminalStyle};
use super::tally::{ActiveDownload, FetchProgress, RunTally};
use super::totals::{FetchedItem, short_address};

/// A bar is this wide, where there is room.
const BAR_MAX: usize = 30;
const BAR_MIN: usize = 10;
/// The columns of the text beside the bar, usually: the bar does not change with the text.
const USUAL_TEXT: usize = 54;
/// A name is cut to fewer columns only when nothing else can be left out.
const NAME_MIN: usize = 16;
const SERVER_MAX: usize = 24;
/// Narrower terminals get no indentation.
const NARROW: usize = 40;
/// Downloads are shown in at most this many rows.
const DOWNLOADS_MAX: usize = 12;
/// Longer times are not shown.
const SECONDS_LEFT_MAX: u64 = 100 * 3600;

/// Everything under way, in at most as many lines as the terminal has, less two for messages.
pub(super) fn screen_lines(
    tally: &RunTally,
    now: Duration,
    size: TerminalSize,
    style: TerminalStyle,
) -> Vec<String> {
    let columns = size.columns.saturating_sub(1);
    if let Some(text) = &tally.status_line {
        return vec![style.cut(text, columns).into_owned()];
    }
    let Some(progress) = tally.progress(now) else {
        return lookup_line(tally, columns, style).into_iter().collect();
    };

    let mut lines = vec![total_line(&progress, columns, style)];
    let downloads: Vec<&ActiveDownload> = tally.downloads().collect();
    let rows = size.rows.saturating_sub(3).min(DOWNLOADS_MAX);
    // The last row says how many are not shown.
    let shown = match downloads.len() {
        count if count <= rows => count,
        _ => rows.saturating_sub(1),
    };
    lines.extend(download_lines(&downloads[..shown], now, columns, style));

    if shown < downloads.len() && rows > 0 {
        let text = format!("and {} more", downloads.len() - shown);
        lines.push(style.cut(&text, columns).into_owned());
    }
    lines
}

/// How far lookups are; `None` when there are none under way.
fn lookup_line(tally: &RunTally, columns: usize, style: TerminalStyle) -> Option<String> {
    let lookups = &tally.lookups;
    if lookups.is_done() {
        return None;
    }

    let text = lookup_text(tally)?;
    let count = format!("{}/{}", lookups.done, lookups.total);
    let short_text = format!("looked up {count}");
    let room_for_servers = width(&short_text) + 20;
    Some(if columns >= room_for_servers {
        style.cut(&text, columns).into_owned()
    } else if width(&short_text) <= columns {
        short_text
    } else {
        style.cut(&count, columns).into_owned()
    })
}

/// How far lookups are, and the servers; `None` before there are any.
pub(super) fn lookup_text(tally: &RunTally) -> Option<String> {
    let lookups = &tally.lookups;
    if lookups.total == 0 {
        return None;
    }
    let servers = match &*lookups.servers {
        "" => String::new(),
        servers => format!(" ({servers})"),
    };
    let (done, total) = (lookups.done, lookups.total);
    Some(format!("looked up {done}/{total} items{servers}"))
}

fn total_line(progress: &FetchProgress, columns: usize, style: TerminalStyle) -> String {
    let text = total_text(progress, columns, style);
    let room = columns.saturating_sub(width(&text).max(USUAL_TEXT) + 1);
    if room < BAR_MIN || progress.bytes == 0 {
        return text;
    }
    let fraction = progress.bytes_done as f64 / progress.bytes as f64;
    format!("{} {text}", style.bar(fraction, room.min(BAR_MAX)))
}

/// Such as `40.2/75.6 MiB 53% 14.1 MiB/s 0:03 left, 1/15 items`, or less of it.
pub(super) fn total_text(progress: &FetchProgress, columns: usize, style: TerminalStyle) -> String {
    let amount = output::part_of_bytes(progress.bytes_done, progress.bytes);
    let percent = match progress.bytes {
        0 => String::new(),
        bytes => format!(" {}%", percent(progress.bytes_done, bytes)),
    };
    let rate = progress.bytes_per_second.map(rate_text);
    let rate = rate.map_or_else(String::new, |rate| format!(" {rate}"));
    let left = progress
        .seconds_left
        .filter(|seconds| *seconds < SECONDS_LEFT_MAX)
        .map_or_else(String::new, |left| format!(" {} left", clock_text(left)));
    let items = format!(", {}/{} items", progress.items_done, progress.items);

    let texts = [
        format!("{amount}{percent}{rate}{left}{items}"),
        format!("{amount}{percent}{rate}{left}"),
        format!("{amount}{percent}{left}"),
        format!("{amount}{percent}"),
        percent.trim_start().to_owned(),
    ];
    let fitting = texts
        .into_iter()
        .find(|text| width(text) <= columns && !text.is_empty());
    fitting.unwrap_or_else(|| style.cut(&amount, columns).into_owned())
}

fn percent(done: u64, total: u64) -> u64 {
    let percent = u128::from(done) * 100 / u128::from(total.max(1));
    u64::try_from(percent).unwrap_or(100).min(100)
}

fn rate_text(bytes_per_second: f64) -> String {
    format!("{}/s", output::bytes(whole_bytes(bytes_per_second)))
}

/// A duration as clocks show it, such as `0:03` or `1:05:00`.
fn clock_text(seconds: u64) -> String {
    let (minutes, seconds) = (seconds / 60, seconds % 60);
    match (minutes / 60, minutes % 60) {
        (0, minutes) => format!("{minutes}:{seconds:02}"),
        (hours, minutes) => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

/// The columns behind the names of downloads, in the order in which they are shown.
const SERVER: usize = 0;
const METHOD: usize = 1;
const AMOUNT: usize = 2;
const RATE: usize = 3;

/// A line for each download: name, server, method, amount and rate, below each other.
fn download_lines(
    downloads: &[&ActiveDownload],
    now: Duration,
    columns: usize,
    style: TerminalStyle,
) -> Vec<String> {
    let rows: Vec<[String; 4]> = downloads
        .iter()
        .map(|download| download_cells(download, now, style))
        .collect();
    let mut widths = [SERVER, METHOD, AMOUNT, RATE]
        .map(|column| widest(rows.iter().map(|row| row[column].as_str())));
    let gap = if columns < NARROW { 1 } else { 2 };
    let indent = if columns < NARROW { 0 } else { 2 };

    let longest_name = widest(downloads.iter().map(|download| download.name()));
    for column in [AMOUNT, METHOD, SERVER, RATE] {
        let wanted = if column == RATE { 1 } else { NAME_MIN };
        if name_columns(&widths, columns, indent, gap) >= longest_name.min(wanted) {
            break;
        }
        widths[column] = 0;
    }
    let name_columns = longest_name.min(name_columns(&widths, columns, indent, gap));

    let lines = downloads.iter().zip(&rows).map(|(download, row)| {
        let name = style.cut(download.name(), name_columns);
        let mut line = format!("{}{}", " ".repeat(indent), padded(&name, name_columns));
        for (column, cell) in row.iter().enumerate().filter(|(at, _)| widths[*at] > 0) {
            let blanks = " ".repeat(widths[column] - width(cell));
            let cell = match column {
                SERVER | METHOD => format!("{cell}{blanks}"),
                _ => format!("{blanks}{cell}"),
            };
            let cell = match column {
                SERVER | METHOD => style.emphasized(&cell, Emphasis::Faint),
                _ => cell,
            };
            line.push_str(&format!("{}{cell}", " ".repeat(gap)));
        }
        line
    });
    lines.collect()
}

/// The columns that are left for names beside columns of these widths.
fn name_columns(widths: &[usize; 4], columns: usize, indent: usize, gap: usize) -> usize {
    let taken = widths.iter().filter(|width| **width > 0);
    let taken: usize = taken.map(|width| width + gap).sum();
    columns.saturating_sub(indent + taken)
}

fn download_cells(download: &ActiveDownload, now: Duration, style: TerminalStyle) -> [String; 4] {
    let amount = match download.size {
        Some(size) => output::part_of_bytes(download.received, size),
        None => output::bytes(download.received),
    };
    let method = match download.method {
        "none" => String::new(),
        method => method.to_owned(),
    };
    [
        style.cut(&download.server, SERVER_MAX).into_owned(),
        method,
        amount,
        download.rate(now).map_or_else(String::new, rate_text),
    ]
}

/// An item that was fetched, such as `fetched hello-2.12.2  75.6 MiB in 5.2 s from ci.guix.gnu.org, zstd`.
pub(super) fn fetched_line(item: &FetchedItem, columns: usize, style: TerminalStyle) -> String {
    let head = if columns < NARROW { "" } else { "fetched " };
    let size = format!("  {}", output::bytes(item.downloaded));
    let time = format!(" in {}", output::estimate(item.duration.as_secs_f64()));
    let server = format!(" from {}", printable(short_address(&item.server)));
    let method = match item.method {
        "none" => String::new(),
        method => format!(", {method}"),
    };

    let name_min = width(&item.name).min(NAME_MIN);
    let tails = [
        format!("{size}{time}{server}{method}"),
        format!("{size}{time}{server}"),
        format!("{size}{time}"),
        size,
        String::new(),
    ];
    let room = columns.saturating_sub(width(head));
    let tail = tails
        .iter()
        .find(|tail| room >= width(tail) + name_min)
        .map_or("", String::as_str);
    let name = style.cut(&item.name, room.saturating_sub(width(tail)));
    let head = style.emphasized(head, Emphasis::Done);
    format!("{head}{name}{}", style.emphasized(tail, Emphasis::Faint))
}

#[cfg(test)]
mod tests;
