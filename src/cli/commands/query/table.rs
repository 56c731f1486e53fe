//! What a query found, as a table for people, and its one line of summary.

use crate::cli::context::Context;
use crate::cli::output::{self, printable, without_url};
use crate::substitute::download::choice;
use crate::substitute::lookup::Resolution;
use crate::substitute::outcome::{ItemLookup, LookupOutcome, NOT_AWAITED};

use super::data;
use super::wrap::{short_name, wrapped};

/// What is told of one item.
struct Row {
    status: &'static str,
    download: String,
    unpacked: String,
    server: String,
    path: String,
    /// Who said what, when that is why the item is not available.
    why: Option<String>,
}

/// A table: for a terminal of `width` columns, else one line for each item, for scripts.
pub(super) fn lines<'a>(
    context: &'a Context,
    resolution: &'a Resolution,
    width: Option<usize>,
) -> Box<dyn Iterator<Item = String> + 'a> {
    let rows = resolution
        .items
        .iter()
        .map(move |found| row(context, resolution, found));
    match width {
        Some(width) => Box::new(in_a_terminal(&rows.collect::<Vec<_>>(), width).into_iter()),
        // Scripts ask about tens of thousands: no line has to wait in memory for the others.
        None => Box::new(in_a_pipe(rows, server_column(resolution))),
    }
}

fn row(context: &Context, resolution: &Resolution, found: &ItemLookup) -> Row {
    let source = found.sources.first();
    let download = source.and_then(|source| choice::smallest(&source.offer)?.file_size);
    let unpacked = found
        .authority
        .as_ref()
        .map(|authority| authority.narinfo().nar_size());
    let size = |size: Option<u64>| size.map_or("-".to_owned(), output::bytes);
    let server = source.map_or("-", |source| &resolution.servers[source.server].url);
    Row {
        status: found.status.name(),
        download: size(download),
        unpacked: size(unpacked),
        server: printable(server).into_owned(),
        path: context.settings.store_dir().full_name(&found.path),
        why: why(resolution, found),
    }
}

/// The width of the servers' column: that of the longest address in it, within reason.
fn server_column(resolution: &Resolution) -> usize {
    let sources = resolution
        .items
        .iter()
        .filter_map(|found| found.sources.first());
    let widths = sources.map(|source| printable(&resolution.servers[source.server].url).len());
    widths.max().unwrap_or(0).min(SERVER_WIDTH_MAX)
}

fn in_a_pipe(rows: impl Iterator<Item = Row>, width: usize) -> impl Iterator<Item = String> {
    rows.map(move |row| {
        let why = row
            .why
            .as_ref()
            .map_or(String::new(), |why| format!("  ({why})"));
        let Row { server, path, .. } = &row;
        format!("{}  {server:<width$}  {path}{why}", sizes(&row))
    })
}

/// With a header. Where the terminal is too narrow for everything in a line, each item has one
/// above what is told of it.
fn in_a_terminal(rows: &[Row], width: usize) -> Vec<String> {
    let Some(widest) = rows.iter().map(|row| row.path.chars().count()).max() else {
        return Vec::new();
    };
    let names: Vec<String> = rows.iter().map(|row| short_name(&row.server)).collect();
    let header = format!("{:<9} {:>10} {:>10}  ", "STATUS", "DOWNLOAD", "UNPACKED");
    let column = names
        .iter()
        .map(|name| name.chars().count())
        .max()
        .unwrap_or(0)
        .max(6);
    let is_wide = header.len() + column + 2 + widest <= width;
    let mut lines = match is_wide {
        true => vec![format!("{header}{:<column$}  ITEM", "SERVER")],
        false => vec!["ITEM".to_owned(), format!("  {header}SERVER")],
    };
    for (row, name) in rows.iter().zip(&names) {
        let (sizes, path) = (sizes(row), &row.path);
        if is_wide {
            lines.push(format!("{sizes}  {name:<column$}  {path}"));
        } else {
            lines.extend([path.clone(), format!("  {sizes}  {name}")]);
        }
        lines.extend(
            row.why
                .iter()
                .flat_map(|why| wrapped(why, "    ", "      ")),
        );
    }
    lines
}

fn sizes(
    Row {
        status,
        download,
        unpacked,
        ..
    }: &Row,
) -> String {
    format!("{status:<9} {download:>10} {unpacked:>10}")
}

/// Longer addresses push the item to the right.
const SERVER_WIDTH_MAX: usize = 34;

