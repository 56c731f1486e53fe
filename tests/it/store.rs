//! What comes into the store is what stock programs make of the same server: entry by entry,
//! row by row, for each compression method and both dialects.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use crate::faults::limits::has_strace;
use crate::support::listing::{items, links, names, rows, sorted_lines, tree};
use crate::support::sandbox::{Running, run};
use crate::support::{Fixture, Kind, Reply, Sandbox, Server, item, wait_until};

/// The store and the state directory that a fetch of everything from `url` makes.
fn fetch_all(sandbox: &Sandbox, kind: Kind, url: &str) {
    let top = kind.item("sample");
    let printed = run(sandbox.command(kind, url, &["fetch", &top])).exits(0);
    printed.prints(&format!("{top}\n"));
}

#[track_caller]
fn assert_as_expected(kind: Kind, store: &Path, state: &Path) {
    let expected = kind.expected();
    assert_eq!(items(store), sorted_lines(&expected.join("expected.txt")));
    let expected_rows = std::fs::read_to_string(expected.join("expected-rows.txt")).unwrap();
    let expected_rows: Vec<_> = expected_rows.lines().collect();
    assert_eq!(rows(&state.join("db/db.sqlite")), expected_rows);
    assert!(
        names(&state.join("temproots")).is_empty(),
        "temp roots are left"
    );
}

#[track_caller]
fn assert_guix_as_expected(sandbox: &Sandbox) {
    assert_as_expected(
        Kind::Guix,
        &sandbox.store(),
        &sandbox.root().join("var/guix"),
    );
    let expected = sorted_lines(&Kind::Guix.directory().join("expected-links.txt"));
    assert_eq!(links(&sandbox.store()), expected);
}

/// From a copy of the Guix server that offers one method only, as a directory and over HTTP.
#[track_caller]
fn only_by(method: &str) {
    let sandbox = Sandbox::new();
    let fixture = Fixture::copy(Kind::Guix, sandbox.path("server"));
    if method == "bzip2" {
        fixture.only_bzip2();
    } else {
        fixture.only(method);
    }
    fetch_all(&sandbox, Kind::Guix, &fixture.url());
    assert_guix_as_expected(&sandbox);

    let sandbox = Sandbox::new();
    let server = Server::of(fixture.dir.clone());
    fetch_all(&sandbox, Kind::Guix, &server.url());
    assert_guix_as_expected(&sandbox);
    let directory = if method == "none" {
        "/nar/"
    } else {
        &*format!("/nar/{method}/")
    };
    assert_eq!(server.requests_for(directory), 7, "{:?}", server.asked());
    assert_eq!(
        server.requests_for("/nar/"),
        7,
        "each nar once, no other method"
    );
}

#[test]
fn guix_by_zstd() {
    only_by("zstd");
}

#[test]
fn guix_by_lzip() {
    only_by("lzip");
}

#[test]
fn guix_by_gzip() {
    only_by("gzip");
}

#[test]
fn guix_by_xz() {
    only_by("xz");
}

#[test]
fn guix_by_bzip2() {
    only_by("bzip2");
}

#[test]
fn guix_uncompressed() {
    only_by("none");
}

#[test]
fn guix_as_it_was_published() {
    let sandbox = Sandbox::new();
    fetch_all(&sandbox, Kind::Guix, &Kind::Guix.url());
    assert_guix_as_expected(&sandbox);
}

#[test]
fn nix_by_brotli() {
    nix(Kind::NixBrotli);
}

#[test]
fn nix_by_lz4() {
    nix(Kind::NixLz4);
}

#[test]
fn nix_by_xz() {
    nix(Kind::NixXz);
}

#[test]
fn nix_by_zstd() {
    nix(Kind::NixZstd);
}

/// Nars of several pieces, decoded by several threads where there are as many cores.
#[test]
fn nix_by_zstd_in_frames() {
    nix_repacked("zstd", |nar| {
        let frames = nar
            .chunks(64 << 10)
            .map(|part| zstd::bulk::compress(part, 3).unwrap());
        frames.collect::<Vec<_>>().concat()
    });
}

