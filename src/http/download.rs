//! Nars: few and large, over the HTTP library's client, or from a directory.

pub(in crate::http) mod body;
mod chunks;
pub(in crate::http) mod client;
mod encoded;
pub(in crate::http) mod file;
pub(in crate::http) mod nar;
mod network_chunks;
pub(in crate::http) mod probe;
