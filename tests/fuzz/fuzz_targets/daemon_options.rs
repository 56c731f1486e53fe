//! Any text as the value of `_NIX_OPTIONS`: numbers are within their limits, and every URL is a word
//! of the text.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| subst::fuzzing::daemon_options(text));
