//! Disks that are full, in a mount namespace of their own. Needs root or user namespaces, and
//! is left out with a message where there are none.

use std::path::Path;
use std::process::Command;

use crate::support::mounts::unshare_flags;
use crate::support::sandbox::{Sandbox, run};
use crate::support::{Kind, Run, item};

/// Runs the program on a root that is a small file system, then `after` in the same place;
/// `None` where nothing can be mounted.
fn on_small_disk(sandbox: &Sandbox, options: &str, after: &str) -> Option<Run> {
    on_prepared_disk(sandbox, options, "", after)
}

/// The same, and `before` in the same place.
fn on_prepared_disk(sandbox: &Sandbox, options: &str, before: &str, after: &str) -> Option<Run> {
    let root = sandbox.root();
    let command = format!("fetch --root '{}'", root.display());
    with_disk_at(
        &root,
        sandbox,
        options,
        before,
        &format!("{command} {}", item("sample")),
        after,
    )
}

/// Runs `before`, `command` of the program and `after` with a small file system at `place`.
fn with_disk_at(
    place: &Path,
    sandbox: &Sandbox,
    options: &str,
    before: &str,
    command: &str,
    after: &str,
) -> Option<Run> {
    std::fs::create_dir(place).unwrap();
    let script = format!(
        "mount -t tmpfs -o {options} none '{place}' || exit 77
         {before}
         status=0
         '{program}' {command} --acl '{fixtures}/acl' \
             --substitute-urls 'file://{fixtures}' || status=$?
         {after}
         exit $status",
        place = place.display(),
        program = env!("CARGO_BIN_EXE_subst"),
        fixtures = Kind::Guix.directory().display(),
    );
    let mut command = Command::new("unshare");
    command
        .args([unshare_flags()?, "sh", "-c", &script])
        .env("SUBST_CONFIG", sandbox.path("config.toml"));
    Some(run(command))
}

/// Prints what is left in the store, and which entries of `.links` no item uses.
fn leftovers(sandbox: &Sandbox) -> String {
    format!(
        "cd '{}/gnu/store' && find . -mindepth 1 ! -path './.links*' | sort
         find .links -type f -links 1",
        sandbox.root().display()
    )
}

#[test]
fn too_little_free_space_is_reported_before_anything_is_written() {
    let sandbox = Sandbox::new();
    let Some(ended) = on_small_disk(&sandbox, "size=600k", &leftovers(&sandbox)) else {
        return;
    };
    ended
        .exits(5)
        .prints("")
        .says(" KiB needed, ")
        .says(" KiB free in ");
}

/// What earlier runs have kept of other downloads makes room for what is fetched now.
#[test]
fn unfinished_downloads_make_room() {
    let sandbox = Sandbox::new();
    let partial = format!("{}/var/guix/subst/partial", sandbox.root().display());
    let name = "0".repeat(64);
    let before = format!(
        "mkdir -p -m 755 '{partial}'
         umask 077
         printf 'subst partial download 1\\n0f9qzp1g3jy45al4zspzqah9f8d5bisp-a\\nx\\n99999999\\n\\n' > '{partial}/{name}'
         truncate -s 4096 '{partial}/{name}'
         head -c 13000k /dev/zero >> '{partial}/{name}'
         umask 022"
    );
    let after = format!("ls -A '{partial}'");
    let Some(ended) = on_prepared_disk(&sandbox, "size=13500k", &before, &after) else {
        return;
    };
    ended.exits(0).prints(&format!("{}\n", item("sample")));
}

#[test]
fn a_read_only_store_reports_valid_items() {
    let sandbox = Sandbox::new();
    let (program, root) = (env!("CARGO_BIN_EXE_subst"), sandbox.root());
    let root = root.display();
    let fetch = format!("'{program}' fetch --root '{root}' --offline");
    let (valid, other) = (
        item("sample"),
        "/gnu/store/0f9qzp1g3jy45al4zspzqah9f8d5bisp-missing",
    );
    let after = format!(
        "mount -o remount,bind,ro '{root}' || exit 77
         {fetch} {valid} || status=$?
         {fetch} {other} && status=1
         test $? -eq 5 || status=2"
    );
    let Some(ended) = on_small_disk(&sandbox, "size=50m", &after) else {
        return;
    };
    // By the fetch, and when nothing can be written.
    ended.exits(0).prints(&format!("{valid}\n{valid}\n"));
}

