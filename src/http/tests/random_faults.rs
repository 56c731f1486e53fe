//! Random faults: every request gets exactly one answer, and soon.
//!
//! The server of a seed has a few faults, which it shows now and then. Which answers come is not
//! checked.

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
enum Fault {
    Missing,
    ServerError,
    Overloaded,
    CloseBefore,
    CloseAfter,
    AnnounceClose,
    Reset,
    Garbage,
    CutBody,
    CutHead,
    OmitBody,
    Stall,
    Twice,
    Pause,
    RedirectToItself,
}

const FAULTS: [Fault; 15] = [
    Fault::Missing,
    Fault::ServerError,
    Fault::Overloaded,
    Fault::CloseBefore,
    Fault::CloseAfter,
    Fault::AnnounceClose,
    Fault::Reset,
    Fault::Garbage,
    Fault::CutBody,
    Fault::CutHead,
    Fault::OmitBody,
    Fault::Stall,
    Fault::Twice,
    Fault::Pause,
    Fault::RedirectToItself,
];

fn options(rng: &mut Rng) -> Options {
    let mut options = short_stall();
    // Random waits from nearly nothing on.
    options.retry_policy.base = Duration::from_micros(1 << rng.u32(0..12));
    options.retry_policy.overload_base = Duration::from_micros(1 << rng.u32(0..12));
    options.stall_timeout = Duration::from_millis(60);
    options.max_in_flight = 1 << rng.u32(0..7);
    options
}

fn serve(mut peer: Peer, mut rng: Rng, faults: &[Fault], probability: f64) {
    while let Some(path) = peer.request() {
        let mut answer = match rng.bool() {
            true => correct_with_mass_query(&path),
            false => correct(&path),
        };
        if rng.f64() < probability {
            match rng.choice(faults).unwrap() {
                Fault::Missing => answer = response("404 Not Found", "", ""),
                Fault::ServerError => answer = response("500 ServerError", "", ""),
                Fault::Overloaded => answer = response("503 Busy", "Retry-After: 0\r\n", ""),
                Fault::CloseBefore => return peer.close(),
                Fault::CloseAfter => {
                    peer.send(&answer);
                    return peer.close();
                }
                Fault::AnnounceClose => {
                    answer.splice(15..15, *b"\r\nConnection: close");
                    peer.send(&answer);
                    return peer.close();
                }
                Fault::Reset => return peer.reset(),
                Fault::Garbage => answer = b"\x00\xff no answer\r\n\r\n".to_vec(),
                Fault::CutBody => {
                    peer.send(&answer[..answer.len() - 3]);
                    return peer.close();
                }
                Fault::CutHead => {
                    peer.send(&answer[..20]);
                    return peer.reset();
                }
                Fault::OmitBody => answer.truncate(answer.len() - 3),
                Fault::Stall => return peer.stall(),
                Fault::Twice => answer = answer.repeat(2),
                Fault::Pause => std::thread::sleep(Duration::from_millis(rng.u64(0..40))),
                Fault::RedirectToItself => {
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
fn http1_servers_with_random_faults() {
    for seed in seeds(SEEDS) {
        println!("seed {seed}");
        let mut rng = Rng::with_seed(seed);
        let faults: Vec<Fault> = (0..rng.usize(1..4))
            .map(|_| *rng.choice(&FAULTS).unwrap())
            .collect();
        let probability = rng.f64().powi(3);
        let options = options(&mut rng);
        let server = TestServer::start(move |peer| {
            let rng = Rng::with_seed(seed << 32 | peer.number as u64);
            serve(peer, rng, &faults, probability);
        });
        look_up(options, server.spec(), &items(rng.usize(1..80)));
    }
}

#[test]
fn http2_servers_with_random_faults() {
    for seed in seeds(SEEDS) {
        println!("seed {seed}");
        let mut rng = Rng::with_seed(seed);
        let probability = rng.f64().powi(2);
        let options = Options {
            verify_tls: TlsVerification::Insecure,
            ..options(&mut rng)
        };
        let mut settings = h2::server::Builder::new();
        settings.max_concurrent_streams(1 << rng.u32(0..6));
        let server = Http2Server::with(settings, move |_, number, count| {
            let mut rng = Rng::with_seed(seed << 48 | (number as u64) << 32 | count as u64);
            if rng.f64() >= probability {
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
