//! Nars: few and large, over an ordinary HTTP/1.1 client, or from a directory.

pub(in crate::http) mod client;
pub(in crate::http) mod file;
pub(in crate::http) mod nar;
pub(in crate::http) mod probe;
