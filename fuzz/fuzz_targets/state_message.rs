//! The state of a broadcast.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| syncbn_fuzz::state_message(bytes));
