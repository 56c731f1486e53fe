//! Several processes and two servers that do whatever chance says. Whatever happens, what is
//! registered is right and has all its references; and afterwards one run with a good server makes
//! everything complete, with nothing left over.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;

use super::assert_complete;
use crate::support::fixture::base;
use crate::support::sandbox::Running;
use crate::support::{Kind, Reply, Sandbox, Server, item, listing};

#[derive(Debug, Clone, Copy)]
enum Habit {
    Missing,
    Oops,
    Busy,
    Cut,
    Stall,
    Drip,
    Damage,
    Empty,
}

const HABITS: [Habit; 8] = [
    Habit::Missing,
    Habit::Oops,
    Habit::Busy,
    Habit::Cut,
    Habit::Stall,
    Habit::Drip,
    Habit::Damage,
    Habit::Empty,
];

/// A server of the Guix fixtures that falls into some bad habits now and then.
fn server(seed: u64) -> Server {
    let mut rng = Rng::with_seed(seed);
    let habits: Vec<Habit> = (0..rng.usize(1..4)).map(|_| *rng.choice(&HABITS).unwrap()).collect();
    let temper = rng.f64().powi(2) * 0.7;
    let with_ranges = rng.bool();
    println!("  {habits:?}, {temper:.2}");
    let (directory, requests) = (Kind::Guix.directory(), AtomicU64::new(0));
    Server::start(move |request| {
        let mut rng = Rng::with_seed(seed << 32 | requests.fetch_add(1, Ordering::Relaxed));
        let mut reply = match with_ranges {
            true => Reply::file_or_range(&directory, request),
            false => Reply::file(&directory, request),
        };
        if rng.f64() >= temper {
            return reply;
        }
        let somewhere = rng.usize(0..=reply.body.len());
        match rng.choice(&habits).unwrap() {
            Habit::Missing => return Reply::not_found(),
            Habit::Oops => return Reply::new("500 Oops", ""),
            Habit::Busy => return Reply::new("503 Busy", "").header("Retry-After: 0"),
            Habit::Cut => reply.cut_at = Some(somewhere),
            Habit::Stall => reply.stall_at = Some(somewhere),
            Habit::Drip => reply.drip = Some((1 + somewhere / 8, Duration::from_millis(20))),
            Habit::Damage => {
                if let Some(byte) = reply.body.get_mut(somewhere) {
                    *byte ^= 1 << rng.u8(0..8);
                }
            }
            Habit::Empty => reply.body.clear(),
        }
        reply
    })
}

/// Everything registered is there, as it should be, with all its references.
#[track_caller]
fn assert_sound(sandbox: &Sandbox) {
    let database = sandbox.root().join("var/guix/db/db.sqlite");
    if !database.exists() {
        return;
    }
    let rows = std::fs::read_to_string(Kind::Guix.directory().join("expected-rows.txt")).unwrap();
    let right = by_item(rows.lines().map(str::to_owned));
    let right_trees = listing::sorted_lines(&Kind::Guix.directory().join("expected.txt"));
    let found = by_item(listing::rows(&database).into_iter());
    for (path, rows) in &found {
        assert_eq!(rows, &right[path], "{path}");
        let (name, top) = (base(path), sandbox.root().join(&path[1..]));
        let mut tree = right_trees.clone();
        tree.retain(|line| line.starts_with(name));
        assert_eq!(listing::tree(&top, name), tree);
        for reference in rows.iter().filter_map(|row| row.strip_prefix('\t')) {
            assert!(found.contains_key(reference), "{path} needs {reference}");
        }
    }
}

/// The rows of each item: its own, and those of its references.
fn by_item(rows: impl Iterator<Item = String>) -> BTreeMap<String, Vec<String>> {
    let mut items: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut path = String::new();
    for row in rows {
        if !row.starts_with('\t') {
            row.split('\t').next().unwrap().clone_into(&mut path);
        }
        items.entry(path.clone()).or_default().push(row);
    }
    items
}

/// Numbers to make servers from. `SUBST_TEST_SEEDS=1000..2000` tries others.
fn seeds() -> std::ops::Range<u64> {
    let Ok(range) = std::env::var("SUBST_TEST_SEEDS") else { return 0..12 };
    let (first, end) = range.split_once("..").unwrap();
    first.parse().unwrap()..end.parse().unwrap()
}

fn try_seed(seed: u64) {
    println!("seed {seed}");
    let sandbox = Sandbox::new();
    let mut rng = Rng::with_seed(seed);
    let servers = [server(seed * 2), server(seed * 2 + 1)];
    let urls = format!("{} {}", servers[0].url(), servers[1].url());
    let start = |rng: &mut Rng| {
        let top = item(rng.choice(["sample", "tree", "tools", "copy"]).unwrap());
        let jobs = rng.u32(1..5).to_string();
        let mut arguments = vec!["fetch", &top, "--stall-timeout", "0.2", "--jobs", &jobs];
        if rng.bool() {
            arguments.push("--keep-going");
        }
        let mut running = Running::start(sandbox.command(Kind::Guix, &urls, &arguments), "");
        let wait = Duration::from_millis(rng.u64(0..400));
        match rng.u8(0..4) {
            0 => {
                std::thread::sleep(wait);
                running.kill();
            }
            1 => {
                std::thread::sleep(wait);
                running.interrupt();
            }
            _ => {}
        }
        running
    };
    let runs: Vec<Running> = (0..rng.usize(1..5)).map(|_| start(&mut rng)).collect();
    for running in runs {
        let ended = running.end();
        let is_known = ended.code.is_none_or(|code| [0, 1, 3, 4, 130].contains(&code));
        assert!(is_known, "{ended:?}");
        assert!(!ended.stderr.contains("panicked"), "{ended:?}");
    }
    assert_sound(&sandbox);
    let good = Server::of(Kind::Guix.directory());
    let arguments = ["fetch", &item("sample"), "--refresh"];
    sandbox.subst(&good.url(), &arguments).exits(0);
    assert_complete(&sandbox);
}

#[test]
fn what_is_registered_is_right_whatever_happens() {
    let next = AtomicU64::new(seeds().start);
    let all = || std::iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| all().take_while(|seed| seeds().contains(seed)).for_each(try_seed));
        }
    });
}
