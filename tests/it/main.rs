//! Tests of the whole program: the binary runs as for a user, on real signed items from
//! `fixtures/`. No network but loopback, no `guix`, no `nix`, no fixed ports.
#![allow(clippy::unwrap_used, reason = "everything in here is a test")]
#![allow(clippy::print_stderr, reason = "tests that are skipped print it")]

mod cli;
mod daemon;
mod docs;
mod faults;
mod hostile;
mod layers;
mod licenses;
mod sbom;
mod schema;
mod snapshots;
mod store;
mod structure;
mod support;
