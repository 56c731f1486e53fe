//! What a fuzz target checks of the response parser.

use bytes::BytesMut;

use super::parse_error::ResponseParseError;
use super::response::ResponseParser;
use crate::http::lookup::response::LookupResponse;

/// The largest body.
const LIMIT_BYTES: u64 = 1000;

/// Checks that the responses in `bytes` do not depend on the parts in which they arrive, and that
/// none is larger than allowed.
pub(crate) fn check_responses(bytes: &[u8], part_bytes: usize) {
    let whole = responses(bytes, bytes.len());
    assert_eq!(whole, responses(bytes, part_bytes));
    for response in &whole.0 {
        assert!(response.body.len() as u64 <= LIMIT_BYTES);
    }
}

/// The responses in `bytes`, of which `part_bytes` arrive at a time, and the error after them.
fn responses(bytes: &[u8], part_bytes: usize) -> (Vec<LookupResponse>, Option<ResponseParseError>) {
    let mut parser = ResponseParser::new(LIMIT_BYTES);
    let (mut input, mut responses) = (BytesMut::new(), Vec::new());
    let parts = bytes.chunks(part_bytes.max(1)).map(|part| (part, false));

    for (part, is_end) in parts.chain([(&[][..], true)]) {
        input.extend_from_slice(part);
        loop {
            match parser.next(&mut input, is_end) {
                Ok(Some(response)) => {
                    let stays_open = response.head.keep_alive;
                    responses.push(response);
                    if !stays_open {
                        return (responses, None);
                    }
                }
                Ok(None) => break,
                Err(error) => return (responses, Some(error)),
            }
        }
    }
    (responses, None)
}
