//! What a query found, as a table for people, and its one line of summary.

use crate::cli::context::Context;
use crate::cli::output::{bytes, printable};
use crate::cli::text::{padded, report_width, widest, width, wrapped};
use crate::substitute::item_lookup::ItemLookup;
use crate::substitute::lookup::Resolution;

use super::findings::{QueryFindings, QueryStatus};
use super::view::{ItemView, QuerySummary, fitted_item, short_name};

/// Longer addresses push the item to the right.
const SERVER_WIDTH_MAX: usize = 34;

/// What is shown of one item.
struct TableRow {
    status: &'static str,
    download: String,
    unpacked: String,
    server: String,
    path: String,
    /// The answer because of which the item is not available.
    why: Option<String>,
}

/// The table: for a terminal of `terminal_width` columns, else one line for each item, for scripts.
pub(super) fn lines<'a>(
    context: &'a Context,
    findings: &'a QueryFindings,
    terminal_width: Option<usize>,
) -> Box<dyn Iterator<Item = String> + 'a> {
    let items = findings.resolution.items.iter();
    let rows = items.map(move |found| row(context, findings, found));
    match terminal_width {
        Some(columns) => Box::new(in_terminal(&rows.collect::<Vec<_>>(), columns).into_iter()),
        // Scripts query tens of thousands of items: no line waits in memory for the others.
        None => Box::new(in_pipe(rows, server_column(findings))),
    }
}

fn row(context: &Context, findings: &QueryFindings, found: &ItemLookup) -> TableRow {
    let view = ItemView::of(context, findings, found);
    let is_valid = view.status == QueryStatus::Valid;
    let servers = &findings.resolution.servers;
    let server = view
        .source
        .map_or("-", |source| &servers[source.server].url);
    TableRow {
        status: view.status.name(),
        // Nothing is downloaded for what the store has.
        download: size(view.download_size().filter(|_| !is_valid)),
        unpacked: size(view.nar_size),
        server: printable(server).into_owned(),
        path: view.path,
        why: why(&findings.resolution, found).filter(|_| !is_valid),
    }
}

fn size(size: Option<u64>) -> String {
    size.map_or_else(|| "-".to_owned(), bytes)
}

/// The most telling answer about an item that is not available.
fn why(resolution: &Resolution, found: &ItemLookup) -> Option<String> {
    if found.authority.is_some() {
        return None;
    }

    let mut answers = found.answers.iter().zip(&resolution.servers);
    let (answer, server) = answers.find(|(answer, _)| answer.outcome.explains_absence())?;
    Some(printable(&format!("{}: {}", server.url, answer.outcome)).into_owned())
}

/// The width of the servers' column: that of the longest address in it, within reason.
fn server_column(findings: &QueryFindings) -> usize {
    let Resolution { items, servers, .. } = &findings.resolution;
    let sources = items.iter().filter_map(|found| findings.download(found));
    let widths = sources.map(|(source, _)| width(&printable(&servers[source.server].url)));
    widths.max().unwrap_or(0).min(SERVER_WIDTH_MAX)
}

fn in_pipe(
    rows: impl Iterator<Item = TableRow>,
    server_column: usize,
) -> impl Iterator<Item = String> {
    rows.map(move |row| {
        let why = row.why.as_ref().map(|why| format!("  ({why})"));
        let server = padded(&row.server, server_column);
        format!(
            "{}  {server}  {}{}",
            sizes(&row),
            row.path,
            why.unwrap_or_default()
        )
    })
}

