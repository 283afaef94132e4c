//! Two messages that an all-reduce merges.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| syncbn_fuzz::reduce(bytes));
