//! Nars that are requested before a worker takes their items.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::memory::run_with_little_memory;
use crate::support::publisher::{Publisher, command, contents, file_nar, installed, name};
use crate::support::sandbox::{Running, run};
use crate::support::{Reply, Sandbox, Server, files_below, wait_until};

/// Publishes a small file as the item `digit`, with the size of its nar.
fn publish(publisher: &Publisher, digit: char, references: &str) -> String {
    let nar = file_nar(&[digit as u8; 1000]);
    let size = nar.len() as u64;
    let downloads = format!("URL: {digit}.nar\nCompression: none\nFileSize: {size}\n");
    publisher.publish(digit, &nar, size, references);
    publisher.describe(digit, &nar, size, references, &downloads)
}

fn publisher(sandbox: &Sandbox) -> Publisher {
    let publisher = Publisher::new(sandbox, "server", 1);
    Publisher::trust(sandbox, &[&publisher]);
    publisher
}

#[test]
fn a_nar_is_requested_while_references_are_looked_up() {
    let sandbox = Sandbox::new();
    let publisher = publisher(&sandbox);
    let reference = publish(&publisher, '2', "");
    let top = publish(&publisher, '1', reference.trim_start_matches("/gnu/store/"));

    // The narinfo of the reference comes after the nar of what refers to it, if that is requested at all.
    let is_requested = Arc::new(AtomicBool::new(false));
    let directory = publisher.dir.clone();
    let narinfo = publisher.narinfo('2');
    let server = Server::start(move |request| {
        if request.path.ends_with("/1.nar") {
            is_requested.store(true, Ordering::Relaxed);
        }
        let is_held = narinfo.ends_with(request.path.trim_start_matches('/'));
        match is_held && !wait_until(|| is_requested.load(Ordering::Relaxed)) {
            true => Reply::not_found(),
            false => Reply::file(&directory, request),
        }
    });
    run(command(&sandbox, &server.url(), &["fetch", &top])).exits(0);
    assert!(installed(&sandbox, &top).exists() && installed(&sandbox, &reference).exists());
    assert_eq!(
        server.requests_for(".nar"),
        2 + 2,
        "each once, and narinfos"
    );
}

#[test]
fn what_was_requested_for_a_closure_with_a_missing_item_is_thrown_away() {
    let sandbox = Sandbox::new();
    let publisher = publisher(&sandbox);
    let reference = publish(&publisher, '2', "");
    let top = publish(&publisher, '1', reference.trim_start_matches("/gnu/store/"));
    std::fs::remove_file(publisher.narinfo('2')).unwrap();
    let server = Server::of(publisher.dir.clone());
    run(command(&sandbox, &server.url(), &["fetch", &top])).exits(1);
    assert!(!installed(&sandbox, &top).exists());
    let left = std::fs::read_dir(sandbox.root().join("gnu/store")).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, [".links"]);
}

#[test]
fn a_nar_that_was_not_given_ahead_of_time_is_requested_again() {
    let sandbox = Sandbox::new();
    let publisher = publisher(&sandbox);
    let items: Vec<String> = ('1'..='8')
        .map(|digit| publish(&publisher, digit, ""))
        .collect();
    let directory = publisher.dir.clone();
    let failures = AtomicUsize::new(0);
    let server = Server::start(move |request| {
        let is_nar = request.path.ends_with(".nar");
        match is_nar && failures.fetch_add(1, Ordering::Relaxed) < 4 {
            true => Reply::new("503 Service Unavailable", "busy"),
            false => Reply::file(&directory, request),
        }
    });
    let arguments: Vec<&str> = std::iter::once("fetch")
        .chain(items.iter().map(String::as_str))
        .collect();
    run(command(&sandbox, &server.url(), &arguments)).exits(0);
    assert!(items.iter().all(|item| installed(&sandbox, item).exists()));
}

/// How many of eight nars a server is giving at the same time to `subst fetch` with one job. It waits until
/// `expected` are requested.
fn most_at_once(expected: usize, options: &[&str], read_ahead: &str) -> usize {
    let sandbox = Sandbox::new();
    let publisher = publisher(&sandbox);
    let items: Vec<String> = ('1'..='8')
        .map(|digit| publish(&publisher, digit, ""))
        .collect();
    let directory = publisher.dir.clone();
    let (open, most) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let server = Server::start({
        let most = Arc::clone(&most);
        move |request| {
            if request.path.ends_with(".nar") {
                let now = open.fetch_add(1, Ordering::Relaxed) + 1;
                most.fetch_max(now, Ordering::Relaxed);
                wait_until(|| most.load(Ordering::Relaxed) >= expected);
                std::thread::sleep(Duration::from_millis(50));
                open.fetch_sub(1, Ordering::Relaxed);
            }
            Reply::file(&directory, request)
        }
    });

    let items = items.iter().map(String::as_str);
    let arguments: Vec<&str> = ["fetch", "--jobs", "1"]
        .into_iter()
        .chain(options.iter().copied())
        .chain(items)
        .collect();
    let mut command = command(&sandbox, &server.url(), &arguments);
    command.env("SUBST_READ_AHEAD", read_ahead);
    run(command).exits(0);
    most.load(Ordering::Relaxed)
}

