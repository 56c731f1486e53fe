//! Layer 4: the use cases. Lookups, transfers, and bringing closures into a store.

use std::borrow::Cow;

pub(crate) mod cancel;
pub(crate) mod clock;
pub(crate) mod closure;
pub(crate) mod download;
pub(crate) mod install;
pub(crate) mod lookup;
pub(crate) mod network;
pub(crate) mod outcome;
pub(crate) mod progress;
pub(crate) mod servers;

/// An error and its causes on one line.
#[must_use]
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// An error without the address that was asked, for where server and item are named anyway.
#[must_use]
pub(crate) fn without_url(why: &str) -> Cow<'_, str> {
    let cut = why.split_once("requesting ").and_then(|(before, rest)| {
        let (_, after) = rest.split_once(": ")?;
        Some(Cow::Owned(format!("{before}{after}")))
    });
    cut.unwrap_or(Cow::Borrowed(why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_without_addresses() {
        assert_eq!(
            without_url("requesting http://a:1/: cannot connect: refused"),
            "cannot connect: refused"
        );
        assert_eq!(
            without_url("after 4 attempts: requesting http://a/x: no"),
            "after 4 attempts: no"
        );
        assert_eq!(without_url("timed out"), "timed out");
    }
}
