//! Whether the device's own loads keep every f16: WGSL lets a device flush subnormals.

use half::f16;

use super::Defect;

/// Values that are asked about.
const COUNT: usize = 256;
/// Two loads of each.
pub(super) const ANSWER_WORDS: usize = 2 * COUNT;

/// Both signs, every exponent, and four significands each: with exponent 0 the zeros, the smallest and the largest
/// subnormal, with exponent 31 the infinities and NaNs.
fn values() -> impl Iterator<Item = u16> {
    const SIGNIFICANDS: [u16; 4] = [0, 1, 0x155, 0x3ff];
    (0..COUNT as u16).map(|index| SIGNIFICANDS[usize::from(index % 4)] | ((index / 4) << 10))
}

/// The values two to a word, the first in the lower half.
pub(super) fn words() -> Vec<u32> {
    let values: Vec<u16> = values().collect();
    values.chunks_exact(2).map(|pair| u32::from(pair[0]) | (u32::from(pair[1]) << 16)).collect()
}

/// Whether every value was read as the portable decoding reads it. A NaN may be any NaN: devices make them quiet or give
/// them a payload of their own, and kernels tell NaN by the exponent alone.
pub(super) fn check(answer: &[u32]) -> Result<(), Defect> {
    for (half, loads) in values().zip(answer.chunks_exact(2)) {
        let expected = f16::from_bits(half).to_f32();
        for &found in loads {
            let same = found == expected.to_bits() || (expected.is_nan() && f32::from_bits(found).is_nan());
            if !same {
                return Err(Defect::Half { half, found, expected: expected.to_bits() });
            }
        }
    }
    Ok(())
}