#[test]
fn nix_by_xz_in_blocks() {
    nix_repacked("xz", |nar| {
        let mut blocks = liblzma::stream::MtStreamBuilder::new();
        let blocks = blocks
            .preset(1)
            .threads(2)
            .block_size(32 << 10)
            .encoder()
            .unwrap();
        let mut packed = Vec::new();
        let mut encoder = liblzma::read::XzEncoder::new_stream(nar, blocks);
        std::io::Read::read_to_end(&mut encoder, &mut packed).unwrap();
        packed
    });
}

#[track_caller]
fn nix_repacked(method: &str, pack: impl Fn(&[u8]) -> Vec<u8>) {
    let sandbox = Sandbox::new();
    let fixture = Fixture::copy(Kind::NixZstd, sandbox.path("server"));
    fixture.repack(method, pack);
    fetch_all(&sandbox, Kind::NixZstd, &fixture.url());
    let root = sandbox.root();
    assert_as_expected(
        Kind::NixZstd,
        &root.join("nix/store"),
        &root.join("nix/var/nix"),
    );
}

#[track_caller]
fn nix(kind: Kind) {
    let sandbox = Sandbox::new();
    fetch_all(&sandbox, kind, &kind.url());
    let root = sandbox.root();
    assert_as_expected(kind, &root.join("nix/store"), &root.join("nix/var/nix"));
}

#[test]
fn equal_files_are_one_file() {
    let sandbox = Sandbox::new();
    fetch_all(&sandbox, Kind::Guix, &Kind::Guix.url());
    let inode = |name: &str, file: &str| {
        let path = sandbox.root().join(&item(name)[1..]).join(file);
        path.metadata().unwrap().ino()
    };
    assert_eq!(inode("copy", "one"), inode("copy", "two"));
    for name in links(&sandbox.store()) {
        let link = sandbox
            .store()
            .join(".links")
            .join(&name)
            .metadata()
            .unwrap();
        assert!(link.nlink() > 1, "{name} stands for nothing");
    }
}

/// Item by item, references first: each must find what the one before has left.
#[test]
fn fetching_items_one_by_one_gives_the_same_store() {
    let sandbox = Sandbox::new();
    for name in [
        "notes", "tools", "tree", "copy", "link", "program", "sample",
    ] {
        let arguments = ["fetch", "--no-references", &item(name)];
        sandbox.subst(&Kind::Guix.url(), &arguments).exits(0);
    }
    assert_guix_as_expected(&sandbox);
}

#[test]
fn an_unregistered_tree_is_replaced() {
    let sandbox = Sandbox::new();
    let notes = item("notes");
    sandbox
        .subst(&Kind::Guix.url(), &["fetch", &notes])
        .exits(0);
    let stray = sandbox.root().join(&item("tools")[1..]);
    std::fs::create_dir_all(stray.join("half/of/it")).unwrap();
    std::fs::write(
        sandbox
            .store()
            .join(format!("{}.lock", item("tree").rsplit('/').next().unwrap())),
        "",
    )
    .unwrap();
    fetch_all(&sandbox, Kind::Guix, &Kind::Guix.url());
    assert_guix_as_expected(&sandbox);
}

#[test]
fn a_second_fetch_sends_no_requests() {
    let sandbox = Sandbox::new();
    let server = Server::of(Kind::Guix.directory());
    fetch_all(&sandbox, Kind::Guix, &server.url());
    let asked = server.asked();
    assert_eq!(server.requests_for(".narinfo"), 7, "{asked:?}");
    fetch_all(&sandbox, Kind::Guix, &server.url());
    assert_eq!(server.asked(), asked);
}