#[test]
fn a_disk_without_enough_files_is_reported_before_anything_is_written() {
    let sandbox = Sandbox::new();
    let Some(ended) = on_small_disk(&sandbox, "size=50m,nr_inodes=26", &leftovers(&sandbox)) else {
        return;
    };
    ended.exits(5).prints("").says("entries (inodes): ");
}

#[test]
fn a_disk_that_fills_up_has_only_complete_items() {
    for inodes in [40, 60, 90] {
        let sandbox = Sandbox::new();
        let options = format!("size=50m,nr_inodes={inodes}");
        let Some(ended) = on_small_disk(&sandbox, &options, &leftovers(&sandbox)) else {
            return;
        };
        let ended = ended.exits(5);
        // The disk is full for an item under way, or for one that begins then.
        assert!(
            ["No space left on device", "entries (inodes): "]
                .iter()
                .any(|text| ended.stderr.contains(text)),
            "{}",
            ended.stderr
        );
        // The top needs everything, so it cannot be there; nothing temporary may be.
        assert!(!ended.stdout.contains("-sample-"), "{}", ended.stdout);
        let is_rest = |line: &&str| line.contains(".tmp") || line.contains(".lock");
        assert_eq!(ended.stdout.lines().find(is_rest), None, "{}", ended.stdout);
        assert!(!ended.stdout.contains(".links/"), "{}", ended.stdout);
    }
}

/// Fills the disk of a root to the last block after `before`, and collects: what the collection printed.
fn collect_on_full_disk(before: &str) -> Option<Run> {
    let sandbox = Sandbox::new();
    let root = sandbox.root();
    let after = format!(
        "cd '{root}/gnu/store'
         {before}
         cat /dev/zero > '{root}/fill' 2> /dev/null
         '{program}' gc --root '{root}' || status=$?
         echo 'left in the store:'
         ls",
        root = root.display(),
        program = env!("CARGO_BIN_EXE_subst"),
    );
    on_small_disk(&sandbox, "size=30m", &after)
}

#[test]
fn a_collection_on_a_full_disk_frees_what_needs_no_database_first() {
    let zeros = "head -c 300k /dev/zero >";
    let partial = "../../var/guix/subst/partial";
    let name = "0".repeat(64);
    let cases = [
        format!("mkdir trash; {zeros} trash/0"),
        format!("mkdir trash; {zeros} .links/unused; ln .links/unused trash/0"),
        format!("{zeros} .links/unused"),
        format!("mkdir -p -m 700 {partial}; umask 077; {zeros} {partial}/{name}; umask 022"),
    ];
    for before in cases {
        let Some(ended) = collect_on_full_disk(&before) else {
            return;
        };
        let ended = ended.exits(0).says("items deleted").says(" KiB freed");
        assert!(
            ended.stdout.ends_with("left in the store:\n"),
            "{}",
            ended.stdout
        );
    }
}

#[test]
fn a_collection_that_finds_no_room_for_the_database_says_so() {
    let Some(ended) = collect_on_full_disk("") else {
        return;
    };
    ended.exits(5).says("free some space for ");
}

#[test]
fn a_mirror_on_a_full_disk_has_no_narinfo_without_its_nar() {
    let sandbox = Sandbox::new();
    let mirror = sandbox.path("mirror");
    let command = format!(
        "mirror --to '{}' --closure {}",
        mirror.display(),
        item("sample")
    );
    let after = format!("cd '{}' && ls && ls subst/incoming >&2", mirror.display());
    let Some(ended) = with_disk_at(&mirror, &sandbox, "size=100k", "", &command, &after) else {
        return;
    };
    assert!(!ended.stdout.contains(".narinfo"), "{}", ended.stdout);
    assert!(
        !ended.stderr.contains("--substitute-urls"),
        "{}",
        ended.stderr
    );
    ended
        .exits(5)
        .says("No space left on device")
        .says("free some space (`df ");
}
