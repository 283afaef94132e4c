//! The words of a mask in the order of addresses.

/// Values that share a group of 128 words, and from one quad of an invocation to its next.
const GROUP: usize = 4096;
const STEP: usize = 1024;

/// The mask of values whose signs are these.
pub fn mask_of(is_active: &[bool]) -> Vec<u32> {
    let mut words = vec![0; is_active.len().div_ceil(GROUP) * GROUP / 32];
    for (address, _) in is_active.iter().enumerate().filter(|(_, active)| **active) {
        let in_group = address % GROUP;
        let word = address / GROUP * (GROUP / 32) + in_group % (STEP / 2) / 4;
        let half = in_group % STEP / (STEP / 2);
        words[word] |= 1 << (16 * half + 4 * (in_group / STEP) + address % 4);
    }
    words
}
