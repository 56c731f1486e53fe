//! Servers with random faults. The seed decides which faults a server has, and how often.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;

use super::{Kind, Reply, Server};

#[derive(Debug, Clone, Copy)]
enum Fault {
    Missing,
    InternalError,
    Busy,
    Cut,
    Stall,
    Drip,
    Damage,
    Empty,
}

const FAULTS: [Fault; 8] = [
    Fault::Missing,
    Fault::InternalError,
    Fault::Busy,
    Fault::Cut,
    Fault::Stall,
    Fault::Drip,
    Fault::Damage,
    Fault::Empty,
];

/// A server of the Guix fixtures with a few random faults.
pub(crate) fn server(seed: u64) -> Server {
    let mut rng = Rng::with_seed(seed);
    let faults: Vec<Fault> = (0..rng.usize(1..4))
        .map(|_| *rng.choice(&FAULTS).unwrap())
        .collect();
    let fault_rate = rng.f64().powi(2) * 0.7;
    let with_ranges = rng.bool();
    eprintln!("  {faults:?}, {fault_rate:.2}");
    let (directory, requests) = (Kind::Guix.directory(), Mutex::<HashMap<_, u64>>::default());
    Server::start(move |request| {
        // The fault depends on the request and its number, not on the order of all requests.
        let mut hasher = DefaultHasher::new();
        let number = {
            let mut requests = requests.lock().unwrap();
            let count = requests.entry(request.path.clone()).or_default();
            *count += 1;
            *count
        };
        (seed, &request.path, number).hash(&mut hasher);
        let mut rng = Rng::with_seed(hasher.finish());
        let mut reply = match with_ranges {
            true => Reply::file_or_range(&directory, request),
            false => Reply::file(&directory, request),
        };
        if rng.f64() >= fault_rate {
            return reply;
        }
        let somewhere = rng.usize(0..=reply.body.len());
        match rng.choice(&faults).unwrap() {
            Fault::Missing => return Reply::not_found(),
            Fault::InternalError => return Reply::new("500 Oops", ""),
            Fault::Busy => return Reply::new("503 Busy", "").header("Retry-After: 0"),
            Fault::Cut => reply.cut_at = Some(somewhere),
            Fault::Stall => reply.stall_at = Some(somewhere),
            Fault::Drip => {
                reply.drip = Some((
                    1 + somewhere / 8 + reply.body.len() / 64,
                    Duration::from_millis(20),
                ));
            }
            Fault::Damage => {
                if let Some(byte) = reply.body.get_mut(somewhere) {
                    *byte ^= 1 << rng.u8(0..8);
                }
            }
            Fault::Empty => reply.body.clear(),
        }
        reply
    })
}

/// Runs `test` with the seeds below `count`, several in parallel. `SUBST_TEST_SEEDS=1000..2000`
/// selects other seeds.
#[expect(
    clippy::disallowed_methods,
    reason = "a developer's setting for these tests only"
)]
pub(crate) fn test_seeds(count: u64, test: impl Fn(u64) + Sync) {
    let seeds = match std::env::var("SUBST_TEST_SEEDS") {
        Ok(range) => {
            let (first, end) = range.split_once("..").unwrap();
            first.parse().unwrap()..end.parse().unwrap()
        }
        Err(_) => 0..count,
    };
    let next = AtomicU64::new(seeds.start);
    std::thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE {
            scope.spawn(|| {
                let all = std::iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed));
                for seed in all.take_while(|seed| seeds.contains(seed)) {
                    eprintln!("seed {seed}");
                    test(seed);
                }
            });
        }
    });
}

const SIDE_BY_SIDE: usize = 4;
