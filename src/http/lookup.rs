//! Lookups: thousands of small requests, pipelined (HTTP/1.1) or multiplexed (HTTP/2).
//!
//! A lookup enters through `client`, waits in the `queue` of its `server`, and is sent by a connection
//! that `dispatch` opens (`http1` or `http2`). `response` says what came back, `events` reports it.
//! `health` decides what follows from failures.

pub(in crate::http) mod cache_info;
pub(in crate::http) mod client;
mod dispatch;
pub(in crate::http) mod events;
mod file;
mod health;
mod http1;
mod http2;
mod pending;
mod queue;
mod redirect;
pub(in crate::http) mod request;
mod response;
mod server;
