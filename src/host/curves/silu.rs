//! v·σ(v).

use super::Curve;
use super::sigmoid::sigmoid;

#[derive(Clone, Copy)]
pub(super) struct Silu;

impl Curve for Silu {
    #[inline(always)]
    fn value(self, v: f32) -> f32 {
        v * sigmoid(v).of
    }

    /// σ(v)·(1 + v·σ(−v)).
    #[inline(always)]
    fn derivative(self, v: f32) -> f32 {
        // Both ends are reached there, and an infinite v times 0 is none of them.
        let v = v.clamp(-100.0, 100.0);
        let sigmoid = sigmoid(v);
        sigmoid.of * (1.0 + v * sigmoid.of_negative)
    }
}
