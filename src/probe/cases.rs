//! Values so close to 0 that their sign reveals a contracted sum. The check: both passes see the
//! same sign.
//!
//! Half of them, the close ones, are 0 in the arithmetic of the source, and a little more if the
//! product is not rounded before the addition. The others are clearly positive or negative. With
//! them an answer of zeros fails.

use super::Defect;
use crate::stats::Centering;

/// Channels, one for each invocation.
pub(super) const CHANNELS: usize = 256;
/// Values of a channel: two close ones, a positive one, a negative one.
pub(super) const VALUES_PER_CHANNEL: usize = 4;
pub(super) const VALUES: usize = CHANNELS * VALUES_PER_CHANNEL;
/// Values whose sign a contraction changes.
const CLOSE: usize = 2 * CHANNELS;
/// Slope of the activation for values that are not above 0. A power of two, so products are exact.
pub(super) const SLOPE: f32 = 0.25;
const GRAD_OUTPUT: f32 = 1.0;

/// Numbers that are the same in every run (xorshift).
pub(super) struct Draw(u32);

impl Draw {
    pub fn new() -> Self {
        Self(0x9e37_79b9)
    }

    /// A number from `low` on, below `high` but for rounding.
    pub fn between(&mut self, low: f32, high: f32) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        low + (self.0 >> 8) as f32 / (1 << 24) as f32 * (high - low)
    }
}

/// Two numbers whose product is rounded down. A fused operation that subtracts the rounded product
/// gives more than 0.
pub(super) fn product_that_rounds_down(draw: &mut Draw) -> [f32; 2] {
    loop {
        let [a, b] = [draw.between(1.0, 2.0), draw.between(0.5, 4.0)];
        // A product of two f32 is exact in f64.
        if f64::from(a) * f64::from(b) > f64::from(a * b) {
            return [a, b];
        }
    }
}

/// A channel and its values, whose v = ((x − pivot)·scale + shift) + residual is 0, 0, positive and
/// negative.
struct Case {
    pivot: f32,
    scale: f32,
    shift: f32,
    /// (x, residual) each.
    values: [[f32; 2]; VALUES_PER_CHANNEL],
}

impl Case {
    fn new(draw: &mut Draw) -> Self {
        let pivot = 8.0;
        // From 8 to 16 f32 are 2⁻²⁰ apart: x − pivot is exact.
        let on_grid = |a: f32| (a + pivot) - pivot;
        loop {
            let near = on_grid(draw.between(1.0, 2.0));
            let other = on_grid(draw.between(2.0, 4.0));
            let scale = draw.between(0.5, 4.0);
            let shift = -(near * scale);
            let sum = other * scale + shift;
            let near_tells = f64::from(near) * f64::from(scale) > f64::from(near * scale);
            let other_tells = other.mul_add(scale, shift) > sum;
            // Far above the effect of a contraction.
            let is_clear = sum > 0.125;
            if near_tells && other_tells && is_clear {
                let value = |from_pivot: f32, residual| [pivot + from_pivot, residual];
                let values =
                    [value(near, 0.0), value(other, -sum), value(near, sum), value(near, -sum)];
                return Self { pivot, scale, shift, values };
            }
        }
    }
}

fn cases() -> impl Iterator<Item = Case> {
    let mut draw = Draw::new();
    (0..CHANNELS).map(move |_| Case::new(&mut draw))
}

/// Centering, values, weight and bias, as the kernels read them.
pub(super) fn inputs() -> [Vec<u32>; 4] {
    // These values change no bit of v, with scale = weight·inv_std, shift = bias − rest·scale, and
    // x in the unit.
    const WEIGHT: f32 = 0.5;
    const REST: f32 = 0.0;
    const UNIT: f32 = 1.0;
    let mut inputs = [const { Vec::new() }; 4];
    let [centering, values, weight, bias] = &mut inputs;
    for case in cases() {
        let of_channel =
            Centering { pivot: case.pivot, rest: REST, inv_std: case.scale / WEIGHT, unit: UNIT };
        centering.extend(bytemuck::cast::<_, [u32; size_of::<Centering>() / 4]>(of_channel));
        values.extend(
            case.values
                .iter()
                .flat_map(|&[x, residual]| [x, residual, GRAD_OUTPUT])
                .map(f32::to_bits),
        );
        weight.push(WEIGHT.to_bits());
        bias.push(case.shift.to_bits());
    }
    inputs
}

/// Whether both passes see the same sign of every value, and the right one of those that are clear.
pub(super) fn check_signs(forward: &[u32], backward: &[u32]) -> Result<(), Defect> {
    let v = cases().flat_map(|case| [0.0, 0.0, case.values[2][1], case.values[3][1]]);
    let mut differing = 0;
    for (index, ((expected, &y), gradients)) in
        v.zip(forward).zip(backward.chunks_exact(2)).enumerate()
    {
        let [y, g] = [y, gradients[0]].map(f32::from_bits);
        let wrong = Defect::Activation { index, expected, forward: y, backward: g };
        let signs = [y > 0.0, g == GRAD_OUTPUT];
        let is_possible = g == GRAD_OUTPUT || g == SLOPE * GRAD_OUTPUT;
        if !is_possible || y.is_nan() || (expected != 0.0 && signs != [expected > 0.0; 2]) {
            return Err(wrong);
        }
        differing += usize::from(signs[0] != signs[1]);
    }
    if differing > 0 { Err(Defect::Signs { differing, values: CLOSE }) } else { Ok(()) }
}
