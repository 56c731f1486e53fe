//! Lookups over HTTP/1.1, pipelined where the server can.

pub(in crate::http) mod connection;
mod head;
mod in_flight;
pub(in crate::http) mod response;
