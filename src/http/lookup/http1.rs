//! Lookups over HTTP/1.1, pipelined where the server supports it.

pub(super) mod connection;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod head;
mod in_flight;
mod parse_error;
mod response;
