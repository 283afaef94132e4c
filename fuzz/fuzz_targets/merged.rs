//! A message that an all-reduce has merged.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| syncbn_fuzz::merged(bytes));
