//! Prefetching: while one item is unpacked, the nars of the next ones are already downloading.
//!
//! The daemon sends a client's queries and its substitutions to different processes, all children
//! of the same daemon process. The query helper knows the whole closure, lives as long as the
//! client is connected, and is informed of every substitution that starts. So it alone prefetches
//! ([`prefetcher`]) and hands over the downloads it has begun ([`server`]); each substitute helper
//! requests its nar first ([`client`]). Because one process decides, no nar is prefetched twice,
//! however many substitutions run in parallel.
//!
//! The processes meet at a [`socket`] in the lookup cache's directory. Without it everything
//! works, only later. Nothing is kept on disk. What arrives through the socket is verified like
//! everything that comes from a server.

pub(crate) mod client;
pub(crate) mod prefetcher;
pub(crate) mod server;
pub(crate) mod socket;
