//! `subst mirror gc`: what is removed from a mirror, when, and what never.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;

use super::mirror::{contents, mirror, mirror_command, published};
use crate::support::Sandbox;
use crate::support::publisher::{Publisher, command, installed, name};
use crate::support::sandbox::{Run, run};

fn gc_command(sandbox: &Sandbox, arguments: &[&str]) -> Command {
    let mut command = command(sandbox, "", &["mirror", "gc"]);
    command.arg("--to").arg(sandbox.path("mirror"));
    command.args(arguments);
    command
}

fn gc(sandbox: &Sandbox, arguments: &[&str]) -> Run {
    run(gc_command(sandbox, arguments))
}

fn narinfo(digit: char) -> String {
    format!("{}.narinfo", &name(digit)[..32])
}

/// A file that lists the items of `digits`.
fn list(sandbox: &Sandbox, digits: &str) -> String {
    let lines = digits
        .chars()
        .map(|digit| format!("/gnu/store/{}\n", name(digit)));
    let file = sandbox.path("list");
    std::fs::write(&file, lines.collect::<String>()).unwrap();
    file.to_str().unwrap().to_owned()
}

/// A mirror of a, which refers to b, and of c.
fn mirrored(sandbox: &Sandbox) -> Publisher {
    let (publisher, a) = published(sandbox);
    let c = publisher.publish_file('c', "c", "");
    mirror(sandbox, &publisher.url(), &["--closure", &a, &c]).exits(0);
    publisher
}

fn names(sandbox: &Sandbox) -> Vec<String> {
    let names = contents(&sandbox.path("mirror")).into_keys();
    names.filter(|name| name != "nix-cache-info").collect()
}

fn tombstones(sandbox: &Sandbox) -> String {
    std::fs::read_to_string(sandbox.path("mirror/subst/tombstones")).unwrap_or_default()
}

/// Lets four days pass for the nars that wait.
fn age_tombstones(sandbox: &Sandbox) {
    let lines = tombstones(sandbox);
    let lines = lines.lines().map(|line| {
        let (time, key) = line.split_once(' ').unwrap();
        format!("{} {key}\n", time.parse::<u64>().unwrap() - 4 * 24 * 3600)
    });
    let text: String = lines.collect();
    std::fs::write(sandbox.path("mirror/subst/tombstones"), text).unwrap();
}

fn age(path: &Path, days: u64) {
    let file = std::fs::File::options().write(true).open(path).unwrap();
    let time = file.metadata().unwrap().modified().unwrap();
    let time = time - Duration::from_secs(days * 24 * 3600);
    file.set_modified(time).unwrap();
}

#[test]
fn nars_stay_until_no_client_has_their_narinfos() {
    let sandbox = Sandbox::new();
    mirrored(&sandbox);
    let keep = list(&sandbox, "c");
    let output = gc(&sandbox, &["--keep-list", &keep]).exits(0);
    let removed = ['a', 'b'].map(|digit| format!("/gnu/store/{}\n", name(digit)));
    assert_eq!(output.stdout, removed.concat(), "referrers go first");
    output.says("2 nars stay for clients");
    assert_eq!(names(&sandbox), ["a.nar", "b.nar", "c.nar", &narinfo('c')]);

    gc(&sandbox, &["--keep-list", &keep]).exits(0);
    assert_eq!(names(&sandbox).len(), 4);
    age_tombstones(&sandbox);
    let output = gc(&sandbox, &[]).exits(0);
    output.says("0 items and 2 nars removed");
    assert_eq!(names(&sandbox), ["c.nar", &narinfo('c')]);
    assert_eq!(tombstones(&sandbox), "");
}

#[test]
fn listed_items_that_the_mirror_does_not_have_are_named() {
    let sandbox = Sandbox::new();
    mirrored(&sandbox);
    let keep = list(&sandbox, "dac");
    let one = format!(
        "does not have 1 item of it, such as /gnu/store/{}",
        name('d')
    );
    for dry_run in [&["--dry-run"][..], &[]] {
        let output = gc(&sandbox, &[&["--keep-list", &keep], dry_run].concat());
        output.exits(0).says(&one).prints("");
    }
    let keep = list(&sandbox, "adf");
    let output = gc(&sandbox, &["--keep-list", &keep, "--dry-run"]);
    output
        .exits(0)
        .says("does not have 2 items of it, such as ");
    let keep = list(&sandbox, "ac");
    let output = gc(&sandbox, &["--keep-list", &keep]).exits(0);
    assert!(!output.stderr.contains("does not have"));
}

