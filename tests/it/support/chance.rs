//! Servers that do whatever chance says. The one of a seed has a few bad habits, and falls into them
//! now and then.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;

use super::{Kind, Reply, Server};

#[derive(Debug, Clone, Copy)]
enum Habit {
    Missing,
    Oops,
    Busy,
    Cut,
    Stall,
    Drip,
    Damage,
    Empty,
}

const HABITS: [Habit; 8] = [
    Habit::Missing,
    Habit::Oops,
    Habit::Busy,
    Habit::Cut,
    Habit::Stall,
    Habit::Drip,
    Habit::Damage,
    Habit::Empty,
];

/// A server of the Guix fixtures that falls into some bad habits now and then.
pub(crate) fn server(seed: u64) -> Server {
    let mut rng = Rng::with_seed(seed);
    let habits: Vec<Habit> = (0..rng.usize(1..4))
        .map(|_| *rng.choice(&HABITS).unwrap())
        .collect();
    let temper = rng.f64().powi(2) * 0.7;
    let with_ranges = rng.bool();
    eprintln!("  {habits:?}, {temper:.2}");
    let (directory, requests) = (Kind::Guix.directory(), Mutex::<HashMap<_, u64>>::default());
    Server::start(move |request| {
        // The same for the same request, in whichever order they come.
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
        if rng.f64() >= temper {
            return reply;
        }
        let somewhere = rng.usize(0..=reply.body.len());
        match rng.choice(&habits).unwrap() {
            Habit::Missing => return Reply::not_found(),
            Habit::Oops => return Reply::new("500 Oops", ""),
            Habit::Busy => return Reply::new("503 Busy", "").header("Retry-After: 0"),
            Habit::Cut => reply.cut_at = Some(somewhere),
            Habit::Stall => reply.stall_at = Some(somewhere),
            Habit::Drip => {
                reply.drip = Some((
                    1 + somewhere / 8 + reply.body.len() / 64,
                    Duration::from_millis(20),
                ));
            }
            Habit::Damage => {
                if let Some(byte) = reply.body.get_mut(somewhere) {
                    *byte ^= 1 << rng.u8(0..8);
                }
            }
            Habit::Empty => reply.body.clear(),
        }
        reply
    })
}

/// Tries `test` with so many seeds, some side by side. `SUBST_TEST_SEEDS=1000..2000` tries others.
#[expect(
    clippy::disallowed_methods,
    reason = "a developer's setting for such tests alone"
)]
pub(crate) fn try_seeds(count: u64, test: impl Fn(u64) + Sync) {
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
