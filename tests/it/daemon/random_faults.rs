//! Random fault tests: several helpers and two servers with random faults. Every request gets its
//! reply, a success is the right tree, and a failure leaves nothing behind.

use std::process::Command;

use fastrand::Rng;

use super::{Helper, every_item, success};
use crate::support::fixture::base;
use crate::support::listing::{sorted_lines, tree};
use crate::support::{Kind, Sandbox, random_faults};

/// A helper that is killed when it takes too long, so that a hang fails the test.
fn start(sandbox: &Sandbox, urls: &str, mode: &str) -> Helper {
    let mut command = Command::new("timeout");
    command
        .args([
            "60",
            "sh",
            "-c",
            "exec 4>&1 1>&2; exec \"$0\" substitute \"$@\"",
        ])
        .arg(env!("CARGO_BIN_EXE_subst"))
        .arg(mode);
    Helper::start_by(command, sandbox, urls, "")
}

fn substitute_all(sandbox: &Sandbox, urls: &str, number: usize, mut rng: Rng) {
    let right = sorted_lines(&Kind::Guix.directory().join("expected.txt"));
    let mut helper = start(sandbox, urls, "--substitute");
    let mut items = every_item();
    rng.shuffle(&mut items);
    // Some end before all requests are written.
    for path in items.iter().take(rng.usize(1..12)) {
        let (name, destination) = (
            base(path),
            sandbox.path(&format!("{number}-{}", base(path))),
        );
        let reply = helper.substitute(path, &destination);
        if reply == success(path) {
            let mut expected = right.clone();
            expected.retain(|line| line.starts_with(name));
            assert_eq!(tree(&destination, name), expected);
        } else {
            assert!(
                reply == "not-found" || reply.starts_with("hash-mismatch "),
                "{reply}"
            );
            assert!(
                !destination.exists() && !destination.is_symlink(),
                "{reply}"
            );
        }
    }
    if rng.bool() {
        helper.end();
    }
}

fn test_seed(seed: u64) {
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.path("config.toml"), "stall-timeout = 0.2\n").unwrap();
    let mut rng = Rng::with_seed(seed);
    let servers = [
        random_faults::server(seed * 2),
        random_faults::server(seed * 2 + 1),
    ];
    let urls = format!("{} {}", servers[0].url(), servers[1].url());
    let mut questions = start(&sandbox, &urls, "--query");
    let mut items = every_item();
    rng.shuffle(&mut items);
    for path in items.iter().take(rng.usize(0..8)) {
        questions.info(path);
    }
    std::thread::scope(|scope| {
        for number in 0..rng.usize(1..4) {
            let (sandbox, urls, rng) = (&sandbox, &urls, rng.fork());
            scope.spawn(move || substitute_all(sandbox, urls, number, rng));
        }
        let paths: Vec<&str> = items.iter().map(String::as_str).collect();
        let had = questions.have(&paths);
        assert!(had.iter().all(|path| items.contains(path)), "{had:?}");
        questions.end();
    });
}

#[test]
fn every_request_gets_its_reply() {
    random_faults::test_seeds(12, test_seed);
}
