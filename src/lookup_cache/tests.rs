//! Tests of the cache as its callers see it.

use std::path::Path;

use super::*;

mod damage;
mod processes;

const NOW: u64 = 1_800_000_000;
const URL: &str = "https://ci.guix.gnu.org/";

fn item(number: usize) -> HashPart {
    // Spread over the key space, as real hash parts are.
    let spread = (number as u64)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .to_be_bytes();
    let mut bytes = [0; 20];
    bytes[..8].copy_from_slice(&spread);
    HashPart::parse(&crate::format::base32::encode(&bytes)).unwrap()
}

fn entry(answer: CachedAnswer, kind: AnswerKind) -> CacheEntry {
    TtlPolicy::default().entry(answer, kind, None, NOW)
}

fn positive(text: &str) -> CacheEntry {
    let answer = CachedAnswer::Positive {
        text: text.into(),
        key_id: Some("key".into()),
    };
    entry(answer, AnswerKind::Positive)
}

fn negative() -> CacheEntry {
    entry(CachedAnswer::Negative { status: 404 }, AnswerKind::Negative)
}

/// A cache in `dir` about which there is nothing to say.
fn open_sound(dir: &Path) -> LookupCache {
    let OpenedCache { cache, warning } = LookupCache::open(dir);
    assert!(warning.is_none(), "{warning:?}");
    assert!(cache.path().is_some());
    cache
}

fn find_one(cache: &mut LookupCache, number: usize) -> Option<CacheEntry> {
    let server = cache.server_row(URL);
    cache
        .find(server, &[item(number)], NOW)
        .unwrap()
        .pop()
        .map(|(_, entry)| entry)
}

#[test]
fn entries_survive_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let mut cache = open_sound(dir.path());
    let server = cache.server_row(URL);
    let other = cache.server_row("http://other/");
    assert_ne!(server, other);
    let preparing = entry(
        CachedAnswer::Preparing { status: 202 },
        AnswerKind::Preparing,
    );
    let transient = entry(
        CachedAnswer::Transient {
            reason: "503".into(),
        },
        AnswerKind::Transient,
    );
    let server_said = TtlPolicy::default().entry(
        CachedAnswer::Negative { status: 410 },
        AnswerKind::Negative,
        Some(10),
        NOW,
    );
    let entries = [
        positive("StorePath: a\r\n"),
        negative(),
        preparing,
        transient,
        server_said,
    ];
    let batch: Vec<_> = entries
        .iter()
        .enumerate()
        .map(|(number, entry)| (server, item(number), entry.clone()))
        .collect();
    cache.insert(&batch).unwrap();
    drop(cache);

    let mut cache = open_sound(dir.path());
    assert_eq!(cache.server_row(URL), server);
    let requested: Vec<_> = (0..9).map(item).collect();
    let found = cache.find(server, &requested, NOW).unwrap();
    let mut expected: Vec<_> = batch
        .into_iter()
        .map(|(_, item, entry)| (item, entry))
        .collect();
    expected.sort_by_key(|(item, _)| *item);
    assert_eq!(found, expected);
    assert!(cache.find(other, &requested, NOW).unwrap().is_empty());
}

#[test]
fn only_unexpired_entries_are_found() {
    let mut cache = LookupCache::in_memory();
    let server = cache.server_row(URL);
    cache
        .insert(&[
            (server, item(0), positive("a")),
            (server, item(1), negative()),
        ])
        .unwrap();
    let requested = [item(0), item(1)];
    assert_eq!(cache.find(server, &requested, NOW + 119).unwrap().len(), 2);
    assert_eq!(cache.find(server, &requested, NOW + 120).unwrap().len(), 1);
    assert_eq!(cache.find(server, &requested, NOW + 129_600).unwrap(), []);
    assert_eq!(
        cache.find(server, &requested, NOW - 3600).unwrap(),
        [],
        "the clock was set back"
    );
    // The newer answer wins.
    cache.insert(&[(server, item(0), negative())]).unwrap();
    assert_eq!(find_one(&mut cache, 0), Some(negative()));
}

