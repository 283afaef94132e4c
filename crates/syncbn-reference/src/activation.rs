//! Activations and their derivatives, as they are defined.

use std::f64::consts::{FRAC_1_SQRT_2, PI};

/// The activation after normalization: y = f(v).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// v.
    None,
    /// max(v, 0).
    Relu,
    /// v above 0, slope·v elsewhere.
    LeakyRelu(f64),
    /// min(max(v, 0), 6).
    Relu6,
    /// v·σ(v), σ(v) = 1/(1 + e⁻ᵛ).
    Silu,
    /// v·min(max(v + 3, 0), 6)/6.
    Hardswish,
    /// v·Φ(v), Φ(v) = (1 + erf(v/√2))/2.
    Gelu,
    /// v·(1 + tanh(√(2/π)·(v + 0.044715·v³)))/2.
    GeluTanh,
    /// v above 0, alpha·(eᵛ − 1) elsewhere.
    Elu(f64),
}

impl Activation {
    /// f(v); NaN for NaN, and the limit where v is infinite.
    pub fn value(self, v: f64) -> f64 {
        match self {
            _ if v.is_nan() => v,
            Self::None => v,
            Self::Relu => v.max(0.0),
            Self::LeakyRelu(slope) => v * if v > 0.0 { 1.0 } else { slope },
            Self::Relu6 => v.clamp(0.0, 6.0),
            Self::Hardswish if v <= -3.0 => 0.0,
            Self::Hardswish if v >= 3.0 => v,
            Self::Hardswish => v * (v + 3.0) / 6.0,
            Self::Elu(alpha) => {
                if v > 0.0 {
                    v
                } else {
                    alpha * v.exp_m1()
                }
            }
            Self::Silu | Self::Gelu | Self::GeluTanh if v == f64::NEG_INFINITY => 0.0,
            Self::Silu => v * sigmoid(v),
            Self::Gelu => v * normal(v),
            Self::GeluTanh => v * sigmoid(tanh_argument(v)),
        }
    }

    /// f'(v). At a NaN it is NaN, but with two straight lines that below 0. At a kink it is that of
    /// PyTorch: 0 for ReLU at 0 and ReLU6 at 0 and 6, the slope at 0, alpha at 0, 0 and 1 for
    /// hardswish at −3 and 3.
    pub fn derivative(self, v: f64) -> f64 {
        match self {
            Self::None => 1.0,
            Self::Relu => f64::from(v > 0.0),
            Self::LeakyRelu(slope) => {
                if v > 0.0 {
                    1.0
                } else {
                    slope
                }
            }
            _ if v.is_nan() => v,
            Self::Relu6 => f64::from(v > 0.0 && v < 6.0),
            Self::Hardswish if v <= -3.0 => 0.0,
            Self::Hardswish if v >= 3.0 => 1.0,
            Self::Hardswish => v / 3.0 + 0.5,
            Self::Elu(alpha) => {
                if v > 0.0 {
                    1.0
                } else {
                    alpha * v.exp()
                }
            }
            // Both limits are reached long before.
            Self::Silu | Self::Gelu | Self::GeluTanh if v.abs() > 1e3 => f64::from(v > 0.0),
            Self::Silu => sigmoid(v) * (1.0 + v * sigmoid(-v)),
            Self::Gelu => normal(v) + v * (-v * v / 2.0).exp() / (2.0 * PI).sqrt(),
            Self::GeluTanh => {
                let z = tanh_argument(v);
                let slope = 2.0 * (2.0 / PI).sqrt() * (1.0 + 3.0 * 0.044715 * v * v);
                sigmoid(z) * (1.0 + v * slope * sigmoid(-z))
            }
        }
    }

    /// At least the largest |f'|.
    pub fn steepest(self) -> f64 {
        match self {
            Self::None | Self::Relu | Self::Relu6 => 1.0,
            Self::LeakyRelu(number) | Self::Elu(number) => number.abs().max(1.0),
            Self::Silu => 1.1,
            Self::Hardswish => 1.5,
            Self::Gelu | Self::GeluTanh => 1.13,
        }
    }

