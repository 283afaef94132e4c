//! σ(z) = 1/(1 + e⁻ᶻ).

use super::exponential::exponential;

/// σ(z), and σ(−z) = 1 − σ(z), neither of which is a difference.
#[derive(Clone, Copy)]
pub(super) struct Sigmoid {
    pub of: f32,
    pub of_negative: f32,
}

#[inline(always)]
pub(super) fn sigmoid(z: f32) -> Sigmoid {
    let e = exponential(z.abs(), 0.0).value();
    let large = 1.0 / (1.0 + e);
    let small = e * large;
    let is_below = z < 0.0;
    Sigmoid {
        of: if is_below { small } else { large },
        of_negative: if is_below { large } else { small },
    }
}
