//! Bits of a mask, one for each value of the activation by its address.

/// Values whose bits are one integer on their way to the mask.
const WORD: usize = 64;

/// Sets the bits of the values above 0, from bit `at` of a mask on, where they are 0.
///
/// ```text
/// for 64 values:
///     bits ← the comparisons v > 0, one bit each      registers only
///     shift them to where they lie in the mask, and or them into up to three words
/// ```
///
/// Without a branch, so that LLVM makes vector comparisons of it. 64 values at a time keep what is
/// done per word of the mask small beside them.
#[inline(always)]
pub(in crate::host) fn set_bits(mask: &mut [u32], at: usize, v: &[f32]) {
    for (v, at) in v.chunks(WORD).zip((at..).step_by(WORD)) {
        let mut bits = 0u64;
        for (i, v) in v.iter().enumerate() {
            bits |= u64::from(*v > 0.0) << i;
        }
        let shifted = u128::from(bits) << (at % 32);
        for (i, word) in mask[at / 32..].iter_mut().take(3).enumerate() {
            *word |= (shifted >> (32 * i)) as u32;
        }
    }
}

/// The bits from bit `at` of a mask on as 1.0 or 0.0.
///
/// ```text
/// for 32 values:
///     bits ← the 32 bits of two neighbouring words that are theirs
///     to[i] ← bits has bit i ? 1.0 : 0.0
/// ```
///
/// `spread` has a constant length where a word is whole, so that LLVM unrolls it into vector
/// selects; with AVX-512 the bits become a mask register.
#[inline(always)]
pub(in crate::host) fn spread_bits(mask: &[u32], at: usize, to: &mut [f32]) {
    // Beyond the end of the mask no bit is needed.
    let word = |i: usize| u64::from(mask.get(i).copied().unwrap_or(0));
    let bits = |at: usize| ((word(at / 32 + 1) << 32 | word(at / 32)) >> (at % 32)) as u32;
    let (whole, rest) = to.as_chunks_mut::<32>();
    let rest_at = at + whole.len() * 32;
    for (to, at) in whole.iter_mut().zip((at..).step_by(32)) {
        spread(bits(at), to);
    }
    spread(bits(rest_at), rest);
}

#[inline(always)]
fn spread(bits: u32, to: &mut [f32]) {
    /// The bit of every place.
    const BITS: [u32; 32] = {
        let mut bits = [0; 32];
        let mut i = 0;
        while i < 32 {
            bits[i] = 1 << i;
            i += 1;
        }
        bits
    };
    for (to, bit) in to.iter_mut().zip(BITS) {
        *to = if bits & bit != 0 { 1.0 } else { 0.0 };
    }
}
