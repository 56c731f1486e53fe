//! Work that blocks, such as resolving a host name, on a thread of its own.
//!
//! The runtime's own pool for that panics when the system has no more threads; here it is an
//! error.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::Mutex;

use tokio::sync::oneshot;
use tracing::debug;

use crate::sync::lock;

/// Starts `work` on a new thread called `name`; the receiver gets what it returns, or an error
/// when it panics.
///
/// # Errors
/// The system has no more threads.
pub(in crate::http) fn start<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<oneshot::Receiver<T>> {
    let (sender, receiver) = oneshot::channel();
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            // A caller that no longer waits does not need the result.
            let _ = sender.send(work());
        })?;
    Ok(receiver)
}

/// The addresses of `host`, in the order that the system prefers. When the system cannot resolve a
/// name that it has resolved before in this run, the same addresses are used again: in the sandbox
/// it cannot read an /etc/resolv.conf that was replaced because the network changed.
///
/// # Errors
/// The host has none, or the system has no more threads.
pub(super) async fn resolve(host: String, port: u16) -> io::Result<Vec<SocketAddr>> {
    let found = start("resolve", move || {
        let resolved = (host.as_str(), port).to_socket_addrs();
        resolved_or_last(host, port, resolved.map(Iterator::collect))
    })?;
    found
        .await
        .map_err(|_| io::Error::other("a thread has panicked"))?
}

/// The addresses that `host` had last.
static LAST_ADDRESSES: Mutex<BTreeMap<String, Vec<IpAddr>>> = Mutex::new(BTreeMap::new());

/// The addresses of at most this many hosts are kept.
const HOSTS_MAX: usize = 256;

/// What was `resolved`, or else the addresses that `host` had last.
fn resolved_or_last(
    host: String,
    port: u16,
    resolved: io::Result<Vec<SocketAddr>>,
) -> io::Result<Vec<SocketAddr>> {
    let mut last = lock(&LAST_ADDRESSES);
    match (resolved, last.get(&host)) {
        (Ok(addresses), known) => {
            if known.is_some() || last.len() < HOSTS_MAX {
                last.insert(host, addresses.iter().map(SocketAddr::ip).collect());
            }
            Ok(addresses)
        }
        (Err(error), Some(known)) => {
            debug!(host, %error, "using the addresses that were resolved last");
            Ok(known.iter().map(|&ip| (ip, port).into()).collect())
        }
        (Err(error), None) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_cannot_be_resolved_any_more_keeps_its_addresses() {
        let failed = || Err(io::ErrorKind::NotFound.into());
        let resolved = |port| vec![([192, 0, 2, 1], port).into()];
        let host = || "substitutes.test".to_owned();
        assert!(resolved_or_last(host(), 80, failed()).is_err());
        let first = resolved_or_last(host(), 80, Ok(resolved(80)));
        assert_eq!(first.unwrap(), resolved(80));
        let last = resolved_or_last(host(), 443, failed());
        assert_eq!(last.unwrap(), resolved(443));
        assert!(resolved_or_last("other.test".to_owned(), 80, failed()).is_err());
    }
}