#[test]
fn the_nars_requested_ahead_of_time_are_limited() {
    assert_eq!(most_at_once(1, &[], "0"), 1);
    assert!((3..=4).contains(&most_at_once(3, &[], "3")));
    // The limit is for all nars together, and the jobs themselves come first.
    assert_eq!(most_at_once(1, &["--connections", "1"], "16"), 1);
    assert!((2..=3).contains(&most_at_once(2, &["--connections", "3"], "16")));
}

/// Trusted publishers with different keys.
fn publishers(sandbox: &Sandbox, count: u8) -> Vec<Publisher> {
    let publishers: Vec<Publisher> = (1..=count)
        .map(|seed| Publisher::new(sandbox, &format!("server-{seed}"), seed))
        .collect();
    Publisher::trust(sandbox, &publishers.iter().collect::<Vec<_>>());
    publishers
}

/// A server of `publisher` whose responses that `is_held` selects wait for `signal`; without it, it does not have
/// them. A request for `nar` sets `requested`.
fn holding_server(
    publisher: &Publisher,
    is_held: impl Fn(&str) -> bool + Send + Sync + 'static,
    signal: impl Fn() -> bool + Send + Sync + 'static,
    nar: &'static str,
    requested: &Arc<AtomicBool>,
) -> Server {
    let (directory, requested) = (publisher.dir.clone(), Arc::clone(requested));
    Server::start(move |request| {
        if request.path == nar {
            requested.store(true, Ordering::Relaxed);
        }
        match is_held(&request.path) && !wait_until(&signal) {
            true => Reply::not_found(),
            false => Reply::file(&directory, request),
        }
    })
}

/// Starts `subst fetch`, which waits long for responses that are held.
fn start_fetch(sandbox: &Sandbox, urls: &str, arguments: &[&str]) -> Running {
    let arguments: Vec<&str> = ["fetch"].iter().chain(arguments).copied().collect();
    let mut command = command(sandbox, urls, &arguments);
    command.env("SUBST_STALL_TIMEOUT", "60s");
    Running::start(command, "")
}

#[test]
fn two_fetches_that_need_what_the_other_one_has_requested_in_vain_both_end() {
    let sandbox = Sandbox::new();
    let publishers = publishers(&sandbox, 4);
    let missing = name('9');
    let [first, other_first, second, other_second] = &publishers[..] else {
        unreachable!()
    };
    // The first build of each fetch refers to what the other fetch needs, and cannot be had.
    for (publisher, item, reference) in [(first, '1', '2'), (second, '4', '3')] {
        publish(publisher, item, &name(reference));
        publish(publisher, reference, &missing);
    }
    for (publisher, item, reference) in [(other_first, '1', '3'), (other_second, '4', '2')] {
        publish(publisher, reference, "");
        let nar = file_nar(b"another build");
        publisher.publish(item, &nar, nar.len() as u64, &name(reference));
    }

    let requested: [Arc<AtomicBool>; 2] = Default::default();
    let are_requested = {
        let requested = requested.clone();
        move || requested.iter().all(|it| it.load(Ordering::Relaxed))
    };
    let is_missing = |path: &str| path.starts_with("/999");
    let is_narinfo = |path: &str| path.ends_with(".narinfo");
    let servers = [
        holding_server(
            first,
            is_missing,
            are_requested.clone(),
            "/2.nar",
            &requested[0],
        ),
        holding_server(
            other_first,
            is_narinfo,
            are_requested.clone(),
            "",
            &requested[0],
        ),
        holding_server(
            second,
            is_missing,
            are_requested.clone(),
            "/3.nar",
            &requested[1],
        ),
        holding_server(other_second, is_narinfo, are_requested, "", &requested[1]),
    ];
    let urls: Vec<String> = servers.iter().map(Server::url).collect();

    let items = ['1', '4'].map(|digit| format!("/gnu/store/{}", name(digit)));
    let fetches = [
        start_fetch(&sandbox, &urls[..2].join(" "), &[&items[0]]),
        start_fetch(&sandbox, &urls[2..].join(" "), &[&items[1]]),
    ];
    for fetch in fetches {
        fetch.end().exits(0);
    }
    for item in items {
        assert!(contents(&sandbox, &item).contains("another build"));
    }
}

