//! `subst mirror --to s3://...` of nars that are sent in parts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use super::mirror_buckets::{contents, mirror, mirror_command, start, url};
use crate::support::bucket::{BUCKET, BucketRules};
use crate::support::bucket_writes::PartFault;
use crate::support::publisher::{Publisher, file_nar};
use crate::support::sandbox::Running;
use crate::support::{Sandbox, Server, files_below, wait_until};

/// Parts of 8 MiB of the nar of [`LargeItem`].
const PARTS: u32 = 9;

/// An item with a nar of more than 64 MiB, and a bucket without it.
struct LargeItem {
    sandbox: Sandbox,
    publisher: Publisher,
    path: String,
    faults: Arc<Mutex<BTreeMap<u32, PartFault>>>,
    unanswered: Arc<Mutex<BTreeSet<u32>>>,
    server: Server,
}

impl LargeItem {
    /// The bucket has these `faults`.
    fn new<const N: usize>(faults: [(u32, PartFault); N]) -> Self {
        let sandbox = Sandbox::new();
        let publisher = Publisher::new(&sandbox, "server", 1);
        Publisher::trust(&sandbox, &[&publisher]);
        let mut content = vec![0; 65 << 20];
        fastrand::Rng::with_seed(7).fill(&mut content);
        let nar = file_nar(&content);
        let path = publisher.publish('a', &nar, nar.len() as u64, "");
        let faults = Arc::new(Mutex::new(BTreeMap::from(faults)));
        let rules = BucketRules {
            part_faults: Arc::clone(&faults),
            ..BucketRules::default()
        };
        let unanswered = Arc::clone(&rules.unanswered_parts);
        sandbox.make_directory("bucket.uploads");
        let server = start(&sandbox, rules);
        Self {
            sandbox,
            publisher,
            path,
            faults,
            unanswered,
            server,
        }
    }

    fn parts_of_uploads(&self) -> usize {
        files_below(&self.sandbox.path("bucket.uploads"), "").len()
    }

    /// Another run, without faults, sends only the parts that the bucket lacks.
    fn assert_continued(&self, missing: &[u32]) {
        assert!(contents(&self.sandbox.path("bucket")).is_empty());
        self.faults.lock().unwrap().clear();
        let to = url(&self.server, BUCKET);
        let words = ["--closure", &self.path];
        mirror(&self.sandbox, &self.publisher, &to, &words).exits(0);
        let stored = contents(&self.sandbox.path("bucket"));
        assert!(stored == contents(&self.publisher.dir));
        for number in 1..=PARTS {
            let requests = self.server.requests_for(&format!("partNumber={number}&"));
            let expected = 1 + usize::from(missing.contains(&number));
            assert_eq!(requests, expected, "part {number}");
        }
        assert_eq!(self.server.requests_for("uploads="), 1);
        assert_eq!(self.parts_of_uploads(), 0);
    }
}

#[test]
fn parts_of_a_large_nar_do_not_wait_for_each_other_and_only_missing_ones_are_sent_after_a_kill() {
    let missing = [3, 6];
    let item = LargeItem::new(missing.map(|number| (number, PartFault::Unanswered)));
    let to = url(&item.server, BUCKET);
    let words = ["--closure", &item.path];

    let command = mirror_command(&item.sandbox, &item.publisher, &to, &words);
    let mut running = Running::start(command, "");
    assert!(wait_until(
        || item.parts_of_uploads() == 7 && *item.unanswered.lock().unwrap() == missing.into()
    ));
    running.kill();

    item.assert_continued(&missing);
}

#[test]
fn a_part_that_is_refused_fails_its_nar_once_and_the_others_are_kept() {
    let item = LargeItem::new([(4, PartFault::Refused)]);
    let to = url(&item.server, BUCKET);
    let words = ["--closure", &item.path];

    let failed = mirror(&item.sandbox, &item.publisher, &to, &words);
    let message = "the bucket is full";
    let failed = failed.says(message);
    assert_ne!(failed.code, Some(0));
    assert_eq!(failed.stderr.matches(message).count(), 1);

    item.assert_continued(&[4]);
}
