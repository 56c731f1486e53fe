//! Any bytes as a line of guix-daemon: items are valid and each is there once, and a substitution
//! prints to a line that means the same.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|line: &[u8]| subst::fuzzing::helper_request(line));