#[test]
fn a_failure_replaces_no_answer_that_counts() {
    let failure = |now| {
        let answer = CachedAnswer::Transient {
            reason: "503".into(),
        };
        TtlPolicy::default().entry(answer, AnswerKind::Transient, None, now)
    };
    let preparing = entry(
        CachedAnswer::Preparing { status: 202 },
        AnswerKind::Preparing,
    );
    let refused = CachedAnswer::Refused { facts: "x".into() };
    let refused = entry(refused, AnswerKind::Transient);
    for earlier in [positive("a"), negative(), preparing, refused, failure(NOW)] {
        let mut cache = LookupCache::in_memory();
        let server = cache.server_row(URL);
        let is_failure = earlier == failure(NOW);
        for (now, is_replaced) in [
            (NOW + 1, is_failure),
            (earlier.expires_at, true),
            (NOW - 1, true),
        ] {
            cache.insert(&[(server, item(0), earlier.clone())]).unwrap();
            cache.insert(&[(server, item(0), failure(now))]).unwrap();
            let found = cache.find(server, &[item(0)], now).unwrap();
            let expected = match is_replaced {
                true => failure(now),
                false => earlier.clone(),
            };
            assert_eq!(found, [(item(0), expected)], "{now}");
        }
    }
}

#[test]
fn removes_and_counts_entries() {
    let dir = tempfile::tempdir().unwrap();
    let mut cache = open_sound(dir.path());
    let (server, other) = (cache.server_row(URL), cache.server_row("http://other/"));
    let text = "x".repeat(1200);
    let fill: Vec<_> = (0..2000)
        .flat_map(|number| {
            [
                (server, item(number), positive(&text)),
                (other, item(number), negative()),
            ]
        })
        .collect();
    cache.insert(&fill).unwrap();
    let stats = cache.stats(NOW + 200).unwrap();
    let expected = CacheStats {
        positive: 2000,
        negative: 2000,
        expired: 2000,
        servers: 2,
        oldest_answered_at: Some(NOW),
        ..CacheStats::default()
    };
    assert_eq!(stats, expected);

    assert_eq!(cache.remove(Some(URL), &[item(0), item(5000)]).unwrap(), 1);
    assert_eq!(cache.remove(None, &[item(1)]).unwrap(), 2);
    assert_eq!(cache.remove(Some("http://unknown/"), &[]).unwrap(), 0);
    assert_eq!(cache.remove_expired(NOW + 200).unwrap(), 1999);
    assert_eq!(cache.stats(NOW + 200).unwrap().swept_at, Some(NOW + 200));
    assert_eq!(cache.remove(None, &[]).unwrap(), 1998);
    assert_eq!(cache.integrity_faults().unwrap(), Vec::<String>::new());
    drop(cache);
    let bytes = dir.path().join(schema::FILE_NAME).metadata().unwrap().len();
    assert!(
        bytes < 200_000,
        "freed pages are given back, {bytes} are left"
    );
}

#[test]
fn expired_entries_are_removed_in_steps_once_a_day() {
    let dir = tempfile::tempdir().unwrap();
    let rows = 3 * usize::try_from(expiry::STEP_ROWS).unwrap();
    let mut cache = open_sound(dir.path());
    let server = cache.server_row(URL);
    let batch: Vec<_> = (0..rows)
        .map(|number| {
            // Every other one is expired.
            let entry = if number % 2 == 0 {
                negative()
            } else {
                positive("a")
            };
            (server, item(number), entry)
        })
        .collect();
    cache.insert(&batch).unwrap();
    let now = NOW + 200;
    assert!(cache.remove_some_expired(now).unwrap());
    assert!(cache.stats(now).unwrap().expired > 0);
    drop(cache);

    // Another process continues.
    let mut cache = open_sound(dir.path());
    assert!(cache.remove_some_expired(now).unwrap());
    assert!(!cache.remove_some_expired(now).unwrap());
    let stats = cache.stats(now).unwrap();
    assert_eq!((stats.expired, stats.positive), (0, rows as u64 / 2));
    assert_eq!(stats.swept_at, Some(now));

    let server = cache.server_row(URL);
    cache.insert(&[(server, item(0), negative())]).unwrap();
    let next_day = now + expiry::INTERVAL_SECS;
    assert!(!cache.remove_some_expired(next_day - 1).unwrap());
    assert_eq!(cache.stats(next_day - 1).unwrap().expired, 1);
    while cache.remove_some_expired(next_day).unwrap() {}
    assert_eq!(cache.stats(next_day).unwrap().expired, 0);
}

