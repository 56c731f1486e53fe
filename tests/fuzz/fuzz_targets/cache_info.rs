//! Any text as `nix-cache-info`: what is understood of it prints to a text that means the same.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| subst::fuzzing::cache_info(text));
