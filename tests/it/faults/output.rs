//! `--output` while processes are killed or interfere: the final name never has anything
//! incomplete, and nothing that another process created is removed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::{assert_tree, only, output};
use crate::support::mounts::unshare_flags;
use crate::support::sandbox::{Running, run};
use crate::support::{Kind, Reply, Run, Sandbox, Server, item, wait_until};

/// Temporary names in the sandbox.
fn temporaries(sandbox: &Sandbox) -> Vec<String> {
    let entries = fs::read_dir(sandbox.path("")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.contains(".subst-")).collect()
}

fn start(sandbox: &Sandbox, url: &str, name: &str) -> Running {
    let arguments = ["fetch", "--output", "tree", &item(name)];
    Running::start(sandbox.command(Kind::Guix, url, &arguments), "")
}

#[test]
fn killed_at_any_moment_it_leaves_a_complete_tree_or_none() {
    let (sandbox, fixture) = only("none");
    let server = Server::start(move |request| {
        let mut reply = Reply::file_or_range(&fixture.dir, request);
        if request.path.starts_with("/nar/") {
            reply.drip = Some((16 << 10, Duration::from_millis(2)));
        }
        reply
    });
    let mut incomplete = 0;
    for _ in 0..40 {
        let mut running = start(&sandbox, &server.url(), "tree");
        std::thread::sleep(Duration::from_millis(fastrand::u64(5..200)));
        running.kill();
        running.end();
        incomplete += usize::from(!temporaries(&sandbox).is_empty());
        if sandbox.path("tree").exists() {
            assert_tree(&sandbox, "tree");
            remove(&sandbox.path("tree"));
        }
    }
    output(&sandbox, &server.url(), "tree")
        .exits(0)
        .prints("tree\n");
    assert_tree(&sandbox, "tree");
    assert_eq!(temporaries(&sandbox), [""; 0]);
    eprintln!("{incomplete} of 40 rounds left a temporary name");
}

/// The place of the output has nothing to do with the store.
#[test]
fn a_directory_that_cannot_be_written_is_named_in_the_hint() {
    let Some(flags) = unshare_flags() else {
        return;
    };
    for (options, hint) in [
        ("ro", "place has to be writable for you; --output selects"),
        ("nr_inodes=2", "place; --output selects another place"),
    ] {
        let sandbox = Sandbox::new();
        sandbox.make_directory("place");
        let arguments = ["fetch", "--output", "place/tree", &item("tools")];
        let fetch = sandbox.command(Kind::Guix, &Kind::Guix.url(), &arguments);
        let mount =
            format!("mount -t tmpfs -o {options} none place || exit 77; exec \"$0\" \"$@\"");
        let mut command = Command::new("unshare");
        command.args([flags, "sh", "-c", &mount]);
        command.arg(fetch.get_program()).args(fetch.get_args());
        let variables = fetch
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?)));
        command.envs(variables).current_dir(sandbox.path(""));
        let run = run(command).exits(5).says(hint);
        assert!(!run.stderr.contains("--root"), "{}", run.stderr);
    }
}

#[test]
fn killed_in_the_middle_of_the_nar_it_leaves_only_a_temporary_name() {
    let (sandbox, fixture) = only("none");
    let stalls = Arc::new(AtomicBool::new(true));
    let server = Server::start({
        let stalls = Arc::clone(&stalls);
        move |request| {
            let mut reply = Reply::file_or_range(&fixture.dir, request);
            if request.path.starts_with("/nar/") && stalls.load(Ordering::Relaxed) {
                reply.stall_at = Some(300_000);
            }
            reply
        }
    });
    let mut first = start(&sandbox, &server.url(), "tree");
    assert!(wait_until(
        || server.requests_for("/nar/") == 1 && temporaries(&sandbox).len() == 2
    ));
    assert!(!sandbox.path("tree").exists());

    // Another process with the same destination does not remove this one's temporary tree.
    stalls.store(false, Ordering::Relaxed);
    output(&sandbox, &server.url(), "tree").exits(0);
    assert_eq!(temporaries(&sandbox).len(), 2);
    remove(&sandbox.path("tree"));

    first.kill();
    first.end();
    assert_eq!(temporaries(&sandbox).len(), 2);
    output(&sandbox, &server.url(), "tree").exits(0);
    assert_tree(&sandbox, "tree");
    assert_eq!(temporaries(&sandbox), [""; 0]);
}

