//! Lookups end to end: directories as servers, and sockets that never answer.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded, unbounded};

use super::engine::{LookupEngine, LookupMessage};
use super::servers::ServerState;
use super::*;
use crate::format::server_list::{PerServer, ServerIndex};
use crate::format::server_url::ServerUrl;
use crate::format::store_path::{StoreDir, StorePath};
use crate::http::Options;
use crate::lookup_cache::{LookupCache, TtlPolicy};
use crate::substitute::cancel::Cancel;
use crate::substitute::clock::Clock;
use crate::substitute::item_lookup::{ItemLookup, ItemStatus};
use crate::substitute::network::{Network, NetworkReach};
use crate::substitute::progress::{Progress, ProgressEvent};
use crate::testing::eventually;
use crate::trust::acl::{Acl, AuthorizedKeys};
use crate::trust::policy::{Objection, PolicyTerms, TrustPolicy};

const TOOLS: &str = "2fbf4kpwxg6i81i5ai6h7y8gr3vzd62g-subst-tools-1.0";
const NOTES: &str = "brvhk9q2pz7v2244vx5l34z1497khx1q-subst-notes-1.0";
const NOW: u64 = 2_000_000_000;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/guix")
}

fn path(base: &str) -> StorePath {
    StorePath::parse(base).unwrap()
}

/// Keeps the warnings that it receives.
#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl Progress for Heard {
    fn event(&self, event: ProgressEvent<'_>) {
        if !matches!(event, ProgressEvent::Looking { .. }) {
            self.0.lock().unwrap().push(format!("{event:?}"));
        }
    }
}

/// One machine: its lookup cache, its servers, the time.
struct Machine {
    dir: tempfile::TempDir,
    servers: Vec<String>,
    now: u64,
    heard: Arc<Heard>,
}

impl Machine {
    fn new(servers: &[&str]) -> Self {
        let servers = servers.iter().map(|&url| url.to_owned()).collect();
        let dir = tempfile::tempdir().unwrap();
        Self {
            dir,
            servers,
            now: NOW,
            heard: Arc::default(),
        }
    }

    /// A server that is a directory with a copy of the fixtures' narinfos, changed by `change`.
    fn directory(&self, name: &str, change: impl Fn(String) -> String) -> String {
        let dir = self.dir.path().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        for entry in std::fs::read_dir(fixtures()).unwrap() {
            let file = entry.unwrap().path();
            let (Some(name), true) = (file.file_name(), file.is_file()) else {
                continue;
            };
            if name.to_string_lossy().ends_with(".narinfo") {
                let text = change(std::fs::read_to_string(&file).unwrap());
                std::fs::write(dir.join(name), text).unwrap();
            }
        }
        format!("file://{}", dir.display())
    }

    fn resolver_with(&self, change: impl FnOnce(&mut LookupOptions)) -> Resolver {
        Resolver::new(self.setup_with(change)).unwrap()
    }

    fn setup_with(&self, change: impl FnOnce(&mut LookupOptions)) -> ResolverSetup {
        let mut options = LookupOptions {
            freshness: Freshness::Cached,
            signature_checks: SignatureChecks::Always,
            ttl: TtlPolicy::default(),
            negative_max_age: None,
            retry_down: false,
            renews_expired: false,
            lag: Duration::from_millis(200),
            vote_wait: Duration::from_millis(200),
            down_seconds: 60,
            retry_limits: None,
            verifiers: 2,
        };
        change(&mut options);
        let http = Options {
            stall_timeout: Duration::from_secs(20),
            ..Options::default()
        };
        let acl = Acl::parse(&std::fs::read(fixtures().join("acl")).unwrap()).unwrap();
        let servers = self
            .servers
            .iter()
            .map(|url| ServerUrl::parse(url).unwrap())
            .collect::<PerServer<_>>();
        ResolverSetup {
            store_dir: StoreDir::parse(StoreDir::GUIX).unwrap(),
            keys: Arc::new(AuthorizedKeys::Guix(acl)),
            policy: Arc::default(),
            cache: LookupCache::open(&self.dir.path().join("cache")).cache,
            network: Arc::new(Network::new(http, NetworkReach::AllServers, servers.into())),
            progress: Arc::clone(&self.heard) as Arc<dyn Progress>,
            clock: Clock::starting_at(Duration::from_secs(self.now)),
            cancel: Cancel::default(),
            options,
        }
    }

