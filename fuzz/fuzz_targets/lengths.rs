//! Lengths of padded samples.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| syncbn_fuzz::lengths(bytes));
