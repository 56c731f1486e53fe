//! The loop around requests: read a line, have it answered, send the reply.

use std::io::{self, BufRead, Read as _};

use super::reply::ReplyPort;
use super::request::{LINE_MAX_BYTES, RequestError};

/// Why the loop ended before the requests did.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    /// The requests cannot be read.
    #[error("reading requests")]
    Read(#[source] io::Error),
    /// The daemon does not take replies any more.
    #[error("sending a reply")]
    Reply(#[source] io::Error),
}

/// Answers requests.
pub(crate) trait RequestHandler {
    /// The reply to `line`, which was read without its end; every line has one.
    fn answer(&mut self, line: Result<&[u8], RequestError>) -> String;
}

/// Has every line of `requests` answered, until there are no more.
///
/// # Errors
/// Requests cannot be read, or replies not be sent.
pub(crate) fn serve(
    mut requests: impl BufRead,
    answerer: &mut dyn RequestHandler,
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
        let reply = if line.len() > LINE_MAX_BYTES {
            skip_line(&mut requests, &line).map_err(ServeError::Read)?;
            answerer.answer(Err(RequestError::TooLong))
        } else {
            answerer.answer(Ok(line.strip_suffix(b"\n").unwrap_or(&line)))
        };
        port.send(&reply).map_err(ServeError::Reply)?;
    }
}

/// Throws the rest of a line away of which `start` has been read.
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
        fn answer(&mut self, line: Result<&[u8], RequestError>) -> String {
            line.map_or_else(
                |error| format!("{error}\n"),
                |line| format!("{}\n", line.len()),
            )
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
