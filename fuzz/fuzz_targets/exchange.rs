//! A whole exchange with a peer whose messages are edited.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| syncbn_fuzz::exchange(bytes));
