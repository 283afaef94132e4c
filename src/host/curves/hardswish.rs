//! v·min(max(v + 3, 0), 6)/6.

use super::Curve;

#[derive(Clone, Copy)]
pub(super) struct Hardswish;

impl Curve for Hardswish {
    #[inline(always)]
    fn value(self, v: f32) -> f32 {
        let between = v * ((v + 3.0) * (1.0 / 6.0));
        let above = if v >= 3.0 { v } else { between };
        if v <= -3.0 { 0.0 } else { above }
    }

    #[inline(always)]
    fn derivative(self, v: f32) -> f32 {
        let between = v * (1.0 / 3.0) + 0.5;
        let above = if v >= 3.0 { 1.0 } else { between };
        if v <= -3.0 { 0.0 } else { above }
    }
}
