//! A TCP connection whose peer is told at once what has arrived.
//!
//! The kernel delays an acknowledgment by 40 ms or more, to send it with the next request. A server that has
//! not turned off Nagle's algorithm, such as `guix publish`, keeps its next small answer back until then:
//! pipelined lookups would cost that time for each level of references. An acknowledgment of its
//! own is a packet for each read at most.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::net::sockopt::set_tcp_quickack;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// The connection.
pub(super) struct PromptlyAcknowledged(pub(super) TcpStream);

impl AsyncRead for PromptlyAcknowledged {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let outcome = ready!(Pin::new(&mut self.0).poll_read(context, buffer));
        // The kernel returns to its delays by itself, so this is said each time. It only saves time.
        let _ = set_tcp_quickack(&self.0, true);
        Poll::Ready(outcome)
    }
}

impl AsyncWrite for PromptlyAcknowledged {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener};
    use std::time::{Duration, Instant};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const ROUNDS: usize = 100;

    /// The kernel's shortest delay is 40 ms. One round without it is enough, so that a busy machine does not matter.
    #[test]
    fn a_server_with_nagles_algorithm_does_not_wait_for_acknowledgments() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            while let Ok(1) = stream.read(&mut [0]) {
                // The second byte is not sent before the first one is acknowledged.
                stream.write_all(b"a").unwrap();
                stream.write_all(b"b").unwrap();
            }
            stream.shutdown(Shutdown::Both).unwrap();
        });

        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let fastest = runtime.block_on(async {
            let stream = TcpStream::connect(address).await.unwrap();
            stream.set_nodelay(true).unwrap();
            let mut stream = PromptlyAcknowledged(stream);
            let mut seconds = Vec::new();
            for _ in 0..ROUNDS {
                let started = Instant::now();
                stream.write_all(b"?").await.unwrap();
                stream.read_exact(&mut [0; 2]).await.unwrap();
                seconds.push(started.elapsed());
            }
            // Without delays in the beginning, the kernel does not know yet what kind of connection this is.
            seconds.into_iter().skip(ROUNDS / 2).min().unwrap()
        });

        server.join().unwrap();
        assert!(fastest < Duration::from_millis(30), "{fastest:?}");
    }
}
