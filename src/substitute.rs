//! Layer 4: the use cases. Lookups, transfers, and bringing closures into a store.

pub mod ahead;
pub mod answer;
pub mod cancel;
pub mod choose;
pub mod clock;
pub mod fetch;
pub mod install;
pub mod lookup;
pub mod network;
pub mod progress;
pub mod renew;
pub mod transfer;

/// An error and its causes on one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