/// With a header. Where the terminal is too narrow for everything in a line, each item has its own
/// line above the rest; where that is too narrow as well, the rest has no columns.
fn in_terminal(rows: &[TableRow], terminal_width: usize) -> Vec<String> {
    if rows.is_empty() {
        return Vec::new();
    }
    let names: Vec<String> = rows.iter().map(|row| short_name(&row.server)).collect();

    let header = format!("{:<9} {:>10} {:>10}  ", "STATUS", "DOWNLOAD", "UNPACKED");
    let server_column = widest(names.iter().map(String::as_str)).max("SERVER".len());
    let path_column = widest(rows.iter().map(|row| &*row.path));
    let is_wide = header.len() + server_column + 2 + path_column <= terminal_width;
    let is_narrow = 2 + header.len() + server_column > terminal_width;

    let mut lines = match (is_wide, is_narrow) {
        (true, _) => vec![format!("{header}{:<server_column$}  ITEM", "SERVER")],
        (_, false) => vec!["ITEM".to_owned(), format!("  {header}SERVER")],
        (_, true) => Vec::new(),
    };

    let columns = report_width(Some(terminal_width));
    for (row, name) in rows.iter().zip(&names) {
        let (sizes, path) = (sizes(row), &row.path);
        if is_wide {
            lines.push(format!("{sizes}  {}  {path}", padded(name, server_column)));
        } else if is_narrow {
            lines.push(fitted_item(path, columns).into_owned());
            lines.extend(wrapped(&facts(row, name), columns, "  ", "  "));
        } else {
            let path = fitted_item(path, terminal_width).into_owned();
            lines.extend([path, format!("  {sizes}  {name}")]);
        }
        if let Some(why) = &row.why {
            lines.extend(wrapped(why, columns, "    ", "      "));
        }
    }
    lines
}

/// What is known of an item, in words.
fn facts(row: &TableRow, server: &str) -> String {
    let mut text = row.status.to_owned();
    if row.download != "-" {
        text.push_str(&format!(", {} to download", row.download));
    }
    if row.unpacked != "-" {
        text.push_str(&format!(", {} unpacked", row.unpacked));
    }
    if server != "-" {
        text.push_str(&format!(", {server}"));
    }
    text
}

fn sizes(row: &TableRow) -> String {
    format!(
        "{:<9} {:>10} {:>10}",
        row.status, row.download, row.unpacked
    )
}

/// The summary as a note, which a terminal, if it goes to one, need not break.
pub(super) fn note(summary: &QuerySummary, terminal_width: Option<usize>) -> String {
    let text = summary.sentence();
    match terminal_width {
        // Notes begin with the name of the program.
        Some(_) => wrapped(&text, report_width(terminal_width), "subst: ", "  ")
            .join("\n")
            .split_off("subst: ".len()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<TableRow> {
        let row = |status, size: &str, server: &str, why: Option<&str>| TableRow {
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
        assert_eq!(in_terminal(&rows(), 80), expected);
    }

    #[test]
    fn a_very_narrow_terminal_has_words_instead_of_columns() {
        let expected = [
            "0000000...-available-1.0",
            "  available, 12.3 MiB to download, 12.3",
            "  MiB unpacked, bordeaux.guix.gnu.org",
            "0000000...-unknown-1.0",
            "  unknown",
            "    [2001:db8::1]:8080: no answer while",
            "      another server had answered",
            "      everything else",
        ];
        assert_eq!(in_terminal(&rows(), 40), expected);
    }

    #[test]
    fn no_terminal_is_too_narrow_for_words() {
        for columns in [16, 20, 24] {
            let lines = in_terminal(&rows(), columns);
            let too_long = lines.iter().find(|line| {
                let is_broken = line.trim_start().contains(' ');
                is_broken && width(line) > columns
            });
            assert_eq!(too_long, None, "{columns}: {lines:#?}");
        }
    }

    #[test]
    fn a_wide_terminal_has_a_line_for_each_item() {
        let lines = in_terminal(&rows(), 132);
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
        let lines: Vec<String> = in_pipe(rows().into_iter(), 10).collect();
        assert_eq!(lines.len(), 2);
        assert!(
            lines[0].starts_with("available ") && lines[1].ends_with("else)"),
            "{lines:?}"
        );
    }
}
