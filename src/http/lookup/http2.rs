//! Lookups over HTTP/2, multiplexed.

pub(super) mod connection;
mod stream;
