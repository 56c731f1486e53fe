//! Work that blocks, such as resolving a host name, on a thread of its own.
//!
//! The runtime's own pool for that panics when the system has no more threads; here it is an
//! error.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};

use tokio::sync::oneshot;

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

/// The addresses of `host`, in the order that the system prefers.
///
/// # Errors
/// The host has none, or the system has no more threads.
pub(super) async fn resolve(host: String, port: u16) -> io::Result<Vec<SocketAddr>> {
    let found = start("resolve", move || {
        (host.as_str(), port)
            .to_socket_addrs()
            .map(Iterator::collect)
    })?;
    found
        .await
        .map_err(|_| io::Error::other("a thread has panicked"))?
}
