//! Values of the host added to a vector on its device: gradients of parameters, where the host
//! makes them.

use futures::future::{FutureExt, ready};

use super::gpu;
use crate::error::Error;
use crate::gpu::Pending;
use crate::tensor::{Memory, Tensor};

/// Adds as many values to a tensor of f32 as it has, one f32 addition each. A GPU has its work when
/// this returns; the host is done.
pub(crate) fn accumulate(target: &mut Tensor, values: &[f32]) -> Result<Pending<()>, Error> {
    match target.memory_mut() {
        Memory::Host { values: total, .. } => {
            total
                .slice_mut::<f32>()
                .iter_mut()
                .zip(values)
                .for_each(|(total, addend)| *total += addend);
            Ok(ready(Ok(())).boxed())
        }
        Memory::Gpu { gpu, slice } => gpu::accumulate(gpu, slice, values),
    }
}

#[cfg(all(feature = "gpu", feature = "host"))]
#[cfg(test)]
mod tests {
    use pollster::block_on;

    use super::*;
    use crate::device::Device;
    use crate::gpu::adapters;

    /// Every two of these meet among the first 36 values.
    const MEETING: [f32; 6] =
        [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, -1.5e-3, 16_777_217.0];

    #[test]
    fn values_are_added_by_one_f32_addition_each_wherever_the_vector_lies() {
        let adapter =
            block_on(adapters()).pop().expect("GPU tests need an adapter: run scripts/test.sh");
        for device in [Device::host(), block_on(Device::from_adapter(&adapter)).expect("a device")]
        {
            for len in [1, 255, 256, 257, 70_000] {
                let number = |index: usize| (index * 7919 % 4093) as f32 - 2046.0;
                let old =
                    |index: usize| if index < 36 { MEETING[index % 6] } else { number(index) };
                let new = |index: usize| {
                    if index < 36 { MEETING[index / 6] } else { 1e-3 * number(index + 1) }
                };
                let (old, new): (Vec<f32>, Vec<f32>) =
                    (0..len).map(|index| (old(index), new(index))).unzip();
                let mut target = device.upload(&[len], &old).expect("a tensor");
                // Twice, so that the second finds what the first has used.
                for _ in 0..2 {
                    block_on(accumulate(&mut target, &new).expect("a submission")).expect("sums");
                }
                for (index, found) in
                    block_on(target.to_vec()).expect("values").into_iter().enumerate()
                {
                    let expected = old[index] + new[index] + new[index];
                    let is_right = found.to_bits() == expected.to_bits()
                        || (found.is_nan() && expected.is_nan());
                    assert!(
                        is_right,
                        "{device}, {len} values, {index}: {found:e}, expected {expected:e}"
                    );
                }
            }
        }
    }
}