    /// At least the largest |f''| between the kinks.
    pub fn most_curved(self) -> f64 {
        match self {
            Self::None | Self::Relu | Self::LeakyRelu(_) | Self::Relu6 => 0.0,
            Self::Silu => 0.5,
            Self::Hardswish => 1.0 / 3.0,
            Self::Gelu | Self::GeluTanh => 0.8,
            Self::Elu(alpha) => alpha.abs(),
        }
    }

    /// Where f or f' jumps.
    pub fn kinks(self) -> &'static [f64] {
        match self {
            Self::None | Self::Silu | Self::Gelu | Self::GeluTanh => &[],
            Self::Relu | Self::LeakyRelu(_) | Self::Elu(_) => &[0.0],
            Self::Relu6 => &[0.0, 6.0],
            Self::Hardswish => &[-3.0, 3.0],
        }
    }
}

/// 1/(1 + e⁻ᶻ), without a difference on either side of 0.
fn sigmoid(z: f64) -> f64 {
    if z < 0.0 { z.exp() / (1.0 + z.exp()) } else { 1.0 / (1.0 + (-z).exp()) }
}

/// (1 + tanh(u))/2 = σ(2u): this is 2u.
fn tanh_argument(v: f64) -> f64 {
    2.0 * (2.0 / PI).sqrt() * (v + 0.044715 * v.powi(3))
}

/// Φ(v) = erfc(−v/√2)/2.
fn normal(v: f64) -> f64 {
    let half = erfc(v.abs() * FRAC_1_SQRT_2) / 2.0;
    if v < 0.0 { half } else { 1.0 - half }
}

/// The complement of the error function for x of 0 and above: 1 less the series of erf with
/// positive terms where x is small, else the continued fraction of Laplace.
fn erfc(x: f64) -> f64 {
    let density = (-x * x).exp() / PI.sqrt();
    if x < 1.0 {
        let mut term = 2.0 * x;
        let mut sum = 0.0;
        for n in 1..60 {
            sum += term;
            term *= 2.0 * x * x / f64::from(2 * n + 1);
        }
        return 1.0 - density * sum;
    }
    // x + (1/2)/(x + 1/(x + (3/2)/(x + …))), from the inside.
    let fraction = (1..=400).rev().fold(x, |tail, k| x + f64::from(k) / 2.0 / tail);
    density / fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_function_has_its_known_values() {
        let known = [
            (0.0, 1.0),
            (0.5, 0.479_500_122_186_953_5),
            (1.0, 0.157_299_207_050_285_13),
            (2.0, 4.677_734_981_047_266e-3),
            (5.0, 1.537_459_794_428_035e-12),
        ];
        for (x, expected) in known {
            assert!((erfc(x) / expected - 1.0).abs() < 1e-13, "{x}: {}", erfc(x));
        }
        // Both forms where they meet.
        assert!((erfc(1.0 - 1e-15) / erfc(1.0) - 1.0).abs() < 1e-13);
    }

    #[test]
    fn derivatives_are_those_of_the_values() {
        use Activation::*;
        for f in [None, Relu, LeakyRelu(0.1), Relu6, Silu, Hardswish, Gelu, GeluTanh, Elu(1.5)] {
            let mut last = f.derivative(-800.5 / 80.0);
            for i in -800..800 {
                let v = (f64::from(i) + 0.5) / 80.0;
                let h = 1e-6;
                let slope = (f.value(v + h) - f.value(v - h)) / (2.0 * h);
                assert!((slope - f.derivative(v)).abs() < 1e-8, "{f:?} at {v}");
                assert!(f.derivative(v).abs() <= f.steepest(), "{f:?} at {v}");
                let jumps = f.kinks().iter().any(|kink| (v - kink).abs() < 0.02);
                let curved = (f.derivative(v) - last).abs() * 80.0;
                assert!(jumps || curved <= f.most_curved() + 1e-9, "{f:?} at {v}: {curved}");
                last = f.derivative(v);
            }
        }
    }
}
