//! Nars that take more of this machine than the right one: file descriptors, memory, entries of the
//! file system. They are not verified, so another server's nar is used.

use std::process::Command;

use subst::format::nar::{EntryName, NarWriter};

use crate::faults::limits::with_limit;
use crate::support::fixture::base;
use crate::support::mounts::unshare_flags;
use crate::support::sandbox::run;
use crate::support::{Fixture, Kind, Reply, Run, Sandbox, Server, item};

/// A right server, and one with the same narinfos and another nar for `tree`.
struct TwoServers {
    sandbox: Sandbox,
    wrong: Server,
    right: Server,
}

impl TwoServers {
    fn new(nar: Vec<u8>) -> Self {
        let sandbox = Sandbox::new();
        let fixture = Fixture::copy(Kind::Guix, sandbox.path("server"));
        fixture.only("zstd");
        let directory = fixture.dir.clone();
        let path = format!("/nar/zstd/{}", base(&item("tree")));
        let wrong = Server::start(move |request| {
            if request.path == path {
                return Reply::new("200 OK", nar.clone());
            }
            Reply::file(&directory, request)
        });
        Self {
            sandbox,
            wrong,
            right: Server::of(fixture.dir),
        }
    }

    fn urls(&self) -> String {
        format!("{} {}", self.wrong.url(), self.right.url())
    }

    /// The wrong nar was requested once, and the item is from the right server.
    #[track_caller]
    fn right_one_is_used(&self, ended: Run) {
        ended.exits(0).prints(&format!("{}\n", item("sample")));
        let nar = format!("/nar/zstd/{}", base(&item("tree")));
        assert_eq!(self.right.requests_for(&nar), 1);
        assert!(self.wrong.requests_for(&nar) > 0);
    }
}

/// A compressed nar of this many empty directories, each in the one before, or side by side.
fn directories(count: usize, are_nested: bool) -> Vec<u8> {
    let mut writer = NarWriter::new(Vec::new());
    writer.directory(None).unwrap();
    for number in 0..count {
        let name = EntryName::new(format!("{number:05}").as_bytes()).unwrap();
        writer.directory(Some(&name)).unwrap();
        if !are_nested {
            writer.end_directory().unwrap();
        }
    }
    for _ in 0..if are_nested { count } else { 0 } {
        writer.end_directory().unwrap();
    }
    writer.end_directory().unwrap();
    zstd::encode_all(&*writer.finish().unwrap(), 3).unwrap()
}

#[test]
fn another_server_is_used_when_a_nar_has_more_levels_than_files_can_be_open() {
    let servers = TwoServers::new(directories(600, true));
    let ended = with_limit(&servers.sandbox, "-n 256", &servers.urls());
    servers.right_one_is_used(ended);

    let servers = TwoServers::new(directories(600, true));
    let ended = with_limit(&servers.sandbox, "-n 256", &servers.wrong.url());
    ended.exits(5).says("Too many open files");
}

#[test]
fn another_server_is_used_when_there_is_too_little_memory_for_a_window() {
    let window = b"\x28\xb5\x2f\xfd\0\0\x01\0\0\x28\xb5\x2f\xfd\0\x88\x01\0\0";
    let servers = TwoServers::new(window.to_vec());
    let ended = with_limit(&servers.sandbox, "-v 180000", &servers.urls());
    servers.right_one_is_used(ended);
}

#[test]
fn another_server_is_used_when_a_nar_has_more_entries_than_fit_on_the_disk() {
    let Some(flags) = unshare_flags() else {
        return;
    };
    let servers = TwoServers::new(directories(1500, false));
    let root = servers.sandbox.root();
    std::fs::create_dir(&root).unwrap();
    let script = format!(
        "mount -t tmpfs -o size=50m,nr_inodes=600 none '{root}' || exit 77
         exec '{program}' fetch --root '{root}' '{item}' --acl '{fixtures}/acl' \
             --substitute-urls '{urls}'",
        root = root.display(),
        program = env!("CARGO_BIN_EXE_subst"),
        item = item("sample"),
        fixtures = Kind::Guix.directory().display(),
        urls = servers.urls(),
    );
    let mut command = Command::new("unshare");
    command
        .args([flags, "sh", "-c", &script])
        .env("SUBST_CONFIG", servers.sandbox.path("config.toml"));
    servers.right_one_is_used(run(command));
}