    fn offline_resolver(&self) -> Resolver {
        self.resolver_with(|options| options.freshness = Freshness::Offline)
    }

    fn resolver(&self) -> Resolver {
        self.resolver_with(|_| ())
    }
}

fn one(resolver: &Resolver, base: &str) -> ItemLookup {
    let resolution = resolver
        .resolve(vec![path(base)], LookupScope::ItemsOnly)
        .unwrap();
    resolution.items.into_iter().next().unwrap()
}

/// The names of the outcomes on all servers.
fn outcomes(found: &ItemLookup) -> Vec<&str> {
    let answers = found.answers.iter();
    answers.map(|answer| answer.outcome.name()).collect()
}

fn unsigned(text: String) -> String {
    let lines = text.lines().filter(|line| !line.starts_with("Signature: "));
    lines.map(|line| format!("{line}\n")).collect()
}

/// Accepts connections and never answers.
fn black_hole() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (listener, url)
}

#[test]
fn an_unauthorized_mirror_in_front_may_serve_the_bytes() {
    let mut machine = Machine::new(&[]);
    let mirror = machine.directory("mirror", unsigned);
    let other = machine.directory("other", |text| {
        unsigned(text).replace("NarSize: ", "NarSize: 1")
    });
    machine.servers = vec![mirror, other, format!("file://{}", fixtures().display())];
    let found = one(&machine.resolver(), TOOLS);
    assert_eq!(found.status, ItemStatus::Available);
    assert_eq!(outcomes(&found), ["equivalent", "refused", "available"]);
    let sources: Vec<ServerIndex> = found.sources.iter().map(|source| source.server).collect();
    assert_eq!(sources, [0, 2].map(ServerIndex::at));
    let alone = Machine {
        servers: machine.servers[..2].to_vec(),
        ..Machine::new(&[])
    };
    assert_eq!(one(&alone.resolver(), TOOLS).status, ItemStatus::Refused);
}

#[test]
fn closures_are_walked_and_asked_once() {
    let machine = Machine::new(&[&format!("file://{}", fixtures().display())]);
    let resolver = machine.resolver();
    let first = resolver
        .resolve(vec![path(TOOLS)], LookupScope::Closure(None))
        .unwrap();
    let mut items: Vec<&str> = first.items.iter().map(|found| found.path.base()).collect();
    items.sort_unstable();
    assert_eq!(items, [TOOLS, NOTES]);
    assert_eq!((first.requests, first.cache_hits), (2, 0));
    let again = resolver
        .resolve(vec![path(TOOLS)], LookupScope::Closure(None))
        .unwrap();
    assert_eq!(
        (again.items.len(), again.requests),
        (2, 2),
        "nothing new was requested"
    );
}