#[test]
fn an_item_that_is_not_in_the_plan_is_left_to_other_processes() {
    let sandbox = Sandbox::new();
    let publishers = publishers(&sandbox, 2);
    let slow = publish(&publishers[0], '1', "");
    let unusable = publish(&publishers[0], '2', &name('9'));
    publish(&publishers[1], '2', "");

    let (is_requested, is_done) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
    let directory = publishers[0].dir.clone();
    let server = Server::start({
        let (is_requested, is_done) = (Arc::clone(&is_requested), Arc::clone(&is_done));
        move |request| {
            if request.path == "/2.nar" {
                is_requested.store(true, Ordering::Relaxed);
            }
            let is_given = match request.path.as_str() {
                "/1.nar" => wait_until(|| is_done.load(Ordering::Relaxed)),
                path if path.starts_with("/999") => {
                    wait_until(|| is_requested.load(Ordering::Relaxed))
                }
                _ => true,
            };
            match is_given {
                true => Reply::file(&directory, request),
                false => Reply::not_found(),
            }
        }
    });

    // The nar of the first item is held until the other fetch has ended.
    let arguments = ["--keep-going", &slow, &unusable];
    let keep_going = start_fetch(&sandbox, &server.url(), &arguments);
    assert!(wait_until(|| is_requested.load(Ordering::Relaxed)));
    let other_server = Server::of(publishers[1].dir.clone());
    let other = start_fetch(&sandbox, &other_server.url(), &[&unusable]);
    other.end().exits(0);
    is_done.store(true, Ordering::Relaxed);
    keep_going.end().exits(1);
    assert!(installed(&sandbox, &slow).exists());
}

/// Publishes `nar` as items that each refer to the next one, and are said to be files of `file_size` bytes. Returns
/// the first item, and the path of the narinfo of the last one.
fn publish_chain(
    publisher: &Publisher,
    count: usize,
    nar: &[u8],
    file_size: usize,
) -> (String, String) {
    let names: Vec<String> = (0..count)
        .map(|number| format!("{number:032}-odd"))
        .collect();
    let size = nar.len() as u64;
    for (number, item) in names.iter().enumerate() {
        let reference = names.get(number + 1).map_or("", String::as_str);
        let downloads = format!("URL: {number}.nar\nCompression: none\nFileSize: {file_size}\n");
        publisher.describe_as(item, nar, size, reference, &downloads);
    }
    let last = format!("/{}.narinfo", &names[count - 1][..32]);
    (format!("/gnu/store/{}", names[0]), last)
}

#[test]
fn the_items_held_ahead_of_time_are_limited() {
    let sandbox = Sandbox::new();
    let publisher = publisher(&sandbox);
    let nar = file_nar(b"small");
    let (top, last) = publish_chain(&publisher, 300, &nar, nar.len());
    let (directory, root) = (publisher.dir.clone(), sandbox.root());
    let held = Arc::new(AtomicUsize::new(0));
    let server = Server::start({
        let held = Arc::clone(&held);
        move |request| {
            if request.path == last {
                let locks = files_below(&root.join("gnu/store"), ".lock");
                held.store(locks.len(), Ordering::Relaxed);
            }
            match request.path.ends_with(".nar") {
                true => Reply::new("200 OK", nar.clone()),
                false => Reply::file(&directory, request),
            }
        }
    });
    run(command(&sandbox, &server.url(), &["fetch", &top])).exits(0);
    let held = held.load(Ordering::Relaxed);
    assert!((1..=256).contains(&held), "{held}");
}

#[test]
fn a_false_file_size_takes_no_memory_ahead_of_time() {
    let sandbox = Sandbox::new();
    let publisher = publisher(&sandbox);
    let nar = file_nar(&vec![b'x'; 900_000]);
    let (top, last) = publish_chain(&publisher, 150, &nar, 1);
    // Nothing is unpacked, since an item is missing.
    std::fs::remove_file(publisher.dir.join(&last[1..])).unwrap();
    let directory = publisher.dir.clone();
    let server = Server::start(move |request| match request.path.ends_with(".nar") {
        true => Reply::new("200 OK", nar.clone()),
        false => Reply::file(&directory, request),
    });
    run_with_little_memory(command(&sandbox, &server.url(), &["fetch", &top])).exits(1);
    assert!(server.requests_for(".nar") > 150, "nars and narinfos");
}
