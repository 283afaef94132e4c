//! The state of a safetensors file.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| syncbn_fuzz::state_file(bytes));