#[test]
fn a_silent_preferred_server_costs_the_grace_once() {
    let (_listener, silent) = black_hole();
    let machine = Machine::new(&[&silent, &format!("file://{}", fixtures().display())]);
    let began = Instant::now();
    let resolution = machine
        .resolver()
        .resolve(vec![path(TOOLS)], LookupScope::Closure(None))
        .unwrap();
    assert!(
        resolution
            .items
            .iter()
            .all(|found| found.status == ItemStatus::Available)
    );
    assert_eq!(outcomes(&resolution.items[0]), ["late", "available"]);
    assert!(matches!(
        resolution.servers[ServerIndex::at(0)].state,
        ServerState::Slow
    ));
    assert!(
        began.elapsed() >= Duration::from_millis(200),
        "only a pause as long as the lag is waited for"
    );
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "the timeout is not awaited"
    );
    assert!(
        machine
            .heard
            .0
            .lock()
            .unwrap()
            .iter()
            .any(|event| event.contains(&silent))
    );

    let later = machine
        .resolver()
        .resolve(vec![path(NOTES)], LookupScope::ItemsOnly)
        .unwrap();
    assert!(
        matches!(
            later.servers[ServerIndex::at(0)].state,
            ServerState::Skipped(_)
        ),
        "{:?}",
        later.servers
    );
    // The minute begins when it was found silent, a little after the clock's start.
    let after_a_minute = Machine {
        now: NOW + 120,
        ..machine
    };
    let found = one(&after_a_minute.resolver(), NOTES);
    assert_eq!(
        outcomes(&found),
        ["late", "available"],
        "it was requested again, and awaited"
    );
}

/// A policy that wants `need` votes, and no dissent.
fn policy_of(need: usize, setup: &ResolverSetup) -> Arc<TrustPolicy> {
    let terms = PolicyTerms {
        need,
        on_dissent: Some(Objection::Refuse),
        ..PolicyTerms::default()
    };
    Arc::new(TrustPolicy::new(terms, &setup.keys, NOW).0)
}

/// Its vote is missing, as that of a server that is down.
#[test]
fn a_silent_server_keeps_votes_waiting_for_a_limited_time() {
    for (need, status, outcome) in [
        (1, ItemStatus::Available, "available"),
        (2, ItemStatus::Refused, "refused"),
    ] {
        let (_listener, silent) = black_hole();
        let machine = Machine::new(&[&format!("file://{}", fixtures().display()), &silent]);
        let mut setup = machine.setup_with(|_| ());
        setup.policy = policy_of(need, &setup);
        let resolver = Resolver::new(setup).unwrap();
        let began = Instant::now();
        let resolution = resolver
            .resolve(vec![path(TOOLS), path(NOTES)], LookupScope::ItemsOnly)
            .unwrap();

        assert!(
            began.elapsed() < Duration::from_secs(15),
            "the timeout is not awaited"
        );
        for found in &resolution.items {
            assert_eq!(
                (found.status, &*outcomes(found)),
                (status, &[outcome, "late"][..])
            );
        }
        let state = &resolution.servers[ServerIndex::at(1)].state;
        assert!(matches!(state, ServerState::Slow), "{state:?}");
        let heard = machine.heard.0.lock().unwrap();
        assert!(
            heard.iter().any(|event| event.contains(&silent)),
            "{heard:?}"
        );
    }
}

/// One that is late for a moment is heard: it may disagree.
#[test]
fn votes_are_waited_for_longer_than_other_answers() {
    let late = empty_server(|| std::thread::sleep(Duration::from_secs(1)));
    let machine = Machine::new(&[&format!("file://{}", fixtures().display()), &late]);
    let mut setup = machine.setup_with(|options| options.vote_wait = Duration::from_secs(60));
    setup.policy = policy_of(1, &setup);
    let found = one(&Resolver::new(setup).unwrap(), TOOLS);
    assert_eq!(outcomes(&found), ["available", "missing"]);
}

#[test]
fn a_server_behind_the_one_with_authority_is_not_called_down() {
    let (_listener, silent) = black_hole();
    let machine = Machine::new(&[&format!("file://{}", fixtures().display()), &silent]);
    let resolution = machine
        .resolver()
        .resolve(vec![path(TOOLS)], LookupScope::ItemsOnly)
        .unwrap();
    assert_eq!(outcomes(&resolution.items[0]), ["available", "not-asked"]);
    assert!(matches!(
        resolution.servers[ServerIndex::at(1)].state,
        ServerState::NotNeeded
    ));
    let next = machine.resolver_with(|options| options.freshness = Freshness::Refresh);
    let resolution = next
        .resolve(vec![path(TOOLS)], LookupScope::ItemsOnly)
        .unwrap();
    assert!(matches!(
        resolution.servers[ServerIndex::at(1)].state,
        ServerState::NotNeeded
    ));
}