#[test]
fn without_grace_nothing_is_left_over() {
    let sandbox = Sandbox::new();
    mirrored(&sandbox);
    let by_hash = format!("nar/sha256-{}", "0".repeat(64));
    let in_directory = format!("nar/zstd/{}", name('d'));
    for orphan in [&by_hash, &in_directory, "nar/x.nar.xz", "x.nar.zst"] {
        write(&sandbox, orphan);
    }
    let keep = list(&sandbox, "b");
    gc(&sandbox, &["--keep-list", &keep, "--grace", "0"]).exits(0);
    assert_eq!(names(&sandbox), ["b.nar", &narinfo('b')]);
}

/// Writes a file of this name in the mirror.
fn write(sandbox: &Sandbox, name: &str) {
    let file = sandbox.path("mirror").join(name);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, "precious").unwrap();
}

#[test]
fn files_that_are_no_nars_stay() {
    let sandbox = Sandbox::new();
    mirrored(&sandbox);
    for other in [
        "index.html",
        "hello.nar.sig",
        "nar/README.html",
        "nar/other/x",
        "releases/hello.nar",
        "releases/hello.nar.sig",
    ] {
        write(&sandbox, other);
    }
    let before = contents(&sandbox.path("mirror"));
    gc(&sandbox, &["--grace", "0"])
        .exits(0)
        .says("0 items and 0 nars removed");
    assert_eq!(contents(&sandbox.path("mirror")), before);
}

#[test]
fn a_link_to_a_narinfo_may_need_any_nar() {
    let sandbox = Sandbox::new();
    mirrored(&sandbox);
    let (link, moved) = (
        sandbox.path("mirror").join(narinfo('c')),
        sandbox.path("moved"),
    );
    std::fs::rename(&link, &moved).unwrap();
    std::os::unix::fs::symlink(&moved, &link).unwrap();
    let before = names(&sandbox);
    let keep = list(&sandbox, "b");
    let output = gc(&sandbox, &["--keep-list", &keep, "--grace", "0"]);
    output.exits(5).says(&narinfo('c'));
    assert_eq!(names(&sandbox), before);
    assert!(sandbox.path("mirror/c.nar").exists());
}

#[test]
fn a_nar_is_named_by_any_url_that_leads_to_it() {
    let sandbox = Sandbox::new();
    mirrored(&sandbox);
    let file = sandbox.path("mirror").join(narinfo('c'));
    let text = std::fs::read_to_string(&file).unwrap();
    let collect = |url: &str, is_kept: bool| {
        std::fs::write(&file, text.replace("URL: c.nar", &format!("URL: {url}"))).unwrap();
        let run = gc(&sandbox, &["--grace", "0"]);
        assert_eq!(sandbox.path("mirror/c.nar").exists(), is_kept, "{url}");
        run
    };
    for url in [
        "/c.nar",
        "./c.nar",
        "../c.nar",
        "x/../c.nar",
        "c.nar?x",
        "/below/c.nar",
        "http://mirror.example/c.nar",
        "http://mirror.example/below/%63.nar?x#y",
        "//mirror.example/c.nar",
    ] {
        collect(url, true).exits(0);
    }
    for url in ["x//c.nar/", "x/", ".", "c.nar/%00"] {
        let run = collect(url, true);
        run.exits(5).says("not that of a file");
    }
    collect("http://cache.example/", false).exits(0);
}

#[test]
fn a_clock_that_is_behind_ends_no_grace() {
    let sandbox = Sandbox::new();
    mirrored(&sandbox);
    let keep = list(&sandbox, "c");
    let before = contents(&sandbox.path("mirror"));
    let mirror_path = sandbox.path("mirror");
    let written = std::fs::metadata(mirror_path.join("nix-cache-info")).unwrap();
    let now = written.modified().unwrap();
    let set_age = |file: &str, days: i64| {
        let path = mirror_path.join(file);
        let file = std::fs::File::options().write(true).open(path).unwrap();
        let day = Duration::from_secs(24 * 3600) * u32::try_from(days.abs()).unwrap();
        let time = if days < 0 { now + day } else { now - day };
        file.set_modified(time).unwrap();
    };
    for file in [&narinfo('b'), "c.nar"] {
        set_age(file, -2);
        let output = gc(&sandbox, &["--keep-list", &keep]).exits(5);
        output.says("the clock of this machine").says(file);
        assert_eq!(contents(&mirror_path), before);
        assert_eq!(tombstones(&sandbox), "");
        set_age(file, 0);
    }

    gc(&sandbox, &["--keep-list", &keep]).exits(0);
    let later = tombstones(&sandbox);
    let later = later.lines().map(|line| {
        let (time, key) = line.split_once(' ').unwrap();
        format!("{} {key}\n", time.parse::<u64>().unwrap() + 2 * 24 * 3600)
    });
    let later: String = later.collect();
    std::fs::write(mirror_path.join("subst/tombstones"), &later).unwrap();
    gc(&sandbox, &[]).exits(5).says("subst/tombstones");
    assert_eq!(tombstones(&sandbox), later);
    std::fs::remove_file(mirror_path.join("subst/tombstones")).unwrap();
    gc(&sandbox, &[]).exits(0).says("2 nars stay");
}

