//! v·(1 + tanh(√(2/π)·(v + 0.044715·v³)))/2 = v·σ(z) with z = 2·√(2/π)·(v + 0.044715·v³).

use super::Curve;
use super::sigmoid::sigmoid;

#[derive(Clone, Copy)]
pub(super) struct GeluTanh;

/// z = v·(SLOPE + CUBE·v²).
const SLOPE: f32 = 1.595_769;
const CUBE: f32 = 0.071_354_814;

/// v up to where σ(z) is 0 or 1, so that nothing overflows.
#[inline(always)]
fn near(v: f32) -> f32 {
    v.clamp(-12.0, 12.0)
}

impl Curve for GeluTanh {
    #[inline(always)]
    fn value(self, v: f32) -> f32 {
        let near = near(v);
        v * sigmoid(near * (SLOPE + CUBE * (near * near))).of
    }

    /// σ(z)·(1 + v·z'(v)·σ(−z)).
    #[inline(always)]
    fn derivative(self, v: f32) -> f32 {
        let v = near(v);
        let square = v * v;
        let sigmoid = sigmoid(v * (SLOPE + CUBE * square));
        let slope = v * (SLOPE + 3.0 * CUBE * square);
        sigmoid.of * (1.0 + slope * sigmoid.of_negative)
    }
}
