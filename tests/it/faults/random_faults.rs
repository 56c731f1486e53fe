//! Random fault tests: several processes and two servers with random faults. Registered items are
//! correct and have all their references; afterward one run with a good server completes the store
//! and leaves nothing over.

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;

use super::assert_complete;
use crate::support::fixture::base;
use crate::support::sandbox::Running;
use crate::support::{Kind, Sandbox, Server, item, listing, random_faults};

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

fn test_seed(seed: u64) {
    let sandbox = Sandbox::new();
    let mut rng = Rng::with_seed(seed);
    let servers = [
        random_faults::server(seed * 2),
        random_faults::server(seed * 2 + 1),
    ];
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
        let is_disturbed = rng.bool();
        if is_disturbed {
            std::thread::sleep(wait);
            if rng.bool() {
                running.kill()
            } else {
                running.interrupt()
            }
        }
        (running, is_disturbed)
    };
    let runs: Vec<_> = (0..rng.usize(1..5)).map(|_| start(&mut rng)).collect();
    for (running, is_disturbed) in runs {
        let ended = running.end();
        let is_known = ended
            .code
            .map_or(is_disturbed, |code| [0, 1, 3, 4, 130].contains(&code));
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
fn registered_items_are_correct_under_random_faults() {
    random_faults::test_seeds(12, test_seed);
}
