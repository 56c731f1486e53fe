//! Lookups over HTTP/1.1, pipelined where the server supports it.

pub(super) mod connection;
mod head;
mod in_flight;
mod parse_error;
mod response;
