//! The check of the device's own conversion from f16. It must keep every f16, but WGSL lets a
//! device flush subnormals.

use half::f16;

use super::Defect;
use crate::shaders::WORKGROUP_SIZE;

/// Workgroups that answer.
pub(super) const WORKGROUPS: usize = 256;
/// Values in the question, one for each invocation: all f16.
pub(super) const COUNT: usize = WORKGROUPS * WORKGROUP_SIZE as usize;
const _: () = assert!(COUNT == 1 << 16);
/// Two conversions of each.
pub(super) const ANSWER_WORDS: usize = 2 * COUNT;

fn values() -> impl Iterator<Item = u16> {
    0..=u16::MAX
}

/// The values two to a word, the first in the lower half.
pub(super) fn words() -> Vec<u32> {
    let values: Vec<u16> = values().collect();
    values.chunks_exact(2).map(|pair| u32::from(pair[0]) | (u32::from(pair[1]) << 16)).collect()
}

/// Whether every value was read as the portable decoding reads it. A NaN may be any NaN: devices
/// make them quiet or give them a payload of their own, and kernels recognize NaN by the exponent
/// alone.
pub(super) fn check(answer: &[u32]) -> Result<(), Defect> {
    for (half, loads) in values().zip(answer.chunks_exact(2)) {
        let expected = f16::from_bits(half).to_f32();
        for &found in loads {
            let same = found == expected.to_bits()
                || (expected.is_nan() && f32::from_bits(found).is_nan());
            if !same {
                return Err(Defect::Half { half, found, expected: expected.to_bits() });
            }
        }
    }
    Ok(())
}
