//! Counts, rates and times left, with given times.

use super::*;
use crate::format::compression::Compression;

fn item() -> StorePath {
    StorePath::parse(&format!("{}-x", "0".repeat(32))).unwrap()
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn planned(items: usize, download_size: u64) -> ProgressEvent<'static> {
    ProgressEvent::Planned {
        items,
        download_size,
    }
}

fn started<'a>(
    item: &'a StorePath,
    server: &'a str,
    download_size: Option<u64>,
) -> ProgressEvent<'a> {
    ProgressEvent::Started {
        item,
        server,
        url: "http://a/nar",
        compression: Compression::Zstd,
        download_size,
        announced: Some(512),
        choice: None,
    }
}

fn unpacked(item: &StorePath, downloaded: u64) -> ProgressEvent<'_> {
    ProgressEvent::Unpacked {
        item,
        downloaded,
        nar_size: 1,
        deduplicated: 7,
    }
}

/// Items and bytes: done and in all.
fn counts(tally: &RunTally) -> (usize, usize, u64, u64) {
    let progress = tally.progress(Duration::ZERO).unwrap();
    (
        progress.items_done,
        progress.items,
        progress.bytes_done,
        progress.bytes,
    )
}

#[test]
fn downloads_count_with_their_final_sizes() {
    let (mut tally, item) = (RunTally::default(), item());
    assert_eq!(tally.progress(Duration::ZERO), None);
    tally.note(&planned(5, 1024), seconds(0));
    assert_eq!(counts(&tally), (0, 5, 0, 1024));

    // Of two downloads the larger one is used, then another one of an unknown size.
    tally.note(&started(&item, "http://a", Some(1024)), seconds(0));
    assert_eq!(counts(&tally), (0, 5, 0, 1536));
    tally.note(&started(&item, "http://a", None), seconds(0));
    assert_eq!(counts(&tally), (0, 5, 0, 1024));

    let progressed = ProgressEvent::Progressed {
        item: &item,
        downloaded: 100,
    };
    tally.note(&progressed, seconds(1));
    assert_eq!(counts(&tally), (0, 5, 100, 1024));
    tally.note(&unpacked(&item, 600), seconds(2));
    assert_eq!(counts(&tally), (1, 5, 600, 1112));
}

#[test]
fn another_round_continues_the_counts() {
    let (mut tally, item) = (RunTally::default(), item());
    tally.note(&planned(1, 512), seconds(0));
    tally.note(&started(&item, "http://a", Some(512)), seconds(0));
    tally.note(&unpacked(&item, 512), seconds(1));
    tally.note(&ProgressEvent::Finished, seconds(1));
    assert_eq!(tally.progress(seconds(1)), None);
    tally.note(&planned(2, 1024), seconds(9));
    assert_eq!(counts(&tally), (1, 3, 512, 1536));
    // Planned again, with one more item.
    tally.note(&planned(3, 1024), seconds(9));
    assert_eq!(counts(&tally), (1, 4, 512, 1536));
}

#[test]
fn servers_are_busy_while_something_is_fetched_from_them() {
    let (mut tally, item) = (RunTally::default(), item());
    tally.note(&planned(1, 512), seconds(0));
    tally.note(&started(&item, "http://slow", Some(512)), seconds(1));
    tally.note(&ProgressEvent::Tick, seconds(3));
    tally.note(&started(&item, "http://quick", Some(512)), seconds(5));
    tally.note(&unpacked(&item, 512), seconds(6));
    tally.note(&ProgressEvent::Tick, seconds(60));

    let fetched = tally.fetched();
    let servers: Vec<_> = fetched
        .servers
        .iter()
        .map(|server| (&*server.url, server.items, server.downloaded, server.busy))
        .collect();
    let expected = [
        ("http://slow", 0, 0, seconds(4)),
        ("http://quick", 1, 512, seconds(1)),
    ];
    assert_eq!(servers, expected);
    assert_eq!((fetched.items, fetched.deduplicated), (1, 7));
    let slowest = fetched.slowest.as_ref().unwrap();
    assert_eq!(
        (&*slowest.server, slowest.duration),
        ("http://quick", seconds(5))
    );
}

#[test]
fn the_time_left_follows_the_rate() {
    let (mut tally, item) = (RunTally::default(), item());
    tally.note(&planned(1, 5000), seconds(0));
    tally.note(&started(&item, "http://a", Some(512)), seconds(0));
    for second in 1..=3 {
        let progressed = ProgressEvent::Progressed {
            item: &item,
            downloaded: second * 100,
        };
        tally.note(&progressed, seconds(second));
        tally.note(&ProgressEvent::Tick, seconds(second));
    }
    let progress = tally.progress(seconds(3)).unwrap();
    assert_eq!(progress.bytes_per_second, Some(100.0));
    assert_eq!(progress.seconds_left, Some(47));
    assert_eq!(tally.progress(seconds(4)).unwrap().seconds_left, Some(63));

    // Nothing arrives any more.
    for second in 4..=30 {
        tally.note(&ProgressEvent::Tick, seconds(second));
    }
    let progress = tally.progress(seconds(30)).unwrap();
    assert_eq!(progress.bytes_per_second, Some(0.0));
    assert_eq!(progress.seconds_left, None);
}

#[test]
fn a_failed_item_is_not_shown_or_counted() {
    let (mut tally, item) = (RunTally::default(), item());
    tally.note(&planned(1, 512), seconds(0));
    tally.note(&started(&item, "http://a", Some(512)), seconds(0));
    let progressed = ProgressEvent::Progressed {
        item: &item,
        downloaded: 100,
    };
    tally.note(&progressed, seconds(1));
    let failed = ProgressEvent::Failed {
        item: &item,
        reason: format_args!("a reason"),
    };
    tally.note(&failed, seconds(1));
    assert_eq!(counts(&tally), (0, 1, 0, 512));
    assert_eq!(tally.downloads().count(), 0);
}

#[test]
fn a_comparison_is_shown_with_its_counts() {
    let mut tally = RunTally::default();
    let progress = ComparisonProgress {
        items: 3,
        expected_items: 15,
        bytes: 3 << 20,
        answers: 30,
        expected_answers: 45,
    };
    tally.note(&ProgressEvent::Comparing(progress), seconds(1));
    let expected = "compared 3/15 items, 30/45 answers, 3.0 MiB read";
    assert_eq!(tally.status_line.as_deref(), Some(expected));
    tally.note(&ProgressEvent::Finished, seconds(2));
    assert_eq!(tally.status_line, None);
}

#[test]
fn servers_are_shown_with_what_they_do() {
    let server = |url, state, answered, waiting| ServerProgress {
        url,
        state,
        answered,
        waiting,
    };
    let servers = [
        server("https://a.example/", "up", 7, 1),
        server("https://b.example", "not-asked", 0, 1),
        server("https://c.example", "not-asked", 0, 0),
        server("https://d.example", "down", 0, 0),
    ];
    assert_eq!(
        servers_line(&servers),
        "a.example 7, b.example silent, c.example not used, d.example down"
    );
}