#[test]
fn a_server_that_comes_back_is_asked_by_later_runs() {
    let machine = Machine::new(&[]);
    let url = machine.directory("server", |text| text);
    let other = machine.directory("other", |text| text);
    let machine = Machine {
        servers: vec![url.clone(), other],
        ..machine
    };
    {
        let mut cache = LookupCache::open(&machine.dir.path().join("cache")).cache;
        let row = cache.server_row(ServerUrl::parse(&url).unwrap().as_str());
        let down = crate::lookup_cache::Downtime {
            since: NOW,
            until: NOW + 60,
            reason: "x".into(),
        };
        cache
            .update_server(row, &[crate::lookup_cache::ServerFact::Down(down)])
            .unwrap();
    }
    assert_eq!(
        outcomes(&one(&machine.resolver(), TOOLS)),
        ["skipped", "available"]
    );
    let refresh = machine.resolver_with(|options| options.freshness = Freshness::Refresh);
    assert_eq!(outcomes(&one(&refresh, TOOLS))[0], "available");
    drop(refresh);
    assert_eq!(
        outcomes(&one(&machine.resolver(), NOTES))[0],
        "available",
        "it is up again"
    );
}

#[test]
fn items_with_the_same_hash_part_are_not_mixed_up() {
    let machine = Machine::new(&[&format!("file://{}", fixtures().display())]);
    let twin = TOOLS.replace("subst-tools", "subst-fools");
    for first_run in [true, false] {
        let resolver = machine.resolver();
        let resolution = resolver
            .resolve(vec![path(TOOLS), path(&twin)], LookupScope::ItemsOnly)
            .unwrap();
        let statuses: Vec<ItemStatus> = resolution.items.iter().map(|found| found.status).collect();
        assert_eq!(
            statuses,
            [ItemStatus::Available, ItemStatus::Missing],
            "first run: {first_run}"
        );
        // One after the other, when the first is decided already.
        assert_eq!(one(&resolver, TOOLS).status, ItemStatus::Available);
        assert_eq!(one(&resolver, &twin).status, ItemStatus::Missing);
    }
}

#[test]
fn removed_cache_entries_are_looked_up_again() {
    let machine = Machine::new(&[]);
    let url = machine.directory("server", |text| text);
    let machine = Machine {
        servers: vec![url],
        ..machine
    };
    let resolver = machine.resolver();
    assert_eq!(one(&resolver, TOOLS).status, ItemStatus::Available);
    let narinfo = format!("server/{}.narinfo", &TOOLS[..32]);
    std::fs::remove_file(machine.dir.path().join(narinfo)).unwrap();
    assert_eq!(one(&resolver, TOOLS).status, ItemStatus::Available);
    resolver.discard(path(TOOLS));
    assert_eq!(one(&resolver, TOOLS).status, ItemStatus::Missing);
    drop(resolver);
    assert_eq!(
        one(&machine.resolver(), TOOLS).status,
        ItemStatus::Missing,
        "its cached answer is removed too"
    );
}

#[test]
fn cached_verdicts_are_for_reports_only() {
    let machine = Machine::new(&[&format!("file://{}", fixtures().display())]);
    for (signature_checks, is_checked) in [
        // Nothing is cached yet.
        (SignatureChecks::ReuseRecorded, true),
        (SignatureChecks::ReuseRecorded, false),
        (SignatureChecks::Always, true),
    ] {
        let resolver = machine.resolver_with(|options| options.signature_checks = signature_checks);
        let authority = one(&resolver, TOOLS).authority.unwrap();
        assert_eq!(authority.verified_this_run().is_some(), is_checked);
    }
}

