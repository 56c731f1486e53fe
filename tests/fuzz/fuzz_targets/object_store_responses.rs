//! Any bytes as what an object store answers: a list of objects prints to one that says the same, and an access
//! key that is accepted can be used.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| subst::fuzzing::object_store_responses(bytes));
