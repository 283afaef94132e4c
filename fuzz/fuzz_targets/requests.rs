//! The requests of a caller.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| syncbn_fuzz::requests(bytes));