/// Gives a new directory at `path` a default ACL with these permissions for the owner, the group
/// and others. `false` where there are no ACLs.
fn make_directory_with_acl(path: &Path, permissions: [u16; 3]) -> bool {
    std::fs::create_dir(path).unwrap();
    let mut value = 2u32.to_le_bytes().to_vec();
    for (tag, permissions) in [0x01, 0x04, 0x20u16].into_iter().zip(permissions) {
        value.extend([tag.to_le_bytes(), permissions.to_le_bytes()].concat());
        value.extend(u32::MAX.to_le_bytes());
    }
    match rustix::fs::setxattr(
        path,
        c"system.posix_acl_default",
        &value,
        XattrFlags::empty(),
    ) {
        Err(Errno::OPNOTSUPP) => {
            eprintln!(
                "left out: there are no ACLs on the file system of {}",
                path.display()
            );
            false
        }
        set => set.map(|()| true).unwrap(),
    }
}

#[test]
fn a_default_acl_of_the_root_does_not_change_items() {
    for permissions in [[7, 5, 0], [7, 5, 6], [7, 7, 7], [6, 5, 5]] {
        let sandbox = Sandbox::new();
        if !make_directory_with_acl(&sandbox.root(), permissions) {
            return;
        }
        fetch_all(&sandbox, Kind::Guix, &Kind::Guix.url());
        assert_guix_as_expected(&sandbox);

        let state = sandbox.root().join("var/guix");
        let made = [
            sandbox.store(),
            sandbox.store().join(".links"),
            state.join("db"),
            state,
        ];
        for directory in made {
            let mode = directory.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o7722, 0o700, "{}: {mode:o}", directory.display());
        }
    }
}

#[test]
fn a_default_acl_does_not_change_the_output() {
    let sandbox = Sandbox::new();
    let directory = sandbox.path("shared");
    if !make_directory_with_acl(&directory, [7, 5, 6]) {
        return;
    }
    let expected = sorted_lines(&Kind::Guix.directory().join("expected.txt"));
    for name in ["tools", "tree", "program"] {
        let (output, item) = (directory.join(name), item(name));
        let arguments = ["fetch", "--output", output.to_str().unwrap(), &item];
        sandbox.subst(&Kind::Guix.url(), &arguments).exits(0);

        let base = item.rsplit('/').next().unwrap();
        let is_of_item = |line: &&String| {
            let rest = line.strip_prefix(base);
            rest.is_some_and(|rest| rest.starts_with('/') || rest.starts_with('\t'))
        };
        let expected: Vec<_> = expected.iter().filter(is_of_item).cloned().collect();
        assert_eq!(tree(&output, base), expected);
    }
}

/// Everything below `directory` and itself that does not belong to the user `owner`.
fn of_others(directory: &Path, owner: u32) -> Vec<String> {
    let mut others = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(path) = open.pop() {
        let metadata = path.symlink_metadata().unwrap();
        if (metadata.uid(), metadata.gid()) != (owner, owner) {
            others.push(path.display().to_string());
        }
        if metadata.is_dir() {
            let entries = std::fs::read_dir(&path).unwrap();
            open.extend(entries.map(|entry| entry.unwrap().path()));
        }
    }
    others.sort();
    others
}

#[test]
fn what_root_fetches_into_the_store_of_another_user_belongs_to_that_user() {
    const OWNER: u32 = 4711;
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let sandbox = Sandbox::new();
    let url = Kind::Guix.url();
    run(sandbox.command(Kind::Guix, &url, &["fetch", &item("notes")])).exits(0);
    // As the daemon of that user has made them; what has several names is one of its files, too.
    let store = sandbox.store();
    let state = sandbox.root().join("var/guix");
    give_to(OWNER, &[&store, &state]);

    let server = Server::of(Kind::Guix.directory());
    let top = item("sample");
    let stalled = Server::start(|request| {
        let mut reply = Reply::file(&Kind::Guix.directory(), request);
        reply.is_silent = request.path.contains("/nar/");
        reply
    });
    let fetch = sandbox.command(Kind::Guix, &stalled.url(), &["fetch", &top]);
    let mut running = Running::start(fetch, "");
    assert!(wait_until(|| stalled.requests_for("/nar/") > 0));
    // What the collector meets beside a running fetch, and after one that was killed.
    running.kill();
    assert!(!names(&state.join("temproots")).is_empty());
    let locks = names(&store);
    let locks = locks.iter().filter(|name| name.ends_with(".lock"));
    assert!(locks.count() > 0);
    let cache = state.join("subst").display().to_string();
    let of_others = |directory| {
        let mut others = of_others(directory, OWNER);
        others.retain(|path| !path.starts_with(&cache));
        others
    };
    assert_eq!(of_others(&store), [""; 0]);
    assert_eq!(of_others(&state), [""; 0]);

    run(sandbox.command(Kind::Guix, &server.url(), &["fetch", &top])).exits(0);
    assert_guix_as_expected(&sandbox);
    assert_eq!(of_others(&store), [""; 0]);
    assert_eq!(of_others(&state), [""; 0]);
}