#[test]
fn a_clock_that_was_set_back_does_not_stop_the_removal() {
    let mut cache = LookupCache::in_memory();
    let server = cache.server_row(URL);
    cache.remove_expired(NOW + 1_000_000).unwrap();
    cache.insert(&[(server, item(0), negative())]).unwrap();
    assert!(!cache.remove_some_expired(NOW + 200).unwrap());
    assert_eq!(cache.stats(NOW + 200).unwrap().expired, 0);
}

#[test]
fn expired_entries_of_a_file_of_an_earlier_version_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    let mut cache = open_sound(dir.path());
    cache
        .connection
        .execute_batch("DROP TABLE sweep_progress")
        .unwrap();
    let server = cache.server_row(URL);
    cache.insert(&[(server, item(0), negative())]).unwrap();
    drop(cache);
    let mut cache = open_sound(dir.path());
    assert!(!cache.remove_some_expired(NOW + 200).unwrap());
    assert_eq!(cache.stats(NOW + 200).unwrap().expired, 0);
}

#[test]
fn lists_in_order_and_by_server() {
    let mut cache = LookupCache::in_memory();
    let (server, other) = (cache.server_row(URL), cache.server_row("http://other/"));
    let mut items = [item(1), item(2), item(3)];
    let batch: Vec<_> = items
        .iter()
        .map(|&item| (server, item, positive("a")))
        .collect();
    cache.insert(&batch).unwrap();
    cache.insert(&[(other, item(1), negative())]).unwrap();
    items.sort();

    let mut listed = Vec::new();
    cache
        .list(Some(URL), &mut |entry| listed.push(entry))
        .unwrap();
    assert_eq!(
        listed.iter().map(|entry| entry.item).collect::<Vec<_>>(),
        items
    );
    assert!(
        listed
            .iter()
            .all(|entry| entry.server == URL && entry.entry == positive("a"))
    );
    cache.list(None, &mut |entry| listed.push(entry)).unwrap();
    assert_eq!(listed.len(), 3 + 4);
}

fn cache_info() -> CacheInfoRecord {
    CacheInfoRecord {
        text: Some("Priority: 40\n".into()),
        answered_at: NOW,
        expires_at: NOW + 100,
    }
}

fn downtime() -> Downtime {
    Downtime {
        since: NOW,
        until: NOW + 60,
        reason: "connection refused".into(),
    }
}

#[test]
fn facts_of_a_server_are_kept_apart() {
    let mut cache = LookupCache::in_memory();
    let server = cache.server_row(URL);
    assert_eq!(cache.server_facts(server).unwrap(), ServerFacts::default());
    let (info, down) = (cache_info(), downtime());
    assert!(down.is_down(NOW + 59) && !down.is_down(NOW + 60));
    let protocol = ServerBehavior {
        protocol: Some("h2".into()),
        ..ServerBehavior::default()
    };
    let pipelining = ServerBehavior {
        pipelining: Some(Pipelining::Broken),
        requests_per_connection: Some(100),
        protocol: None,
    };
    cache
        .update_server(
            server,
            &[
                ServerFact::CacheInfo(info.clone()),
                ServerFact::Behavior(protocol),
            ],
        )
        .unwrap();
    cache
        .update_server(
            server,
            &[
                ServerFact::Down(down.clone()),
                ServerFact::Behavior(pipelining.clone()),
            ],
        )
        .unwrap();
    let expected = ServerFacts {
        cache_info: Some(info),
        down: Some(down),
        behavior: ServerBehavior {
            protocol: Some("h2".into()),
            ..pipelining
        },
    };
    assert_eq!(cache.server_facts(server).unwrap(), expected);
}

