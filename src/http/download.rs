//! Nars: few and large, over the HTTP library's client, or from a directory.

pub(in crate::http) mod body;
mod chunks;
pub(in crate::http) mod client;
pub(in crate::http) mod file;
pub(in crate::http) mod nar;
pub(in crate::http) mod probe;
