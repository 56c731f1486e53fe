//! The request loop: read a line, handle it, send the reply.

use std::io::{self, BufRead, Read as _};

use tracing::debug;

use crate::substitute::lookup::ResolveError;

use super::reply::ReplyPort;
use super::request::{LINE_MAX_BYTES, RequestError};

/// Why the loop ended before the requests did.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    /// The requests cannot be read.
    #[error("cannot read requests")]
    Read(#[source] io::Error),
    /// The daemon does not accept replies any more.
    #[error("cannot send a reply")]
    Reply(#[source] io::Error),
    /// Nothing is known about the items, so that no reply would be true.
    #[error("cannot look items up")]
    Lookup(#[from] ResolveError),
}

/// Handles requests.
pub(crate) trait RequestHandler {
    /// The reply to `line`, which is without its line break; every line gets one.
    ///
    /// # Errors
    /// No reply can be given any more.
    fn handle(&mut self, line: Result<&[u8], RequestError>) -> Result<String, ServeError>;
}

/// Handles every line of `requests` until their end.
///
/// # Errors
/// A request cannot be read or handled, or a reply cannot be sent.
pub(crate) fn serve(
    mut requests: impl BufRead,
    handler: &mut dyn RequestHandler,
    port: &mut ReplyPort,
) -> Result<(), ServeError> {
    let mut line = Vec::new();
    loop {
        line.clear();
        let limit = LINE_MAX_BYTES as u64 + 1;
        let read = requests.by_ref().take(limit).read_until(b'\n', &mut line);
        if read.map_err(ServeError::Read)? == 0 {
            return Ok(());
        }

        debug!(request = quoted(&line), "request from guix-daemon");
        let reply = if line.len() > LINE_MAX_BYTES {
            skip_line(&mut requests, &line).map_err(ServeError::Read)?;
            handler.handle(Err(RequestError::TooLong))?
        } else {
            handler.handle(Ok(line.strip_suffix(b"\n").unwrap_or(&line)))?
        };

        debug!(
            reply = quoted(reply.as_bytes()),
            bytes = reply.len(),
            "reply to guix-daemon"
        );
        port.send(&reply).map_err(ServeError::Reply)?;
    }
}

/// The first line of a request or reply for a diagnostic, at most 200 bytes.
fn quoted(text: &[u8]) -> String {
    let line = text.split(|&byte| byte == b'\n').next().unwrap_or_default();
    String::from_utf8_lossy(&line[..line.len().min(200)]).into_owned()
}

/// Skips the rest of a line whose beginning `start` has been read.
fn skip_line(requests: &mut impl BufRead, start: &[u8]) -> io::Result<()> {
    if start.ends_with(b"\n") {
        Ok(())
    } else {
        requests.skip_until(b'\n').map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Lengths;

    impl RequestHandler for Lengths {
        fn handle(&mut self, line: Result<&[u8], RequestError>) -> Result<String, ServeError> {
            Ok(line.map_or_else(
                |error| format!("{error}\n"),
                |line| format!("{}\n", line.len()),
            ))
        }
    }

    #[test]
    fn every_line_has_a_reply_whatever_its_length() {
        let mut requests = b"ab\n\n".to_vec();
        requests.extend(std::iter::repeat_n(b'x', LINE_MAX_BYTES + 5));
        requests.extend(b"\nlast");
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut port = ReplyPort::to(file.reopen().unwrap());
        serve(&requests[..], &mut Lengths, &mut port).unwrap();
        let replies = std::fs::read_to_string(file.path()).unwrap();
        let lines: Vec<&str> = replies.lines().collect();
        assert_eq!(lines.len(), 4, "{replies}");
        assert_eq!((lines[0], lines[1], lines[3]), ("2", "0", "4"));
        assert!(lines[2].contains("longer"), "{replies}");
    }
}
