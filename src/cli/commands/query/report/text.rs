//! The report for people, within 80 columns where names allow it.

use crate::cli::output::{duration, shown};

use super::group::Group;
use super::{NarProbe, ReportAnswer, ReportItem, ServerTotals};

/// The items, grouped by what it means.
pub(super) fn groups(items: &[ReportItem]) -> Vec<String> {
    let mut lines = Vec::new();
    for group in Group::ALL {
        let members: Vec<&ReportItem> = items.iter().filter(|item| item.kind == group).collect();
        if members.is_empty() {
            continue;
        }
        lines.push(format!("{} ({})", group.heading(), members.len()));
        if group == Group::Cached {
            lines.push(String::new());
            continue;
        }
        lines.extend(wrapped(group.hint(), "  hint: ", "        "));
        for item in members {
            lines.push(format!("  {}", item.path));
            lines.extend(item.answers.iter().flat_map(answer));
            lines.extend(item.nar.as_ref().map(nar));
        }
        lines.push(String::new());
    }
    lines
}

/// One server's answer: who, what, how old, how long it counts.
fn answer(answer: &ReportAnswer) -> Vec<String> {
    if answer.answer == "not-asked" {
        return Vec::new();
    }
    let mut text = format!("{}: {}", answer.url, answer.answer);
    if let Some(reason) = &answer.reason {
        text.push_str(&format!(" ({reason})"));
    }
    match (answer.from_cache, answer.age) {
        (true, Some(age)) => text.push_str(&format!(", remembered for {}", duration(age))),
        (false, Some(_)) => text.push_str(", asked just now"),
        _ => {}
    }
    if let Some(left) = answer.expires_in {
        text.push_str(&format!(", counts for {}", duration(left)));
    }
    wrapped(&shown(&text), "    ", "      ")
}

fn nar(nar: &NarProbe) -> String {
    let state = match (&nar.error, &nar.proxy_cache, nar.age) {
        (Some(error), ..) => format!("cannot be had: {error}"),
        (None, Some(word), Some(age)) => format!("proxy cache: {word}, {} old", duration(age)),
        (None, Some(word), None) => format!("proxy cache: {word}"),
        (None, None, Some(age)) => format!("from a proxy's cache, {} old", duration(age)),
        (None, None, None) => "no word of a proxy cache".to_owned(),
    };
    format!("    nar: {}", shown(&state))
}

/// Totals per server.
pub(super) fn totals(servers: &[ServerTotals]) -> Vec<String> {
    let mut lines =
        vec!["   asked  cached  available  missing  preparing  refused  failed  server".to_owned()];
    for totals in servers {
        lines.push(format!(
            "{:>8} {:>7} {:>10} {:>8} {:>10} {:>8} {:>7}  {}",
            totals.asked,
            totals.from_cache,
            totals.available,
            totals.missing,
            totals.preparing,
            totals.refused,
            totals.failed,
            shown(&totals.url),
        ));
        if let Some(reason) = &totals.reason {
            let text = format!("{}: {reason}", totals.state);
            lines.extend(wrapped(&shown(&text), "          ", "            "));
        }
        if totals.nar_cache_hits + totals.nar_cache_misses > 0 {
            let (hits, misses) = (totals.nar_cache_hits, totals.nar_cache_misses);
            lines.push(format!("          nars in a proxy's cache: {hits} hits, {misses} misses"));
        }
    }
    lines
}

/// `text` broken at blanks so that lines stay within the width.
fn wrapped(text: &str, first: &str, others: &str) -> Vec<String> {
    let mut lines = vec![first.to_owned()];
    let mut is_empty = true;
    for word in text.split_whitespace() {
        let width = lines.last().map_or(0, |line| line.chars().count());
        if !is_empty && width + 1 + word.chars().count() > WIDTH {
            lines.push(others.to_owned());
            is_empty = true;
        }
        if let Some(line) = lines.last_mut() {
            if !is_empty {
                line.push(' ');
            }
            line.push_str(word);
        }
        is_empty = false;
    }
    lines
}

const WIDTH: usize = 79;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wraps_at_blanks() {
        let text = "word ".repeat(40);
        let lines = wrapped(&text, "  hint: ", "        ");
        assert!(lines.len() > 2);
        assert!(lines.iter().all(|line| line.len() <= WIDTH), "{lines:?}");
        assert_eq!(lines.join(" ").matches("word").count(), 40);
    }
}
