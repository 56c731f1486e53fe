//! The report for people, within 80 columns where names allow it.
//!
//! Items of which every server said the same are listed together, with the answers once below.

use crate::cli::output::{self, bytes, duration, printable, without_url};

use super::super::wrap::{WIDTH, short_name, wrapped};
use super::group::Group;
use super::{NarProbe, ReportAnswer, ReportItem, ServerTotals};

/// The items, grouped by what it means.
pub(super) fn groups(items: &[ReportItem], servers: &[ServerTotals]) -> Vec<String> {
    let names: Vec<String> = servers
        .iter()
        .map(|server| short_name(&server.url))
        .collect();
    let width = column_width(&names);
    let mut lines = Vec::new();
    for group in Group::ALL {
        let members: Vec<&ReportItem> = items.iter().filter(|item| item.kind == group).collect();
        if members.is_empty() {
            continue;
        }
        lines.push(format!("{}: {}", group.heading(), members.len()));
        let mut hints: Vec<&str> = members.iter().map(|item| &*item.hint).collect();
        hints.sort_unstable();
        hints.dedup();
        let told: Vec<&ReportItem> = members
            .into_iter()
            .filter(|item| group != Group::Cached || lacks_a_nar(item))
            .collect();
        lines.extend(clusters(&told, &names, width));
        if group.is_worth_a_hint() {
            lines.extend(
                hints
                    .iter()
                    .flat_map(|hint| wrapped(hint, "  hint: ", "        ")),
            );
        }
        lines.push(String::new());
    }
    lines
}

/// Whether a server has the narinfo, and its nar cannot be had.
fn lacks_a_nar(item: &ReportItem) -> bool {
    item.answers
        .iter()
        .filter_map(|answer| answer.nar.as_ref())
        .any(|nar| !nar.is_there())
}

/// The members with the answers below; those with the same answers together.
fn clusters(members: &[&ReportItem], names: &[String], width: usize) -> Vec<String> {
    let mut clusters: Vec<(Vec<String>, Vec<String>)> = Vec::new();
    let mut places = std::collections::HashMap::new();
    for item in members {
        let answers: Vec<String> = item
            .answers
            .iter()
            .flat_map(|row| answer(row, &names[row.position], width))
            .collect();
        let place = *places.entry(answers.clone()).or_insert_with(|| {
            clusters.push((Vec::new(), answers));
            clusters.len() - 1
        });
        clusters[place].0.extend(item_lines(item));
    }
    clusters
        .into_iter()
        .flat_map(|(items, answers)| items.into_iter().chain(answers))
        .collect()
}

/// An item and its size.
fn item_lines(item: &ReportItem) -> Vec<String> {
    let size = match (item.download_size, item.nar_size) {
        (Some(download), _) => format!("  {}", bytes(download)),
        (None, Some(nar)) => format!("  {} unpacked", bytes(nar)),
        (None, None) => String::new(),
    };
    let path = format!("  {}", item.path);
    if path.len() + size.len() <= WIDTH {
        vec![path + &size]
    } else {
        vec![path, format!("  {size}")]
    }
}

/// One server's answer: who, what, how old, how long it counts.
fn answer(answer: &ReportAnswer, name: &str, width: usize) -> Vec<String> {
    if answer.answer == "not-asked" {
        return Vec::new();
    }
    let (first, others) = (format!("    {name:<width$}  "), " ".repeat(width + 6));
    let mut lines = wrapped(&printable(&answer.detail), &first, &others);
    let times = times(answer);
    match lines.last_mut() {
        Some(last) if last.chars().count() + times.chars().count() < WIDTH => last.push_str(&times),
        _ => lines.push(format!("{others}{}", times.trim_start_matches([',', ' ']))),
    }
    lines.extend(
        answer
            .nar
            .iter()
            .flat_map(|probe| wrapped(&nar(probe), &others, &others)),
    );
    lines
}

/// How old an answer is and for how long it counts.
fn times(answer: &ReportAnswer) -> String {
    let asked = match (answer.from_cache, answer.age.map(duration)) {
        (true, Some(age)) => format!(", asked {age} ago"),
        (false, Some(_)) => ", asked just now".to_owned(),
        (_, None) => String::new(),
    };
    match (answer.expires_in, answer.age) {
        (Some(left), _) => format!("{asked}, counts for {}", duration(left)),
        (None, Some(_)) => format!("{asked}, not kept"),
        (None, None) => asked,
    }
}

fn nar(nar: &NarProbe) -> String {
    // Proxies keep errors as well: what they say of their cache matters only of a nar that is there.
    let state = match (&nar.error, nar.status) {
        (Some(error), _) => format!("cannot be had: {}", without_url(error)),
        (None, Some(status @ (404 | 410))) => {
            format!("gone, HTTP {status}: the narinfo is stale")
        }
        (None, Some(status)) if !nar.is_there() => format!("cannot be had: HTTP {status}"),
        (None, _) => match (&nar.proxy_cache, nar.age.map(duration)) {
            (Some(word), Some(age)) => format!("proxy cache {word}, {age} old"),
            (Some(word), None) => format!("proxy cache {word}"),
            (None, Some(age)) => format!("from a proxy's cache, {age} old"),
            (None, None) => "there; no word of a proxy cache".to_owned(),
        },
    };
    format!("nar: {}", printable(&state))
}

