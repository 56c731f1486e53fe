//! Connections: the runtime they live on, addresses, proxies, TLS, and work that blocks.

pub(in crate::http) mod address;
pub(in crate::http) mod blocking;
mod certificate_verifier;
pub(in crate::http) mod connect;
pub(in crate::http) mod library_client;
mod prompt_acks;
mod proxy;
pub(in crate::http) mod runtime;
pub(in crate::http) mod timeout;
mod tls;
pub(in crate::http) mod tls_failure;
mod trusted_certificates;