#[test]
fn an_old_negative_answer_is_requested_again_where_that_matters() {
    let machine = Machine::new(&[]);
    let url = machine.directory("server", |text| text);
    let file = machine
        .dir
        .path()
        .join(format!("server/{}.narinfo", &TOOLS[..32]));
    let text = std::fs::read(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    let machine = Machine {
        servers: vec![url],
        ..machine
    };
    assert_eq!(one(&machine.resolver(), TOOLS).status, ItemStatus::Missing);
    std::fs::write(&file, text).unwrap();
    let later = Machine {
        now: NOW + 90,
        ..machine
    };
    assert_eq!(
        one(&later.resolver(), TOOLS).status,
        ItemStatus::Missing,
        "it counts for two minutes"
    );
    let fetch = later.resolver_with(|options| options.negative_max_age = Some(60));
    assert_eq!(one(&fetch, TOOLS).status, ItemStatus::Available);
}

#[test]
fn offline_no_server_is_requested() {
    let machine = Machine::new(&[&format!("file://{}", fixtures().display())]);
    let found = one(&machine.offline_resolver(), TOOLS);
    assert_eq!(
        (found.status, outcomes(&found)),
        (ItemStatus::Unknown, vec!["offline"])
    );
    assert_eq!(
        one(&machine.resolver(), TOOLS).status,
        ItemStatus::Available
    );
    assert_eq!(
        one(&machine.offline_resolver(), TOOLS).status,
        ItemStatus::Available
    );
}

#[test]
fn a_page_is_no_refusal() {
    let mut machine = Machine::new(&[]);
    for page in [
        "<!DOCTYPE html><html></html>",
        "\n <?xml version='1.0'?>",
        "{\"error\": 1}",
    ] {
        let name = format!("page-{}", page.len());
        machine.servers = vec![machine.directory(&name, |_| page.to_owned())];
        let found = one(&machine.resolver(), TOOLS);
        assert_eq!(found.status, ItemStatus::Unknown, "{page}");
        let text = found.answers.iter().next().unwrap().outcome.to_string();
        assert_eq!(text, "failed: the response is not a narinfo");
    }
}

#[test]
fn a_server_for_another_store_is_tried_again_after_ten_minutes() {
    let mut machine = Machine::new(&[]);
    let server = machine.directory("server", |text| text);
    machine.servers = vec![server.clone()];
    let info = Path::new(server.trim_start_matches("file://")).join("nix-cache-info");
    std::fs::write(&info, format!("StoreDir: /{}\n", "x".repeat(200_000))).unwrap();
    let found = one(&machine.resolver(), TOOLS);
    let text = found.answers.iter().next().unwrap().outcome.to_string();
    assert!(
        text.starts_with("not asked: its items are for /xxx"),
        "{text}"
    );
    assert!(text.len() < 1000, "{} bytes", text.len());

    std::fs::write(&info, "StoreDir: /gnu/store\n").unwrap();
    for (later, status) in [(599, ItemStatus::Unknown), (600, ItemStatus::Available)] {
        machine.now = NOW + later;
        assert_eq!(one(&machine.resolver(), TOOLS).status, status, "{later}");
    }
}

#[test]
fn a_lookup_whose_thread_has_failed_gives_no_answer() {
    let machine = Machine::new(&[&format!("file://{}", fixtures().display())]);
    let resolver = machine.resolver();
    let observer: LookupObserver = Arc::new(|_| panic!("on purpose"));

    let scope = LookupScope::ItemsOnly;
    let observed = resolver.resolve_and_observe(vec![path(TOOLS)], scope.clone(), Some(observer));
    assert_eq!(observed.err(), Some(ResolveError::ThreadEnded));
    let later = resolver.resolve(vec![path(TOOLS)], scope);
    assert_eq!(later.err(), Some(ResolveError::ThreadEnded));
}

/// A server that has nothing, and says so after `wait`.
fn empty_server(wait: impl Fn() + Clone + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, wait) = (stream.unwrap(), wait.clone());
            std::thread::spawn(move || {
                let lines = BufReader::new(stream.try_clone().unwrap()).lines();
                for _ in lines.map_while(Result::ok).filter(String::is_empty) {
                    wait();
                    // A client that goes away is no failure of the server's.
                    let _ = stream.write_all(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n");
                }
            });
        }
    });
    url
}

