//! What a caller asks of a layer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| syncbn_fuzz::requests(bytes));