#[test]
fn a_mirror_in_a_directory_of_another_one_is_left_alone() {
    let sandbox = Sandbox::new();
    let (publisher, a) = published(&sandbox);
    let url = publisher.url();
    mirror(&sandbox, &url, &["--closure", &a]).exits(0);
    let mut nested = command(&sandbox, &url, &["mirror", "--closure", &a]);
    nested.arg("--to").arg(sandbox.path("mirror/in/it"));
    run(nested).exits(0);
    let expected = contents(&sandbox.path("mirror"));
    std::fs::write(sandbox.path("mirror/left-over.nar"), "").unwrap();

    gc(&sandbox, &["--grace", "0"])
        .exits(0)
        .says("0 items and 1 nar removed");
    assert_eq!(contents(&sandbox.path("mirror")), expected);
}

#[test]
fn a_nar_that_another_item_names_stays() {
    let sandbox = Sandbox::new();
    let publisher = mirrored(&sandbox);
    let nar = std::fs::read(publisher.nar('c')).unwrap();
    let size = nar.len() as u64;
    let d = publisher.describe('d', &nar, size, "", "URL: c.nar\nCompression: none\n");
    mirror(&sandbox, &publisher.url(), &["--closure", &d]).exits(0);
    let keep = list(&sandbox, "d");
    gc(&sandbox, &["--keep-list", &keep, "--grace", "0"]).exits(0);
    assert_eq!(names(&sandbox), ["c.nar", &narinfo('d')]);
}

#[test]
fn a_copy_cancels_the_removal_of_nars() {
    let sandbox = Sandbox::new();
    let publisher = mirrored(&sandbox);
    let keep = list(&sandbox, "c");
    gc(&sandbox, &["--keep-list", &keep]).exits(0);
    age_tombstones(&sandbox);
    let a = format!("/gnu/store/{}", name('a'));
    mirror(&sandbox, &publisher.url(), &["--closure", &a]).exits(0);
    assert_eq!(tombstones(&sandbox), "");
    gc(&sandbox, &["--keep-list", &keep]).exits(0);
    assert!(names(&sandbox).contains(&"a.nar".to_owned()));
}

#[test]
fn a_dry_run_removes_nothing() {
    let sandbox = Sandbox::new();
    mirrored(&sandbox);
    let before = contents(&sandbox.path("mirror"));
    let keep = list(&sandbox, "c");
    let output = gc(
        &sandbox,
        &["--keep-list", &keep, "--grace", "0", "-n", "--json"],
    );
    let json = output.exits(0).json();
    assert_eq!(json["removed_nars"], json!(["a.nar", "b.nar"]));
    assert_eq!(json["summary"]["removed"], 2);
    assert_eq!(contents(&sandbox.path("mirror")), before);
    assert_eq!(tombstones(&sandbox), "");
}

#[test]
fn old_items_go_by_days_and_by_size() {
    let sandbox = Sandbox::new();
    mirrored(&sandbox);
    let mirror_path = sandbox.path("mirror");
    for digit in ['b', 'c'] {
        age(&mirror_path.join(narinfo(digit)), 9);
    }
    gc(&sandbox, &["--keep-days", "3", "--grace", "0"]).exits(0);
    let kept = [
        "a.nar".to_owned(),
        narinfo('a'),
        "b.nar".to_owned(),
        narinfo('b'),
    ];
    assert_eq!(names(&sandbox), kept);

    gc(&sandbox, &["--max-size", "1G", "--grace", "0"]).exits(0);
    assert_eq!(names(&sandbox), kept);
    let size = |name: &str| std::fs::metadata(mirror_path.join(name)).unwrap().len();
    let size = (size("b.nar") + size(&narinfo('b'))).to_string();
    gc(&sandbox, &["--max-size", &size, "--grace", "0"]).exits(0);
    assert_eq!(names(&sandbox), ["b.nar", &narinfo('b')]);
}

