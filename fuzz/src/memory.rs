//! Counts the memory that decoding allocates.

use std::alloc::System;

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static COUNTED: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// The result of `work`, which may allocate `per_byte` bytes for each of `bytes` and 4 KiB beside:
/// what is given back at once is counted too. For one thread alone.
pub fn bounded<T>(bytes: &[u8], per_byte: usize, work: impl FnOnce(&[u8]) -> T) -> T {
    let region = Region::new(COUNTED);
    let result = work(bytes);
    let allocated = region.change().bytes_allocated;
    let allowed = per_byte * bytes.len() + 4096;
    assert!(
        allocated <= allowed,
        "{} byte(s) allocate {allocated}, allowed: {allowed}",
        bytes.len()
    );
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "3 byte(s) allocate 5000, allowed: 4102")]
    fn an_allocation_for_a_claim_is_noticed() {
        bounded(b"abc", 2, |_| drop(std::hint::black_box(Vec::<u8>::with_capacity(5000))));
    }
}
