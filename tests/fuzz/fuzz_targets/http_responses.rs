//! Any bytes as HTTP/1.1 responses: however they are split, the same responses come out, and none is
//! larger than allowed. The first byte is the size of the parts.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Some((&size, responses)) = bytes.split_first() {
        subst::fuzzing::http_responses(responses, usize::from(size) + 1);
    }
});