#[test]
fn all_servers_can_be_required_while_an_item_is_undecided() {
    let fixtures = format!("file://{}", fixtures().display());
    let late = empty_server(|| std::thread::sleep(Duration::from_millis(700)));
    let machine = Machine::new(&[&late, &fixtures]);
    let resolver = machine.resolver();

    resolver.prefetch(vec![path(TOOLS)], LookupScope::ItemsOnly);
    let resolution = resolver.resolve_on_all_servers(vec![path(TOOLS)]).unwrap();

    assert_eq!(outcomes(&resolution.items[0]), ["missing", "available"]);
}

#[test]
fn all_servers_can_be_required_of_an_item_that_was_not_looked_up() {
    let url = format!("file://{}", fixtures().display());
    let machine = Machine::new(&[&url, &format!("{url}/")]);
    let resolver = machine.resolver();
    let resolution = resolver.resolve_on_all_servers(vec![path(TOOLS)]).unwrap();
    assert_eq!(outcomes(&resolution.items[0]), ["available", "available"]);
}

fn resolve_message(reply: Option<Sender<Resolution>>) -> LookupMessage {
    LookupMessage::Resolve {
        items: vec![path(TOOLS)],
        walk: LookupScope::ItemsOnly,
        reply,
        observer: None,
    }
}

#[test]
fn answers_that_were_not_taken_yet_are_no_silence() {
    let is_released = Arc::new(AtomicBool::new(false));
    let released = Arc::clone(&is_released);
    let preferred = empty_server(move || {
        eventually(|| released.load(Ordering::Relaxed).then_some(()));
    });
    let machine = Machine::new(&[&preferred, &format!("file://{}", fixtures().display())]);
    let (messages, inbox) = unbounded();
    let setup = machine.setup_with(|_| ());
    let mut engine = LookupEngine::new(setup, messages.clone()).unwrap();

    let start = Instant::now();
    assert!(messages.send(resolve_message(None)).is_ok());
    eventually(|| {
        assert!(engine.drain(&inbox));
        engine.settle();
        let mut undecided = engine.items.undecided();
        undecided.find_map(|(_, item)| item.lookup.narinfo().map(drop))
    });
    // So the preferred server was not silent for this long, as far as the engine looked.
    engine.setup.options.lag = start.elapsed() + Duration::from_millis(10);

    is_released.store(true, Ordering::Relaxed);
    eventually(|| (!engine.events.is_empty()).then_some(()));
    std::thread::sleep(engine.lag() * 2);
    engine.tick();
    assert_eq!(engine.undecided, 1, "the answers wait to be taken");

    eventually(|| {
        assert!(engine.drain(&inbox));
        (engine.undecided == 0).then_some(())
    });
}

#[test]
fn a_check_that_fails_ends_the_lookups() {
    let (_listener, silent) = black_hole();
    let machine = Machine::new(&[&silent]);
    let (messages, inbox) = unbounded();
    let engine = LookupEngine::new(machine.setup_with(|_| ()), messages.clone()).unwrap();
    let (reply, answer) = bounded(1);
    for message in [resolve_message(Some(reply)), LookupMessage::VerifierFailed] {
        assert!(messages.send(message).is_ok());
    }

    engine.run(&inbox);

    assert!(answer.recv().is_err());
}

