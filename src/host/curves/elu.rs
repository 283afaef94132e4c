//! v above 0, alpha·(eᵛ − 1) elsewhere.

use super::Curve;
use super::exponential::exponential;

#[derive(Clone, Copy)]
pub(super) struct Elu {
    pub alpha: f32,
}

impl Curve for Elu {
    /// eᵛ − 1 = (scale − 1) + scale·minus_one, of which the first is exact, and 0 near 0.
    #[inline(always)]
    fn value(self, v: f32) -> f32 {
        let e = exponential(v.abs(), 0.0);
        let below = self.alpha * ((e.scale - 1.0) + e.scale * e.minus_one);
        if v > 0.0 { v } else { below }
    }

    #[inline(always)]
    fn derivative(self, v: f32) -> f32 {
        let below = self.alpha * exponential(v.abs(), 0.0).value();
        if v > 0.0 { 1.0 } else { below }
    }
}