/// Fetches `name` to `tree` from a server that calls `interfere` just before it sends the nar.
fn while_fetching(name: &str, interfere: impl Fn(&Path) + Send + Sync + 'static) -> (Sandbox, Run) {
    let (sandbox, fixture) = only("none");
    let destination = sandbox.path("tree");
    let server = Server::start(move |request| {
        if request.path.starts_with("/nar/") {
            interfere(&destination);
        }
        Reply::file_or_range(&fixture.dir, request)
    });
    let run = output(&sandbox, &server.url(), name);
    (sandbox, run)
}

#[test]
fn a_destination_created_meanwhile_is_not_changed() {
    // A tree and a single file.
    for name in ["tree", "notes"] {
        let (sandbox, run) = while_fetching(name, |tree| {
            fs::create_dir(tree).unwrap();
            fs::write(tree.join("precious"), "precious").unwrap();
        });
        run.exits(5)
            .prints("")
            .says("was created by another process meanwhile");
        assert_eq!(
            fs::read(sandbox.path("tree/precious")).unwrap(),
            b"precious"
        );
        assert_eq!(temporaries(&sandbox), [""; 0]);

        let (sandbox, run) = while_fetching(name, |tree| fs::create_dir(tree).unwrap());
        run.exits(5);
        assert_eq!(fs::read_dir(sandbox.path("tree")).unwrap().count(), 0);

        let (sandbox, run) = while_fetching(name, |tree| fs::write(tree, "precious").unwrap());
        run.exits(5);
        assert_eq!(fs::read(sandbox.path("tree")).unwrap(), b"precious");
        assert_eq!(temporaries(&sandbox), [""; 0]);

        let (sandbox, run) = while_fetching(name, |tree| {
            std::os::unix::fs::symlink("nowhere", tree).unwrap();
        });
        run.exits(5);
        assert_eq!(
            fs::read_link(sandbox.path("tree")).unwrap(),
            PathBuf::from("nowhere")
        );
        assert!(!sandbox.path("nowhere").exists());
    }
}

#[test]
fn two_processes_with_one_destination_produce_one_tree() {
    let (sandbox, fixture) = only("none");
    let requests = AtomicUsize::new(0);
    let second_is_done = Arc::new(AtomicBool::new(false));
    let done = Arc::clone(&second_is_done);
    let server = Server::start(move |request| {
        let is_first_nar =
            request.path.starts_with("/nar/") && requests.fetch_add(1, Ordering::Relaxed) == 0;
        assert!(!is_first_nar || wait_until(|| done.load(Ordering::Relaxed)));
        Reply::file_or_range(&fixture.dir, request)
    });
    let first = start(&sandbox, &server.url(), "tree");
    assert!(wait_until(|| server.requests_for("/nar/") == 1));
    output(&sandbox, &server.url(), "tree")
        .exits(0)
        .prints("tree\n");
    second_is_done.store(true, Ordering::Relaxed);
    first
        .end()
        .exits(5)
        .prints("")
        .says("was created by another process meanwhile");
    assert_tree(&sandbox, "tree");
    assert_eq!(temporaries(&sandbox), [""; 0]);
}

#[test]
fn an_existing_destination_is_not_changed() {
    let sandbox = Sandbox::new();
    let precious = sandbox.path("precious");
    let make: [&dyn Fn(&Path); 4] = [
        &|tree| fs::write(tree, "precious").unwrap(),
        &|tree| fs::create_dir(tree).unwrap(),
        &|tree| std::os::unix::fs::symlink(&precious, tree).unwrap(),
        &|tree| {
            fs::write(&precious, "precious").unwrap();
            std::os::unix::fs::symlink(&precious, tree).unwrap();
        },
    ];
    for make in make {
        let tree = sandbox.path("tree");
        make(&tree);
        let before = tree.symlink_metadata().unwrap();
        output(&sandbox, &Kind::Guix.url(), "notes")
            .exits(2)
            .says("already exists");
        let after = tree.symlink_metadata().unwrap();
        assert_eq!(after.modified().unwrap(), before.modified().unwrap());
        assert_eq!(after.file_type(), before.file_type());
        remove(&tree);
    }
    assert_eq!(fs::read(&precious).unwrap(), b"precious");
}

/// Removes what is at `path`; directories of store items are read-only.
fn remove(path: &Path) {
    if path.symlink_metadata().unwrap().is_dir() {
        crate::support::sandbox::make_writable(path);
        fs::remove_dir_all(path).unwrap();
    } else {
        fs::remove_file(path).unwrap();
    }
}
