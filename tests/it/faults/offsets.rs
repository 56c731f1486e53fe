//! Nars that break off or are wrong at offsets from their first byte to their last, for each
//! compression method. `SUBST_TEST_OFFSETS=500` tries so many offsets instead of a few.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{assert_tree, only, output};
use crate::support::fixture::flip;
use crate::support::{Fixture, Kind, Reply, Sandbox, Server, item, spread};

/// More bytes than the file has, of which one may come again: one part in so many.
const EXTRA_PART: u64 = 20;

/// A server of a directory that cuts the next response with a nar, and counts the bytes of nars.
struct CuttingServer {
    server: Server,
    cut_at: Arc<Mutex<Option<usize>>>,
    sent: Arc<AtomicU64>,
}

impl CuttingServer {
    fn start(fixture: &Fixture, gives_ranges: bool) -> Self {
        let (cut_at, sent) = (Arc::new(Mutex::new(None)), Arc::new(AtomicU64::new(0)));
        let (directory, next_cut, counter) =
            (fixture.dir.clone(), Arc::clone(&cut_at), Arc::clone(&sent));
        let server = Server::start(move |request| {
            let mut reply = match gives_ranges {
                true => Reply::file_or_range(&directory, request),
                false => Reply::file(&directory, request),
            };
            if request.path.starts_with("/nar/") {
                reply.cut_at = next_cut.lock().unwrap().take();
                let length = reply.cut_at.unwrap_or(reply.body.len());
                counter.fetch_add(length as u64, Ordering::Relaxed);
            }
            reply
        });
        Self {
            server,
            cut_at,
            sent,
        }
    }
}

/// Every cut is resumed: the tree is right, and little is sent again by a server with ranges.
#[track_caller]
fn cuts_are_resumed(method: &str) {
    let (sandbox, fixture) = only(method);
    let length = std::fs::read(fixture.nar(&item("tree"), method))
        .unwrap()
        .len();
    for gives_ranges in [true, false] {
        let cutting = CuttingServer::start(&fixture, gives_ranges);
        for offset in spread(4, length) {
            *cutting.cut_at.lock().unwrap() = Some(offset);
            cutting.sent.store(0, Ordering::Relaxed);
            output(&sandbox, &cutting.server.url(), "tree").exits(0);

            assert_tree(&sandbox, "tree");
            make_writable_and_remove(&sandbox);
            let extra = cutting.sent.load(Ordering::Relaxed) - length as u64;
            assert!(
                !gives_ranges || extra <= length as u64 / EXTRA_PART,
                "{method}, cut at {offset} of {length}: {extra} bytes were sent again"
            );
        }
    }
}

/// The nar of a server with one wrong bit is fetched from the next one, wherever the bit is.
#[track_caller]
fn corrupt_nars_are_fetched_elsewhere(method: &str) {
    let (sandbox, fixture) = only(method);
    let good = Fixture::copy(Kind::Guix, sandbox.path("good"));
    let urls = format!("{} {}", fixture.url(), good.url());
    let nar = fixture.nar(&item("tree"), method);
    let length = std::fs::read(&nar).unwrap().len();
    for position in spread(4, length) {
        flip(&nar, position);
        output(&sandbox, &urls, "tree").exits(0);
        flip(&nar, position);

        assert_tree(&sandbox, "tree");
        make_writable_and_remove(&sandbox);
    }
}

fn make_writable_and_remove(sandbox: &Sandbox) {
    let tree = sandbox.path("tree");
    crate::support::sandbox::make_writable(&tree);
    std::fs::remove_dir_all(tree).unwrap();
}

#[test]
fn cut_uncompressed_nars_are_resumed() {
    cuts_are_resumed("none");
}

#[test]
fn cut_gzip_nars_are_resumed() {
    cuts_are_resumed("gzip");
}

#[test]
fn cut_xz_nars_are_resumed() {
    cuts_are_resumed("xz");
}

#[test]
fn cut_lzip_nars_are_resumed() {
    cuts_are_resumed("lzip");
}

#[test]
fn cut_zstd_nars_are_resumed() {
    cuts_are_resumed("zstd");
}

#[test]
fn corrupt_nars_of_every_method_are_fetched_elsewhere() {
    for method in ["none", "gzip", "xz", "lzip", "zstd"] {
        corrupt_nars_are_fetched_elsewhere(method);
    }
}
