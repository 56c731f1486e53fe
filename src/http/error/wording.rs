//! Statuses, sizes and durations as the messages of failed requests have them.

use std::fmt;
use std::time::Duration;

/// What a status that is no answer says.
pub(super) fn status_text(status: u16, retry_after: Option<Duration>) -> String {
    match (status, retry_after) {
        (401, _) => {
            "the server answered with status 401: it requires a password or token, or does \
             not accept the one that was sent (`netrc-file`, or `token-file` for one server)"
                .to_owned()
        }
        (403, _) => "the server answered with status 403: access is not allowed".to_owned(),
        (404 | 410, _) => format!("the server does not have it (status {status})"),
        (407, _) => "a user name and password for the proxy are required (status 407)".to_owned(),
        (511, _) => "a login to the network is required (status 511)".to_owned(),
        (_, wait) => {
            let meaning = match status {
                429 => ": too many requests",
                503 => ": it is overloaded or being maintained",
                _ => "",
            };
            let wait = wait.map_or_else(String::new, |wait| {
                format!(" (retry after {})", Seconds(wait))
            });
            format!("the server answered with status {status}{meaning}{wait}")
        }
    }
}

/// What a response says that is something else than expected.
pub(super) fn unexpected_text(expected: &str, content_type: Option<&str>) -> String {
    match content_type {
        None => format!("the response is not {expected}"),
        Some(name) => {
            let name = name.escape_debug();
            format!(
                "the response is not {expected} but `{name}`, perhaps from the login page of a network"
            )
        }
    }
}

/// A size in the largest unit that divides it.
pub(super) fn binary_size(bytes: u64) -> String {
    match bytes {
        _ if bytes.is_multiple_of(1 << 20) => format!("{} MiB", bytes >> 20),
        _ if bytes.is_multiple_of(1 << 10) => format!("{} KiB", bytes >> 10),
        _ => format!("{bytes} bytes"),
    }
}

/// A duration in a message: `5 s`, `0.3 s`.
pub(super) struct Seconds(pub(super) Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.subsec_millis() == 0 {
            write!(f, "{} s", self.0.as_secs())
        } else {
            write!(f, "{:.1} s", self.0.as_secs_f64())
        }
    }
}