/// The most telling answer about an item that is not available.
fn why(resolution: &Resolution, found: &ItemLookup) -> Option<String> {
    if found.authority.is_some() {
        return None;
    }
    let telling = |outcome: &LookupOutcome| match outcome {
        LookupOutcome::Refused(refusal) => Some(refusal.to_string()),
        LookupOutcome::Unreadable(why)
        | LookupOutcome::Failed(why)
        | LookupOutcome::LocalFailure(why)
        | LookupOutcome::Skipped(why)
        | LookupOutcome::OtherStore(why) => Some(why.clone()),
        LookupOutcome::NotAwaited => Some(NOT_AWAITED.to_owned()),
        LookupOutcome::Unusable(why) => Some(format!("it has no download that can be used: {why}")),
        LookupOutcome::Offline => Some("not in the lookup cache".to_owned()),
        _ => None,
    };
    let all = found.answers.iter().zip(&resolution.servers);
    let mut reasons = all.filter_map(|(answer, server)| Some((telling(&answer.outcome)?, server)));
    let (reason, server) = reasons.next()?;
    let reason = without_url(&reason);
    Some(printable(&format!("{}: {reason}", server.url)).into_owned())
}

/// The summary as a note that a terminal, if it goes to one, need not break.
pub(super) fn note(context: &Context, resolution: &Resolution, width: Option<usize>) -> String {
    let text = summary(context, resolution);
    match width {
        // Notes begin with who says them.
        Some(_) => wrapped(&text, "subst: ", "  ")
            .join("\n")
            .split_off("subst: ".len()),
        None => text,
    }
}

/// How many, how large, how fast.
pub(super) fn summary(context: &Context, resolution: &Resolution) -> String {
    let summary = data::summary(context, resolution);
    let mut text = format!(
        "{} of {} available, {} to download, {} unpacked",
        summary.available,
        resolution.items.len(),
        output::bytes(summary.download_size),
        output::bytes(summary.nar_size),
    );
    let others = [
        (summary.preparing, "being prepared"),
        (summary.missing, "missing"),
        (summary.refused, "refused"),
        (summary.unknown, "unknown"),
    ];
    for (count, word) in others.into_iter().filter(|(count, _)| *count > 0) {
        text.push_str(&format!(", {count} {word}"));
    }
    let requests = match summary.requests {
        1 => "1 request".to_owned(),
        count => format!("{count} requests"),
    };
    text.push_str(&format!(" ({requests}, {:.2} s)", summary.seconds));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Row> {
        let row = |status, size: &str, server: &str, why: Option<&str>| Row {
            status,
            download: size.to_owned(),
            unpacked: size.to_owned(),
            server: server.to_owned(),
            path: format!("/gnu/store/{}-{status}-1.0", "0".repeat(32)),
            why: why.map(str::to_owned),
        };
        let why = "[2001:db8::1]:8080: no answer while another server had answered everything else";
        vec![
            row(
                "available",
                "12.3 MiB",
                "https://bordeaux.guix.gnu.org",
                None,
            ),
            row("unknown", "-", "-", Some(why)),
        ]
    }

    #[test]
    fn a_narrow_terminal_breaks_no_line() {
        let zeros = "0".repeat(32);
        let expected = [
            "ITEM",
            "  STATUS      DOWNLOAD   UNPACKED  SERVER",
            &format!("/gnu/store/{zeros}-available-1.0"),
            "  available   12.3 MiB   12.3 MiB  bordeaux.guix.gnu.org",
            &format!("/gnu/store/{zeros}-unknown-1.0"),
            "  unknown            -          -  -",
            "    [2001:db8::1]:8080: no answer while another server had answered everything",
            "      else",
        ];
        assert_eq!(in_a_terminal(&rows(), 80), expected);
    }

    #[test]
    fn a_wide_terminal_has_a_line_for_each_item() {
        let lines = in_a_terminal(&rows(), 132);
        let items: Vec<usize> = lines
            .iter()
            .filter_map(|line| line.find("/gnu/store/"))
            .collect();
        assert_eq!(lines[0].find("ITEM"), Some(items[0]));
        assert_eq!(items, [items[0]; 2]);
        assert!(lines.iter().all(|line| line.len() <= 132));
    }

    #[test]
    fn a_pipe_gets_one_line_for_each_item_and_no_header() {
        let lines: Vec<String> = in_a_pipe(rows().into_iter(), 10).collect();
        assert_eq!(lines.len(), 2);
        assert!(
            lines[0].starts_with("available ") && lines[1].ends_with("else)"),
            "{lines:?}"
        );
    }
}
