//! `subst mirror --to s3://...` of nars that are sent in parts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::mirror_buckets::{contents, mirror, mirror_command, start, url};
use crate::support::bucket::{BUCKET, BucketRules};
use crate::support::bucket_writes::PartFault;
use crate::support::publisher::{Publisher, file_nar};
use crate::support::sandbox::{Running, run};
use crate::support::{Reply, Sandbox, Server, files_below, wait_until};

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

    /// The numbers of the parts that the bucket has of uploads.
    fn stored_parts(&self) -> BTreeSet<u32> {
        let files = files_below(&self.sandbox.path("bucket.uploads"), "");
        let names = files.iter().map(|file| file.file_name().unwrap());
        names
            .map(|name| name.to_str().unwrap().parse().unwrap())
            .collect()
    }

    /// The parts that the program has recorded as stored.
    fn recorded_parts(&self) -> usize {
        let files = files_below(&self.sandbox.path(""), "").into_iter();
        let records = files.filter(|file| file.parent().unwrap().ends_with("uploads"));
        let texts = records.filter_map(|file| std::fs::read_to_string(file).ok());
        texts.map(|text| text.matches("\"sha256\"").count()).sum()
    }

    /// Starts a run that copies from `source`, and kills it when it has sent the parts `stored`.
    fn kill_after(&self, source: &str, stored: &BTreeSet<u32>) {
        let to = url(&self.server, BUCKET);
        let words = ["--closure", &self.path];
        let command = mirror_command(&self.sandbox, source, &to, &words);
        let mut running = Running::start(command, "");
        assert!(wait_until(|| {
            self.stored_parts() == *stored && self.recorded_parts() == stored.len()
        }));
        running.kill();
    }

    /// Another run, without faults, sends again only the parts `again`: all of the others were stored.
    fn assert_continued(&self, again: &BTreeSet<u32>) {
        assert!(contents(&self.sandbox.path("bucket")).is_empty());
        self.faults.lock().unwrap().clear();
        let sent = |number| self.server.requests_for(&format!("partNumber={number}&"));
        let before: Vec<usize> = (1..=PARTS).map(sent).collect();
        let to = url(&self.server, BUCKET);
        let words = ["--closure", &self.path];
        mirror(&self.sandbox, &self.publisher, &to, &words).exits(0);
        let stored = contents(&self.sandbox.path("bucket"));
        assert!(stored == contents(&self.publisher.dir));
        for (number, before) in (1..=PARTS).zip(before) {
            let expected = usize::from(again.contains(&number));
            assert_eq!(sent(number) - before, expected, "part {number}");
        }
        assert_eq!(self.server.requests_for("uploads="), 1);
        assert_eq!(self.stored_parts(), BTreeSet::new());
    }
}

#[test]
fn parts_of_a_large_nar_do_not_wait_for_each_other_and_only_missing_ones_are_sent_after_a_kill() {
    let missing = [3, 6];
    let item = LargeItem::new(missing.map(|number| (number, PartFault::Unanswered)));
    let stored = (1..=PARTS).filter(|number| !missing.contains(number));
    item.kill_after(&item.publisher.url(), &stored.collect());
    assert_eq!(*item.unanswered.lock().unwrap(), missing.into());
    item.assert_continued(&missing.into());
}

#[test]
fn parts_are_sent_while_the_nar_arrives() {
    let item = LargeItem::new([]);
    let directory = item.publisher.dir.clone();
    let source = Server::start(move |request| {
        let mut reply = Reply::file(&directory, request);
        reply.stall_at = request.path.ends_with(".nar").then_some(20 << 20);
        reply
    });
    item.kill_after(&source.url(), &[1, 2].into());
    item.assert_continued(&(3..=PARTS).collect());
}

#[test]
fn parts_of_another_version_of_the_nar_are_not_used() {
    let mut item = LargeItem::new([(2, PartFault::Unanswered)]);
    let stored = (1..=PARTS).filter(|number| *number != 2);
    item.kill_after(&item.publisher.url(), &stored.collect());

    let mut nar = std::fs::read(item.publisher.nar('a')).unwrap();
    nar[(4 * 8) << 20] ^= 1;
    item.path = item.publisher.publish('a', &nar, nar.len() as u64, "");
    item.assert_continued(&[2, 5].into());
}

#[test]
fn the_upload_of_a_nar_that_is_not_what_was_signed_is_aborted() {
    let item = LargeItem::new([]);
    let mut nar = std::fs::read(item.publisher.nar('a')).unwrap();
    nar[64 << 20] ^= 1;
    std::fs::write(item.publisher.nar('a'), nar).unwrap();

    let to = url(&item.server, BUCKET);
    let words = ["--closure", &item.path];
    let failed = mirror(&item.sandbox, &item.publisher, &to, &words);
    assert_ne!(failed.says("the nar has the hash").code, Some(0));
    assert_eq!(item.server.requests_for("partNumber=1&"), 1);
    assert!(contents(&item.sandbox.path("bucket")).is_empty());
    assert_eq!(item.stored_parts(), BTreeSet::new());
    assert_eq!(item.recorded_parts(), 0);
}

#[test]
fn parts_that_the_store_is_too_busy_for_are_sent_again_and_no_others() {
    let busy = [2, 5, PARTS];
    let item = LargeItem::new(busy.map(|number| (number, PartFault::SlowDownOnce)));
    let to = url(&item.server, BUCKET);
    let words = ["--closure", &item.path, "--retry-time", "60s"];
    mirror(&item.sandbox, &item.publisher, &to, &words).exits(0);
    assert!(contents(&item.sandbox.path("bucket")) == contents(&item.publisher.dir));
    for number in 1..=PARTS {
        let sent = item.server.requests_for(&format!("partNumber={number}&"));
        assert_eq!(sent, 1 + usize::from(busy.contains(&number)), "{number}");
    }
    assert_eq!(item.server.requests_for("uploads="), 1);
}

#[test]
fn a_nar_of_which_a_part_is_refused_is_not_downloaded_to_its_end() {
    let item = LargeItem::new([(1, PartFault::Refused)]);
    let directory = item.publisher.dir.clone();
    let source = Server::start(move |request| {
        let mut reply = Reply::file(&directory, request);
        if request.path.ends_with(".nar") {
            reply.drip = Some((128 << 10, Duration::from_millis(20)));
        }
        reply
    });
    let to = url(&item.server, BUCKET);
    let words = ["--closure", &item.path];
    let command = mirror_command(&item.sandbox, &source.url(), &to, &words);
    run(command).exits(4).says("the bucket is full");
    assert!(source.sent() < 60 << 20, "{}", source.sent());
    assert_eq!(source.requests_for("/a.nar"), 1, "{:?}", source.asked());
    let kept = files_below(&item.sandbox.path(""), "");
    let mut kept = kept
        .iter()
        .filter(|file| file.parent().unwrap().ends_with("incoming"));
    assert!(kept.any(|file| file.metadata().unwrap().len() >= 8 << 20));
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

    let stored = item.stored_parts();
    assert!(stored.is_superset(&[1, 2, 3].into()));
    item.assert_continued(&(1..=PARTS).filter(|it| !stored.contains(it)).collect());
}
