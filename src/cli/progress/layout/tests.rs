//! Lines at several widths, with a fixed time.

use super::*;
use crate::format::compression::Compression;
use crate::format::store_path::StorePath;
use crate::substitute::progress::{ProgressEvent, ServerProgress};

const PLAIN: TerminalStyle = TerminalStyle {
    has_color: false,
    has_unicode: false,
};
const RICH: TerminalStyle = TerminalStyle {
    has_color: true,
    has_unicode: true,
};
const MIB: u64 = 1 << 20;

fn size(columns: usize) -> TerminalSize {
    TerminalSize { rows: 24, columns }
}

fn store_path(name: &str) -> StorePath {
    StorePath::parse(&format!("{}-{name}", "0".repeat(32))).unwrap()
}

/// A fetch of three items after four seconds.
fn fetching(names: [&str; 3]) -> RunTally {
    let mut tally = RunTally::default();
    let planned = ProgressEvent::Planned {
        items: 15,
        download_size: 76 * MIB,
    };
    tally.note(&planned, Duration::ZERO);
    let downloads = [
        (
            names[0],
            "https://ci.guix.gnu.org",
            Compression::Zstd,
            Some(40 * MIB),
        ),
        (
            names[1],
            "https://bordeaux.guix.gnu.org",
            Compression::Lzip,
            Some(20 * MIB),
        ),
        (names[2], "http://127.0.0.1:8080", Compression::None, None),
    ];
    let items = names.map(store_path);
    for (item, (_, server, compression, download_size)) in items.iter().zip(downloads) {
        let started = ProgressEvent::Started {
            item,
            server,
            url: server,
            compression,
            download_size,
            announced: download_size,
            choice: None,
        };
        tally.note(&started, Duration::ZERO);
    }
    for (item, downloaded) in items.iter().zip([32 * MIB, 8 * MIB, 300]) {
        let progressed = ProgressEvent::Progressed { item, downloaded };
        tally.note(&progressed, NOW);
    }
    tally.note(&ProgressEvent::Tick, NOW);
    tally
}

const NOW: Duration = Duration::from_secs(4);
const NAMES: [&str; 3] = [
    "linux-libre-6.1.23",
    "hello-2.12.2",
    "module-import-compiled",
];

fn lines(columns: usize) -> Vec<String> {
    screen_lines(&fetching(NAMES), NOW, size(columns), PLAIN)
}

#[test]
fn wide_terminals_show_everything() {
    let expected = [
        "[##############--------------] 40.0/76.0 MiB 52% 10.0 MiB/s 0:04 left, 0/15 items",
        "  linux-libre-6.1.23      ci.guix.gnu.org        zstd  32.0/40.0 MiB  8.0 MiB/s",
        "  hello-2.12.2            bordeaux.guix.gnu.org  lzip   8.0/20.0 MiB  2.0 MiB/s",
        "  module-import-compiled  127.0.0.1:8080                       300 B     75 B/s",
    ];
    assert_eq!(lines(120), expected);
}

#[test]
fn at_80_columns_the_bar_is_shorter() {
    let expected = [
        "[###########-----------] 40.0/76.0 MiB 52% 10.0 MiB/s 0:04 left, 0/15 items",
        "  linux-libre-6.1.23      ci.guix.gnu.org        zstd  32.0/40.0 MiB  8.0 MiB/s",
        "  hello-2.12.2            bordeaux.guix.gnu.org  lzip   8.0/20.0 MiB  2.0 MiB/s",
        "  module-import-compiled  127.0.0.1:8080                       300 B     75 B/s",
    ];
    assert_eq!(lines(80), expected);
}

#[test]
fn at_60_columns_there_is_no_bar() {
    let expected = [
        "40.0/76.0 MiB 52% 10.0 MiB/s 0:04 left, 0/15 items",
        "  linux-libre-6.1.~  ci.guix.gnu.org        zstd  8.0 MiB/s",
        "  hello-2.12.2       bordeaux.guix.gnu.org  lzip  2.0 MiB/s",
        "  module-import-co~  127.0.0.1:8080                  75 B/s",
    ];
    assert_eq!(lines(60), expected);
}

#[test]
fn at_40_columns_names_and_rates_remain() {
    let expected = [
        "40.0/76.0 MiB 52% 10.0 MiB/s 0:04 left",
        "linux-libre-6.1.23     8.0 MiB/s",
        "hello-2.12.2           2.0 MiB/s",
        "module-import-compiled    75 B/s",
    ];
    assert_eq!(lines(40), expected);
}

#[test]
fn at_20_columns_names_are_cut() {
    let expected = [
        "40.0/76.0 MiB 52%",
        "linux-li~ 8.0 MiB/s",
        "hello-2.~ 2.0 MiB/s",
        "module-i~    75 B/s",
    ];
    assert_eq!(lines(20), expected);
}