#[test]
fn facts_of_a_server_are_replaced_and_removed() {
    let mut cache = LookupCache::in_memory();
    let server = cache.server_row(URL);
    cache
        .update_server(
            server,
            &[
                ServerFact::CacheInfo(cache_info()),
                ServerFact::Down(downtime()),
            ],
        )
        .unwrap();

    cache.update_server(server, &[ServerFact::Up]).unwrap();
    let down = cache.server_facts(server).unwrap().down.unwrap();
    assert!(!down.is_down(NOW + 1));
    assert_eq!(
        &*down.reason, "connection refused",
        "what it was down for stays known"
    );

    let no_file = CacheInfoRecord {
        text: None,
        answered_at: NOW,
        expires_at: NOW + 1,
    };
    cache
        .update_server(server, &[ServerFact::CacheInfo(no_file.clone())])
        .unwrap();
    assert_eq!(
        cache.server_facts(server).unwrap().cache_info,
        Some(no_file)
    );
    cache.remove(Some(URL), &[]).unwrap();
    assert_eq!(cache.server_facts(server).unwrap(), ServerFacts::default());
}

/// Prints times; run it alone and optimized.
#[test]
#[ignore = "measures"]
fn speed_of_five_thousand() {
    let dir = tempfile::tempdir().unwrap();
    for count in [5_000, 50_000] {
        let mut cache = open_sound(&dir.path().join(count.to_string()));
        let server = cache.server_row(URL);
        let text = "x".repeat(1200);
        let items: Vec<_> = (0..count).map(item).collect();
        let batch: Vec<_> = items
            .iter()
            .map(|&item| (server, item, positive(&text)))
            .collect();
        let timed = |what: &str, work: &mut dyn FnMut()| {
            let start = std::time::Instant::now();
            work();
            println!("{count} {what}: {:?}", start.elapsed());
        };
        timed("insert", &mut || cache.insert(&batch).unwrap());
        timed("insert again", &mut || cache.insert(&batch).unwrap());
        timed("find", &mut || {
            assert_eq!(cache.find(server, &items, NOW).unwrap().len(), count);
        });
        timed("find again", &mut || {
            assert_eq!(cache.find(server, &items, NOW).unwrap().len(), count);
        });
        println!("{} bytes", cache.file_bytes());
        drop(cache);
        timed("open", &mut || {
            drop(open_sound(&dir.path().join(count.to_string())))
        });
        timed("open and find", &mut || {
            let mut cache = open_sound(&dir.path().join(count.to_string()));
            assert_eq!(cache.find(server, &items, NOW).unwrap().len(), count);
        });
    }
}

#[test]
fn rates_of_lines_are_kept_for_a_month_and_removed_with_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let rate = LineRateRecord {
        bytes_per_second: 12_500_000,
        measured_at: NOW,
    };
    {
        let mut cache = LookupCache::open(dir.path()).cache;
        let server = cache.server_row(URL);
        assert_eq!(cache.line_rate(server).unwrap(), None);
        let old = LineRateRecord {
            bytes_per_second: 1,
            ..rate
        };
        cache.replace_line_rate(server, old).unwrap();
        cache.replace_line_rate(server, rate).unwrap();
    }

    let mut cache = LookupCache::open(dir.path()).cache;
    let server = cache.server_row(URL);
    assert_eq!(cache.line_rate(server).unwrap(), Some(rate));
    assert!(rate.is_fresh(NOW) && rate.is_fresh(NOW + 30 * 24 * 3600));
    assert!(!rate.is_fresh(NOW - 1) && !rate.is_fresh(NOW + 31 * 24 * 3600));

    cache.remove(Some("http://other.example"), &[]).unwrap();
    assert_eq!(cache.line_rate(server).unwrap(), Some(rate));
    cache.remove(Some(URL), &[]).unwrap();
    assert_eq!(cache.line_rate(server).unwrap(), None);
}