/// Serves the fixtures, or an empty response with what `status` returns.
fn serve_fixtures(
    listener: TcpListener,
    status: impl Fn() -> Option<&'static str> + Send + 'static,
) {
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            while let Some(Ok(request)) = lines.next() {
                let head = lines.by_ref().map_while(Result::ok);
                head.take_while(|line| !line.is_empty()).for_each(drop);
                let path = request.split(' ').nth(1).unwrap();
                let file = std::fs::read(fixtures().join(&path[1..]));
                let (status, body) = match (status(), file) {
                    (Some(status), _) => (status, Vec::new()),
                    (None, Ok(body)) => ("200 OK", body),
                    (None, Err(_)) => ("404 Not Found", Vec::new()),
                };
                let head = format!(
                    "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n",
                    body.len()
                );
                // A client that goes away is no failure of the server's.
                let _ = stream.write_all(&[head.as_bytes(), &body].concat());
            }
        }
    });
}

/// A lookup of a process that may go on for hours, where an hour is a second.
fn long_lived(machine: &Machine) -> Resolver {
    machine.resolver_with(|options| {
        options.renews_expired = true;
        options.down_seconds = 1;
        options.ttl.transient_secs = 1;
        options.ttl.negative_secs = 1;
        options.ttl.longest_other_store_secs = 1;
    })
}

/// Waits until `resolver` finds the item.
fn wait_for(resolver: &Resolver, base: &str) {
    eventually(|| (one(resolver, base).status == ItemStatus::Available).then_some(()));
}

#[test]
fn a_server_that_was_unreachable_is_used_again_by_the_same_process() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let url = format!("http://{address}");
    let [machine, other] = [(); 2].map(|()| Machine::new(&[&url]));
    let resolver = long_lived(&machine);
    let patient = other.resolver_with(|options| options.renews_expired = true);
    for resolver in [&resolver, &patient] {
        assert_eq!(outcomes(&one(resolver, TOOLS)), ["failed"]);
    }

    serve_fixtures(TcpListener::bind(address).unwrap(), || None);
    wait_for(&resolver, TOOLS);
    wait_for(&resolver, NOTES);
    assert_eq!(
        outcomes(&one(&patient, TOOLS)),
        ["failed"],
        "its minute is not over"
    );
    assert_eq!(outcomes(&one(&patient, NOTES)), ["skipped"]);
}

#[test]
fn failures_are_not_final_for_a_long_lived_process() {
    for failure in ["500 No", "503 No", "403 No", "404 Not Found", "200 OK"] {
        let is_failing = Arc::new(AtomicBool::new(true));
        let fails = Arc::clone(&is_failing);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let machine = Machine::new(&[&format!("http://{}", listener.local_addr().unwrap())]);
        serve_fixtures(listener, move || {
            fails.load(Ordering::Relaxed).then_some(failure)
        });
        let resolver = long_lived(&machine);
        assert_ne!(one(&resolver, TOOLS).status, ItemStatus::Available);
        is_failing.store(false, Ordering::Relaxed);
        wait_for(&resolver, TOOLS);
        let [before, after] = [1500, 0].map(|pause| {
            let resolution = resolver.resolve(vec![path(TOOLS)], LookupScope::ItemsOnly);
            std::thread::sleep(Duration::from_millis(pause));
            resolution.unwrap().requests
        });
        assert_eq!(before, after, "what is available is kept");
    }
}

#[test]
fn directories_that_come_later_are_used_by_a_long_lived_process() {
    let mut machine = Machine::new(&[]);
    let dir = machine.dir.path().join("server");
    machine.servers = vec![format!("file://{}", dir.display())];
    let resolver = long_lived(&machine);
    assert_eq!(outcomes(&one(&resolver, TOOLS)), ["failed"]);
    std::fs::create_dir(&dir).unwrap();
    let info = dir.join("nix-cache-info");
    std::fs::write(&info, "StoreDir: /other\n").unwrap();
    eventually(|| (outcomes(&one(&resolver, TOOLS)) == ["other-store"]).then_some(()));
    machine.directory("server", |text| text);
    std::fs::write(&info, "StoreDir: /gnu/store\n").unwrap();
    wait_for(&resolver, TOOLS);
}