/// Totals per server; above its numbers, the name that would push them out of their columns.
pub(super) fn totals(servers: &[ServerTotals]) -> Vec<String> {
    let names: Vec<String> = servers
        .iter()
        .map(|server| short_name(&server.url))
        .collect();
    let width = column_width(&names).max("SERVER".len());
    let mut lines = vec![format!(
        "{:<width$} {:>6} {:>6} {:>6} {:>6} {:>6} {:>7} {:>6}",
        "SERVER", "asked", "cached", "has", "has no", "baking", "refused", "failed"
    )];
    for (totals, name) in servers.iter().zip(&names) {
        let ServerTotals {
            asked,
            from_cache,
            available,
            missing,
            ..
        } = totals;
        let ServerTotals {
            preparing,
            refused,
            failed,
            ..
        } = totals;
        let is_long = name.chars().count() > width;
        lines.extend(is_long.then(|| name.clone()));
        let name = if is_long { "" } else { name };
        lines.push(format!(
            "{name:<width$} {asked:>6} {from_cache:>6} {available:>6} {missing:>6} {preparing:>6} \
             {refused:>7} {failed:>6}"
        ));
        if let Some(reason) = &totals.reason {
            let text = format!("{}: {}", totals.state, without_url(reason));
            lines.extend(wrapped(&printable(&text), "    ", "      "));
        }
        let (hits, misses) = (totals.nar_cache_hits, totals.nar_cache_misses);
        if hits + misses > 0 {
            lines.push(format!(
                "    nars in its proxy's cache: {hits} hits, {misses} misses"
            ));
        }
    }
    lines
}

/// What it comes to.
pub(super) fn conclusion(items: &[ReportItem]) -> Vec<String> {
    let count = |wanted: fn(&&ReportItem) -> bool| items.iter().filter(wanted).count();
    let to_build = count(|item| item.must_be_built);
    if to_build == 0 {
        return Vec::new();
    }
    let (soon, open) = (
        count(|item| item.kind == Group::Preparing),
        count(|item| item.kind.is_open()),
    );
    let mut text = format!(
        "to be built now: {}",
        output::count(to_build, "item", "items")
    );
    if soon > 0 {
        text.push_str(&format!("; {soon} of them may be available soon"));
    }
    if open > 0 {
        text.push_str(&format!("; {open} may be available where nobody answered"));
    }
    wrapped(&text, "", "  ")
}

/// As wide as the longest name, up to a limit that leaves room for the rest.
fn column_width(names: &[String]) -> usize {
    names
        .iter()
        .map(|name| name.chars().count())
        .max()
        .unwrap_or(0)
        .min(NAME_WIDTH_MAX)
}

const NAME_WIDTH_MAX: usize = 28;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_good_status_means_that_a_nar_is_there() {
        let words = |status, word: Option<&str>, age| {
            let (url, proxy_cache, error) = (String::new(), word.map(str::to_owned), None);
            nar(&NarProbe {
                url,
                status: Some(status),
                proxy_cache,
                age,
                error,
            })
        };
        assert_eq!(
            words(200, None, None),
            "nar: there; no word of a proxy cache"
        );
        assert_eq!(
            words(200, Some("HIT"), Some(9)),
            "nar: proxy cache HIT, 9 s old"
        );
        assert_eq!(
            words(404, Some("HIT"), Some(9)),
            "nar: gone, HTTP 404: the narinfo is stale"
        );
        assert_eq!(
            words(410, None, Some(9)),
            "nar: gone, HTTP 410: the narinfo is stale"
        );
        assert_eq!(
            words(403, Some("MISS"), None),
            "nar: cannot be had: HTTP 403"
        );
        assert_eq!(words(500, None, None), "nar: cannot be had: HTTP 500");
    }

    #[test]
    fn totals_fit_a_terminal() {
        let names = ["x".repeat(5), "y".repeat(28), "z".repeat(60)];
        let of = |name: &String| ServerTotals {
            url: format!("https://{name}"),
            ..Default::default()
        };
        let lines = totals(&names.iter().map(of).collect::<Vec<_>>());
        assert!(lines.iter().all(|line| line.len() <= 80), "{lines:#?}");
        // Below each other, whatever the name.
        let zeros = lines
            .iter()
            .filter_map(|line| line.find(" 0"))
            .collect::<Vec<_>>();
        assert_eq!((lines.len(), zeros), (5, vec![33; 3]), "{lines:#?}");
    }
}
