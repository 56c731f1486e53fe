//! Servers with an authorized key that send too little, too late, or nothing at all: the server
//! behind them is used soon, with the default settings.

use std::time::{Duration, Instant};

use crate::support::memory::run_with_little_memory;
use crate::support::publisher::{Publisher, command, contents};
use crate::support::sandbox::run;
use crate::support::{Reply, Sandbox, Server};

/// Far more than needed: other tests run in parallel. The slow servers take hours.
const SOON: Duration = Duration::from_secs(40);

/// A slow way to answer for the file that `Reply` has.
type Slowdown = fn(Reply) -> Reply;

fn drip(mut reply: Reply) -> Reply {
    reply.drip = Some((1, Duration::from_secs(1)));
    reply
}

fn stop(mut reply: Reply) -> Reply {
    reply.stall_at = Some(10);
    reply
}

fn silent(mut reply: Reply) -> Reply {
    reply.is_silent = true;
    reply
}

fn interim(reply: Reply) -> Reply {
    let mut reply = silent(reply);
    reply.meanwhile = "HTTP/1.1 103 Early Hints\r\n\r\n";
    reply
}

/// Breaks off after a while; so it does when the rest is requested.
fn drip_and_break(reply: Reply) -> Reply {
    let mut reply = reply.cut_at(3);
    reply.drip = Some((1, Duration::from_millis(900)));
    reply
}

fn empty_lines(reply: Reply) -> Reply {
    let mut reply = silent(reply);
    reply.meanwhile = "\r\n";
    reply
}

const SLOWDOWNS: [(&str, Slowdown); 6] = [
    ("drip", drip),
    ("drip and break", drip_and_break),
    ("stop", stop),
    ("silent", silent),
    ("interim", interim),
    ("empty lines", empty_lines),
];

/// `item` is fetched although the preferred server is slow with what ends with `slow_file`.
#[track_caller]
fn assert_other_server_is_used(slow_file: &'static str) {
    for (name, slowdown) in SLOWDOWNS {
        let sandbox = Sandbox::new();
        let [slow, good] = ["slow", "good"].map(|name| Publisher::new(&sandbox, name, 1));
        Publisher::trust(&sandbox, &[&good]);
        let text = "x".repeat(100_000);
        let item = good.publish_file('1', &text, "");
        slow.publish_file('1', &text, "");

        let dir = slow.dir.clone();
        let servers = [
            Server::start(move |request| {
                let reply = Reply::file(&dir, request);
                match request.path.ends_with(slow_file) {
                    true => slowdown(reply),
                    false => reply,
                }
            }),
            Server::of(good.dir.clone()),
        ];
        let urls = format!("{} {}", servers[0].url(), servers[1].url());
        let mut fetch = command(&sandbox, &urls, &["fetch", &item]);
        // Silence alone ends neither.
        fetch.args(["--stall-timeout", "600"]);
        let start = Instant::now();
        run_with_little_memory(fetch).exits(0);
        eprintln!("{name}: {:?}", start.elapsed());
        assert!(start.elapsed() < SOON, "{name}: {:?}", start.elapsed());
        assert_eq!(contents(&sandbox, &item), text, "{name}");
        assert_eq!(servers[1].requests_for("/1.nar"), 1, "{name}");
    }
}

#[test]
fn another_server_is_used_when_a_nar_arrives_too_slowly() {
    assert_other_server_is_used("/1.nar");
}

#[test]
fn another_server_is_used_when_a_narinfo_arrives_too_slowly() {
    assert_other_server_is_used(".narinfo");
}

/// Longer than a server has for its first byte as long as another one may have the item.
const SLOW_START: Duration = Duration::from_secs(4);

/// A server of `publisher` that is slow to answer for nars.
fn slow_to_start(publisher: &Publisher) -> Server {
    let dir = publisher.dir.clone();
    Server::start(move |request| {
        if request.path.ends_with(".nar") {
            std::thread::sleep(SLOW_START);
        }
        Reply::file(&dir, request)
    })
}

#[test]
fn the_only_server_that_has_an_item_has_time_to_answer() {
    let sandbox = Sandbox::new();
    let [slow, empty] = ["slow", "empty"].map(|name| Publisher::new(&sandbox, name, 1));
    Publisher::trust(&sandbox, &[&slow]);
    let item = slow.publish_file('1', "slow", "");
    let servers = [slow_to_start(&slow), Server::of(empty.dir)];
    let urls = format!("{} {}", servers[0].url(), servers[1].url());
    run(command(&sandbox, &urls, &["fetch", &item])).exits(0);
    assert_eq!(contents(&sandbox, &item), "slow");
}

#[test]
fn an_item_is_fetched_when_all_its_servers_are_slow_to_answer() {
    let sandbox = Sandbox::new();
    let publishers = ["one", "other"].map(|name| Publisher::new(&sandbox, name, 1));
    Publisher::trust(&sandbox, &[&publishers[0]]);
    let items = publishers
        .each_ref()
        .map(|publisher| publisher.publish_file('1', "slow", ""));
    let servers = publishers.each_ref().map(slow_to_start);
    let urls = format!("{} {}", servers[0].url(), servers[1].url());
    run(command(&sandbox, &urls, &["fetch", &items[0]])).exits(0);
    assert_eq!(contents(&sandbox, &items[0]), "slow");
}
