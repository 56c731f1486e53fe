//! Progress as text, in the form that Guix uses. Pure.

use std::time::Duration;

/// How far a download is, on a line of `columns`; `None` when there is nothing to tell yet.
pub(super) fn download(
    name: &str,
    size: Option<u64>,
    received: u64,
    elapsed: Duration,
    columns: usize,
) -> Option<String> {
    let rate = byte_count(received as f64 / elapsed.as_secs_f64().max(1e-3));
    let time = clock_time(elapsed);
    let (left, right) = match size {
        Some(size) if size > 0 => {
            let percent = 100.0 * received.min(size) as f64 / size as f64;
            let bar = bar(percent);
            (
                format!(" {name}  {}", byte_count(size as f64)),
                format!("{rate}/s {time} {bar}{percent:6.1}%"),
            )
        }
        _ if received == 0 => return None,
        _ => {
            let received = byte_count(received as f64);
            (
                format!(" {name}"),
                format!("{rate}/s {time} | {received} transferred"),
            )
        }
    };
    let used = left.chars().count() + right.chars().count();
    let padding = columns.saturating_sub(used).max(1);

    Some(format!("{left}{}{right}", " ".repeat(padding)))
}

/// How far lookups are: `done` of `total`.
pub(super) fn looking(servers: &[String], done: usize, total: usize) -> String {
    let percent = if total == 0 {
        100.0
    } else {
        100.0 * done as f64 / total as f64
    };

    let others = match servers.len().saturating_sub(1) {
        0 => String::new(),
        count => format!(" (and {count} more)"),
    };
    let first = servers.first().map_or("", String::as_str);
    format!("looking for substitutes on '{first}'{others}... {percent:5.1}%")
}

/// The name of the item that `url` leads to, where it is named as `guix publish` does.
pub(super) fn short_name(url: &str) -> &str {
    const HASH_AND_DASH: usize = 33;
    let path = url.split(['?', '#']).next().unwrap_or(url);
    let file = path.rsplit('/').next().unwrap_or(path);

    match file.as_bytes().get(HASH_AND_DASH - 1) {
        Some(b'-') if file.len() > HASH_AND_DASH && file.is_char_boundary(HASH_AND_DASH) => {
            &file[HASH_AND_DASH..]
        }
        _ => file,
    }
}

/// A number of bytes, as Guix writes it.
fn byte_count(bytes: f64) -> String {
    const KIB: f64 = 1024.0;
    const MIB: f64 = KIB * 1024.0;
    const GIB: f64 = MIB * 1024.0;
    const TIB: f64 = GIB * 1024.0;

    match bytes {
        _ if bytes < KIB => format!("{bytes:.0}B"),
        _ if bytes < MIB => format!("{:.0}KiB", bytes / KIB),
        _ if bytes < GIB => format!("{:.1}MiB", bytes / MIB),
        _ if bytes < TIB => format!("{:.2}GiB", bytes / GIB),
        _ => format!("{:.3}TiB", bytes / TIB),
    }
}

fn clock_time(elapsed: Duration) -> String {
    let seconds = (elapsed + Duration::from_millis(500)).as_secs();
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let hours = if hours > 0 {
        format!("{hours:02}:")
    } else {
        String::new()
    };

    format!("{hours}{minutes:02}:{:02}", seconds % 60)
}

/// A bar of 18 cells between two edges, filled in eighths of a cell.
fn bar(percent: f64) -> String {
    const CELLS: usize = 18;
    const PARTS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths =
        (1..=CELLS * 8).take_while(|&step| step as f64 * 100.0 <= percent * (CELLS * 8) as f64);
    let filled = eighths.count();
    let (full, part) = (filled / 8, PARTS[filled % 8]);
    let empty = CELLS - full - usize::from(!part.is_empty());

    format!("▕{}{part}{}▏", "█".repeat(full), " ".repeat(empty))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_download_line_is_as_wide_as_the_terminal() {
        let line = download(
            "grep-1.0",
            Some(1 << 20),
            1 << 19,
            Duration::from_secs(2),
            79,
        );
        let line = line.unwrap();
        assert_eq!(line.chars().count(), 79);
        assert!(line.starts_with(" grep-1.0  1.0MiB "), "{line}");
        assert!(
            line.ends_with("256KiB/s 00:02 ▕█████████         ▏  50.0%"),
            "{line}"
        );
        let line = download(&"x".repeat(90), Some(1), 1, Duration::from_secs(0), 20).unwrap();
        assert!(line.ends_with("100.0%"));
    }

    #[test]
    fn a_download_of_unknown_size() {
        assert_eq!(download("x", None, 0, Duration::from_secs(1), 20), None);
        let line = download("x", None, 2048, Duration::from_secs(3700), 60).unwrap();
        assert!(line.ends_with("1B/s 01:01:40 | 2KiB transferred"), "{line}");
    }

    #[test]
    fn bars_have_the_same_width_however_full() {
        for percent in [0.0, 0.1, 33.3, 99.9, 100.0, 250.0] {
            assert_eq!(bar(percent).chars().count(), 20, "{percent}");
        }
    }

    #[test]
    fn items_are_named_without_their_hash() {
        let url = "http://h/nar/lzip/kwshw0gv0ac63ggxg3s2zd0rim4ws6j4-grep-1.0?x=/y";
        assert_eq!(short_name(url), "grep-1.0");
        assert_eq!(short_name("http://h/nar/0abc.nar.xz"), "0abc.nar.xz");
        assert_eq!(short_name(""), "");
    }

    #[test]
    fn lookup_progress_names_the_first_server() {
        let servers = ["http://a".to_owned(), "http://b".to_owned()];
        assert_eq!(
            looking(&servers[..1], 42, 100),
            "looking for substitutes on 'http://a'...  42.0%"
        );
        assert_eq!(
            looking(&servers, 1, 1),
            "looking for substitutes on 'http://a' (and 1 more)... 100.0%"
        );
    }
}