#[test]
fn the_roots_that_root_makes_in_the_store_of_another_user_belong_to_that_user() {
    const OWNER: u32 = 4711;
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let sandbox = Sandbox::new();
    let url = Kind::Guix.url();
    run(sandbox.command(Kind::Guix, &url, &["fetch", &item("notes")])).exits(0);
    let state = sandbox.root().join("var/guix");
    give_to(OWNER, &[&sandbox.store(), &state]);

    let fetch = ["fetch", "--gc-root", "ci", &item("tools"), &item("notes")];
    run(sandbox.command(Kind::Guix, &url, &fetch)).exits(0);
    let roots = state.join("gcroots");
    assert!(roots.join("subst/ci:1").is_symlink() && roots.join("profiles").is_symlink());
    assert_eq!(of_others(&roots, OWNER), [""; 0]);
}

#[test]
fn a_killed_fetch_of_root_leaves_what_the_collector_of_another_user_can_remove() {
    const OWNER: u32 = 4711;
    if !rustix::process::geteuid().is_root() || !has_strace() {
        return;
    }
    for kill in 1..=24 {
        let sandbox = Sandbox::new();
        let url = Kind::Guix.url();
        run(sandbox.command(Kind::Guix, &url, &["fetch", &item("notes")])).exits(0);
        let store = sandbox.store();
        let state = sandbox.root().join("var/guix");
        give_to(OWNER, &[&store, &state]);

        // The system call by which root could give things away.
        let inject = format!("inject=fchownat:signal=KILL:when={kill}");
        let fetch = sandbox.command(Kind::Guix, &url, &["fetch", &item("sample")]);
        let mut traced = std::process::Command::new("sh");
        traced.args(["-c", "umask 022; exec \"$@\"", "sh"]);
        traced.args([
            "strace",
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            "trace=fchownat",
        ]);
        traced.args(["-e", &inject]);
        traced.arg(fetch.get_program()).args(fetch.get_args());
        for (name, value) in fetch.get_envs() {
            match value {
                Some(value) => traced.env(name, value),
                None => traced.env_remove(name),
            };
        }
        run(traced);

        let mut of_root = of_others(&store, OWNER);
        of_root.retain(|path| {
            let metadata = Path::new(path).symlink_metadata().unwrap();
            let can_be_removed = metadata.permissions().mode() & 0o777 == 0o755
                && std::fs::read_dir(path).unwrap().next().is_none();
            metadata.is_dir() && metadata.uid() == 0 && !can_be_removed
        });
        // The collector opens temp roots and locks to write to them.
        of_root.extend(of_others(&state.join("temproots"), OWNER));
        let locks = of_others(&store, OWNER).into_iter();
        of_root.extend(locks.filter(|path| path.ends_with(".lock")));
        assert_eq!(of_root, [""; 0], "{kill}");
    }
}

/// Gives everything in `directories` to the user and the group of this number.
fn give_to(owner: u32, directories: &[&Path]) {
    let mut chown = std::process::Command::new("chown");
    chown.args(["-hR", &format!("{owner}:{owner}")]);
    assert!(chown.args(directories).status().unwrap().success());
}
