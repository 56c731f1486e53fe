//! A run that is stopped (SIGSTOP) while a server answers, for longer than the server may take:
//! that is not the server's fault, and nothing is requested again.

use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::publisher::{Publisher, command, contents};
use crate::support::sandbox::Running;
use crate::support::{Reply, Sandbox, Server};

/// What the server may take, and far longer than that.
const STALL_TIMEOUT_SECS: &str = "2";
const PAUSE: Duration = Duration::from_secs(5);

/// What the client has of a response when it is stopped.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Received {
    Nothing,
    Half,
}

/// Stops a fetch after it has requested the file that ends with `file`, which is answered (or the
/// rest of it is) while the process is stopped.
#[track_caller]
fn assert_pause_does_no_harm(file: &'static str, received: Received) {
    let sandbox = Sandbox::new();
    let publisher = Publisher::new(&sandbox, "server", 1);
    Publisher::trust(&sandbox, &[&publisher]);
    let text = "x".repeat(100_000);
    let item = publisher.publish_file('1', &text, "");

    let dir = publisher.dir.clone();
    let (requested, has_requested) = channel();
    let (may_answer, answer_allowed) = channel::<()>();
    let answer_allowed = Mutex::new(answer_allowed);
    let server = Server::start(move |request| {
        let mut reply = Reply::file(&dir, request);
        if !request.path.ends_with(file) {
            return reply;
        }

        let _ = requested.send(());
        // Ends when the sender is dropped: a repeated request is answered at once.
        let _ = answer_allowed.lock().unwrap().recv();
        if received == Received::Half {
            reply.drip = Some((60_000, Duration::from_secs(1)));
        }
        reply
    });

    let mut fetch = command(&sandbox, &server.url(), &["fetch", &item]);
    // A response begins within the longer of both.
    fetch.args(["--stall-timeout", STALL_TIMEOUT_SECS]);
    fetch.args(["--connect-timeout", STALL_TIMEOUT_SECS]);
    fetch.env("SUBST_LOG", "debug");
    let running = Running::start(fetch, "");
    has_requested.recv().unwrap();
    if received == Received::Half {
        drop(may_answer);
        std::thread::sleep(Duration::from_millis(500));
        running.signal(Signal::STOP);
    } else {
        running.signal(Signal::STOP);
        drop(may_answer);
    }
    std::thread::sleep(PAUSE);
    running.signal(Signal::CONT);

    let ended = running.end().exits(0);
    assert_eq!(contents(&sandbox, &item), text);
    let (asked, log) = (server.asked(), &ended.stderr);
    assert_eq!(server.requests_for(file), 1, "{asked:?}\n{log}");
}

#[test]
fn a_lookup_is_not_repeated_after_a_pause() {
    assert_pause_does_no_harm(".narinfo", Received::Nothing);
}

#[test]
fn a_nar_is_not_requested_again_after_a_pause_before_its_head() {
    assert_pause_does_no_harm("/1.nar", Received::Nothing);
}

#[test]
fn a_nar_is_not_requested_again_after_a_pause_inside_its_body() {
    assert_pause_does_no_harm("/1.nar", Received::Half);
}
