//! Lookups: thousands of small requests, pipelined (HTTP/1.1) or multiplexed (HTTP/2).
//!
//! A request enters through `client`, waits in the `queue` of its `server`, and is sent by a
//! connection that `dispatch` opens (`http1` or `http2`). `response` says what the response means,
//! `response_handling` reports, follows or repeats it: `redirect`
//! follows where it leads, `events` reports the answer. `health` decides what follows from
//! failures, and `outage` how long a server that fails as a whole is waited for. `file` serves
//! lookups from a directory.

pub(in crate::http) mod cache_info;
pub(in crate::http) mod client;
mod connection_end;
mod dispatch;
mod encoder;
pub(in crate::http) mod events;
mod file;
mod health;
mod http1;
mod http2;
mod outage;
mod queue;
mod redirect;
mod request;
mod response;
mod response_handling;
mod server;
mod window;

#[cfg(fuzzing)]
pub(crate) use http1::fuzzing::check_responses;
