//! Layer 5: guix-daemon's substituter helper.
//!
//! The daemon starts `guix substitute --query` and `guix substitute --substitute`, writes
//! requests to descriptor 0, one line each, and reads replies from descriptor 4; what is
//! written to descriptor 2 is shown to the client. One process serves any number of requests.
//! Whatever goes wrong with one of them is its reply, never the end of the process.
//!
//! The daemon holds the item's lock and its temp root, and registers it: nothing of that is
//! done here. [`query`] and [`substitute`] answer, [`serve`] is the loop around them.

pub mod ahead;
pub mod client;
pub mod log;
pub mod options;
mod process;
pub mod progress;
pub mod query;
pub mod reply;
pub mod request;
pub mod serve;
pub mod substitute;
mod wording;