#[test]
fn a_mirror_that_cannot_be_read_whole_is_left_as_it_is() {
    let sandbox = Sandbox::new();
    mirrored(&sandbox);
    let keep = list(&sandbox, "b");
    std::fs::write(sandbox.path("mirror").join(narinfo('c')), "odd").unwrap();
    let before = contents(&sandbox.path("mirror"));
    let output = gc(&sandbox, &["--keep-list", &keep, "--grace", "0"]);
    output.exits(5).says("`subst mirror verify --repair --to");
    assert_eq!(contents(&sandbox.path("mirror")), before);

    std::fs::remove_file(sandbox.path("mirror").join(narinfo('c'))).unwrap();
    let keep = list(&sandbox, "z");
    let output = gc(&sandbox, &["--keep-list", &keep]);
    output.exits(2).says("the mirror has none of these items");
}

#[test]
fn a_longer_grace_is_a_promise() {
    let sandbox = Sandbox::new();
    mirrored(&sandbox);
    let keep = list(&sandbox, "c");
    gc(&sandbox, &["--keep-list", &keep, "--grace", "10d"]).exits(0);
    age_tombstones(&sandbox);
    gc(&sandbox, &[]).exits(0);
    assert!(names(&sandbox).contains(&"a.nar".to_owned()));
    gc(&sandbox, &["--grace", "4d"]).exits(0);
    assert!(!names(&sandbox).contains(&"a.nar".to_owned()));

    let record = "{\"format\":2,\"grace_seconds\":0}";
    std::fs::write(sandbox.path("mirror/subst/mirror.json"), record).unwrap();
    gc(&sandbox, &[]).exits(5).says("later version");
}

/// The files of each narinfo of the mirror; panics if one is missing.
fn named_files(sandbox: &Sandbox) -> BTreeSet<String> {
    let files = contents(&sandbox.path("mirror"));
    let mut named = BTreeSet::new();
    for (name, bytes) in files.iter().filter(|(name, _)| name.ends_with(".narinfo")) {
        let text = String::from_utf8(bytes.clone()).unwrap();
        let field = |field: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(field));
            line.unwrap().trim().to_owned()
        };
        let references = field("References:");
        let references = references
            .split_whitespace()
            .map(|it| format!("{}.narinfo", &it[..32]));
        for needed in references.chain([field("URL:")]) {
            assert!(files.contains_key(&needed), "{name} needs {needed}");
            named.insert(needed);
        }
    }
    named
}

#[test]
fn copies_and_collections_that_are_killed_leave_no_hole() {
    const ROUNDS: usize = 24;
    const DIGITS: [char; 6] = ['1', '2', '3', '4', '5', '6'];
    let sandbox = Sandbox::new();
    let publisher = Publisher::new(&sandbox, "server", 1);
    Publisher::trust(&sandbox, &[&publisher]);
    let mut random = fastrand::Rng::with_seed(7);
    let mut references = String::new();
    for digit in DIGITS {
        publisher.publish_file(digit, &digit.to_string().repeat(100_000), &references);
        if random.bool() {
            references = format!("{} {references}", name(digit));
        }
    }

    // With the grace, what clients have seen stays.
    let mut seen = BTreeSet::new();
    for round in 0..ROUNDS {
        let digits: String = DIGITS.into_iter().filter(|_| random.bool()).collect();
        let list = list(&sandbox, &digits);
        let mut command = match random.bool() {
            true => mirror_command(
                &sandbox,
                &publisher.url(),
                &["--list", &list, "--jobs", "2"],
            ),
            false => gc_command(&sandbox, &["--keep-list", &list]),
        };
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        if random.u8(..3) > 0 {
            std::thread::sleep(Duration::from_millis(random.u64(..60)));
            let _ = child.kill();
        }
        child.wait().unwrap();
        if sandbox.path("mirror").exists() {
            let named = named_files(&sandbox);
            seen.extend(named.into_iter().filter(|name| name.ends_with(".nar")));
            let files = contents(&sandbox.path("mirror"));
            let lost = seen.iter().find(|name| !files.contains_key(*name));
            assert_eq!(lost, None, "round {round}");
        }
    }

    let all = list(&sandbox, "123456");
    mirror(&sandbox, &publisher.url(), &["--list", &all]).exits(0);
    let keep = list(&sandbox, "3");
    gc(&sandbox, &["--keep-list", &keep, "--grace", "0"]).exits(0);
    let nars = names(&sandbox)
        .into_iter()
        .filter(|name| name.ends_with(".nar"));
    let named = named_files(&sandbox).into_iter();
    let named: Vec<String> = named.filter(|name| name.ends_with(".nar")).collect();
    assert_eq!(nars.collect::<Vec<_>>(), named, "an orphan");
    let three = format!("/gnu/store/{}", name('3'));
    let url = format!("file://{}", sandbox.path("mirror").display());
    run(command(&sandbox, &url, &["fetch", &three])).exits(0);
    assert!(installed(&sandbox, &three).exists());
}
