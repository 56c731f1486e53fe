//! Connections: the runtime they live on, addresses, proxies, TLS, and work that blocks.

pub(in crate::http) mod blocking;
pub(in crate::http) mod connect;
pub(in crate::http) mod runtime;
mod socks;
pub(in crate::http) mod tls;
