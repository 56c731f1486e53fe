//! Servers that do whatever chance says: every question gets exactly one answer, and soon.
//!
//! The server of a seed has a few bad habits, and falls into them now and then. Which answers
//! come is not looked at.

use std::time::Duration;

use fastrand::Rng;

use super::tls::{Http2Server, Reaction};
use crate::http::testing::*;
use crate::http::*;
use crate::testing::seeds;

/// How many servers of each kind.
const SEEDS: u64 = 25;

/// What a server may do with a request over HTTP/1.1.
#[derive(Debug, Clone, Copy)]
enum Habit {
    Missing,
    Oops,
    Busy,
    CloseBefore,
    CloseAfter,
    AnnounceClose,
    Reset,
    Garbage,
    CutBody,
    CutHead,
    ForgetBody,
    Silence,
    Twice,
    Pause,
    Elsewhere,
}

const HABITS: [Habit; 15] = [
    Habit::Missing,
    Habit::Oops,
    Habit::Busy,
    Habit::CloseBefore,
    Habit::CloseAfter,
    Habit::AnnounceClose,
    Habit::Reset,
    Habit::Garbage,
    Habit::CutBody,
    Habit::CutHead,
    Habit::ForgetBody,
    Habit::Silence,
    Habit::Twice,
    Habit::Pause,
    Habit::Elsewhere,
];

fn options(rng: &mut Rng) -> Options {
    let mut options = impatient();
    // Random waits from nearly nothing on.
    options.retries.base = Duration::from_micros(1 << rng.u32(0..12));
    options.retries.overload_base = Duration::from_micros(1 << rng.u32(0..12));
    options.stall_timeout = Duration::from_millis(60);
    options.max_in_flight = 1 << rng.u32(0..7);
    options
}

fn serve(mut peer: Peer, mut rng: Rng, habits: &[Habit], temper: f64) {
    while let Some(path) = peer.request() {
        let mut answer = match rng.bool() {
            true => right_for_masses(&path),
            false => right(&path),
        };
        if rng.f64() < temper {
            match rng.choice(habits).unwrap() {
                Habit::Missing => answer = response("404 Not Found", "", ""),
                Habit::Oops => answer = response("500 Oops", "", ""),
                Habit::Busy => answer = response("503 Busy", "Retry-After: 0\r\n", ""),
                Habit::CloseBefore => return peer.close(),
                Habit::CloseAfter => {
                    peer.send(&answer);
                    return peer.close();
                }
                Habit::AnnounceClose => {
                    answer.splice(15..15, *b"\r\nConnection: close");
                    peer.send(&answer);
                    return peer.close();
                }
                Habit::Reset => return peer.reset(),
                Habit::Garbage => answer = b"\x00\xff no answer\r\n\r\n".to_vec(),
                Habit::CutBody => {
                    peer.send(&answer[..answer.len() - 3]);
                    return peer.close();
                }
                Habit::CutHead => {
                    peer.send(&answer[..20]);
                    return peer.reset();
                }
                Habit::ForgetBody => answer.truncate(answer.len() - 3),
                Habit::Silence => return peer.be_silent(),
                Habit::Twice => answer = answer.repeat(2),
                Habit::Pause => std::thread::sleep(Duration::from_millis(rng.u64(0..40))),
                Habit::Elsewhere => {
                    let fields = format!("Location: {path}\r\n");
                    answer = response("302 Found", &fields, "");
                }
            }
        }
        if !peer.send(&answer) {
            return;
        }
    }
}

#[test]
fn http1_servers() {
    for seed in seeds(SEEDS) {
        println!("seed {seed}");
        let mut rng = Rng::with_seed(seed);
        let habits: Vec<Habit> = (0..rng.usize(1..4))
            .map(|_| *rng.choice(&HABITS).unwrap())
            .collect();
        let temper = rng.f64().powi(3);
        let options = options(&mut rng);
        let server = TestServer::start(move |peer| {
            let rng = Rng::with_seed(seed << 32 | peer.number as u64);
            serve(peer, rng, &habits, temper);
        });
        look_up(options, server.spec(), &items(rng.usize(1..80)));
    }
}

#[test]
fn http2_servers() {
    for seed in seeds(SEEDS) {
        println!("seed {seed}");
        let mut rng = Rng::with_seed(seed);
        let temper = rng.f64().powi(2);
        let options = Options {
            verify_tls: TlsVerification::Insecure,
            ..options(&mut rng)
        };
        let mut settings = h2::server::Builder::new();
        settings.max_concurrent_streams(1 << rng.u32(0..6));
        let server = Http2Server::with(settings, move |_, number, count| {
            let mut rng = Rng::with_seed(seed << 48 | (number as u64) << 32 | count as u64);
            if rng.f64() >= temper {
                return Reaction::Answer;
            }
            match rng.u32(0..6) {
                0 => Reaction::Ignore,
                1 => Reaction::GoAway,
                2 => Reaction::Abort,
                _ => Reaction::Reset,
            }
        });
        look_up(options, server.tls.spec(), &items(rng.usize(1..80)));
    }
}
