//! min(max(v, 0), 6).

use super::Curve;

#[derive(Clone, Copy)]
pub(super) struct Relu6;

impl Curve for Relu6 {
    #[inline(always)]
    fn value(self, v: f32) -> f32 {
        let v = if v > 0.0 { v } else { 0.0 };
        if v < 6.0 { v } else { 6.0 }
    }

    #[inline(always)]
    fn derivative(self, v: f32) -> f32 {
        if (v > 0.0) & (v < 6.0) { 1.0 } else { 0.0 }
    }
}