/// The columns of a line with escape sequences of colors.
fn visible_width(line: &str) -> usize {
    let mut parts = line.split("\x1b[");
    let first = parts.next().unwrap_or_default();
    let others = parts.map(|part| part.split_once('m').unwrap().1);
    width(first) + others.map(width).sum::<usize>()
}

#[test]
fn no_line_is_wider_than_the_terminal() {
    let long = "x".repeat(100);
    for names in [NAMES, [&*long, "a", "b"]] {
        let mut tally = fetching(names);
        for columns in 1..=200 {
            for style in [PLAIN, RICH] {
                let lines = screen_lines(&tally, NOW, size(columns), style);
                assert!(
                    lines.iter().all(|line| visible_width(line) < columns),
                    "{columns}: {lines:#?}"
                );
            }
        }

        tally.note(&unpacked(&store_path(names[0])), NOW);
        let fetched = tally.last_fetched().unwrap();
        for columns in 0..=200 {
            let line = fetched_line(fetched, columns, RICH);
            assert!(visible_width(&line) <= columns, "{columns}: {line}");
        }
    }
}

fn unpacked(item: &StorePath) -> ProgressEvent<'_> {
    ProgressEvent::Unpacked {
        item,
        downloaded: 40 * MIB,
        nar_size: 1,
        deduplicated: 0,
    }
}

#[test]
fn a_fetched_item_has_one_line_of_any_width() {
    let mut tally = fetching(NAMES);
    tally.note(&unpacked(&store_path(NAMES[0])), NOW);
    let fetched = tally.last_fetched().unwrap();
    for (columns, expected) in [
        (
            79,
            "fetched linux-libre-6.1.23  40.0 MiB in 4.0 s from ci.guix.gnu.org, zstd",
        ),
        (
            68,
            "fetched linux-libre-6.1.23  40.0 MiB in 4.0 s from ci.guix.gnu.org",
        ),
        (59, "fetched linux-libre-6.1.23  40.0 MiB in 4.0 s"),
        (39, "linux-libre-6.1.23  40.0 MiB in 4.0 s"),
        (19, "linux-libre-6.1.23"),
        (12, "linux-libre~"),
    ] {
        assert_eq!(fetched_line(fetched, columns, PLAIN), expected);
    }
}

#[test]
fn many_downloads_leave_room_for_messages() {
    let mut tally = RunTally::default();
    let planned = ProgressEvent::Planned {
        items: 50,
        download_size: 0,
    };
    tally.note(&planned, Duration::ZERO);
    for number in 0..50 {
        let item = &store_path(&format!("item-{number}"));
        let started = ProgressEvent::Started {
            item,
            server: "http://a",
            url: "http://a/nar",
            compression: Compression::Zstd,
            download_size: None,
            announced: None,
            choice: None,
        };
        tally.note(&started, Duration::ZERO);
    }
    for rows in 1..60 {
        let size = TerminalSize { rows, columns: 80 };
        let lines = screen_lines(&tally, NOW, size, PLAIN);
        assert!(lines.len() <= rows.saturating_sub(2).max(1), "{rows}");
        assert!(lines.len() <= 1 + DOWNLOADS_MAX, "{rows}");
    }
    let lines = screen_lines(&tally, NOW, size(80), PLAIN);
    assert_eq!(lines.last().unwrap(), "and 39 more");
}

#[test]
fn lookups_are_a_count() {
    let mut tally = RunTally::default();
    let servers = &[ServerProgress {
        url: "https://ci.guix.gnu.org",
        state: "up",
        answered: 120,
        waiting: 3,
    }];
    tally.note(
        &ProgressEvent::Looking {
            done: 120,
            total: 1500,
            asked: 123,
            requests: 120,
            servers,
        },
        NOW,
    );
    for (columns, expected) in [
        (80, "looked up 120/1500 items (ci.guix.gnu.org 120)"),
        (40, "looked up 120/1500 items (ci.guix.gnu.~"),
        (20, "looked up 120/1500"),
        (12, "120/1500"),
        (6, "120/~"),
    ] {
        assert_eq!(screen_lines(&tally, NOW, size(columns), PLAIN), [expected]);
    }
}

#[test]
fn colors_and_other_characters_need_a_terminal_that_has_them() {
    let lines = screen_lines(&fetching(NAMES), NOW, size(120), RICH);
    assert!(lines[0].contains("\x1b[32m██"), "{lines:?}");
    assert!(lines[1].contains("\x1b[2mci.guix.gnu.org"), "{lines:?}");
    let plain = screen_lines(&fetching(NAMES), NOW, size(120), PLAIN);
    assert!(
        plain
            .iter()
            .all(|line| line.is_ascii() && !line.contains('\x1b'))
    );
}

#[test]
fn long_times_have_hours() {
    assert_eq!(clock_text(3), "0:03");
    assert_eq!(clock_text(3599), "59:59");
    assert_eq!(clock_text(3900), "1:05:00");
}
