//! v·Φ(v), Φ(v) = (1 + erf(v/√2))/2 the normal distribution.

use super::Curve;
use super::exponential::exponential;

#[derive(Clone, Copy)]
pub(super) struct Gelu;

/// With a = |v|: e^(−a²/2), and Φ(−a) over it.
#[derive(Clone, Copy)]
struct Tail {
    a: f32,
    density: f32,
    ratio: f32,
}

/// Φ(−a) = e^(−a²/2)·ratio(a). The ratio falls from 1/2 like 1/(a·√(2π)), and is a quotient of
/// polynomials with positive coefficients within 2⁻²⁷ from 0 to 13.4 (least squares, with weights
/// moved until the largest errors were alike). Beyond, the first factor is 0.
///
/// a² is taken in two parts, the first of which is exact, so that the exponential has no more error
/// where a is large.
#[inline(always)]
fn tail(v: f32) -> Tail {
    let a = v.abs();
    let a = if a < 14.0 { a } else { 14.0 };
    let leading = f32::from_bits(a.to_bits() & 0xffff_f000);
    let density =
        exponential(0.5 * (leading * leading), 0.5 * ((a - leading) * (a + leading))).value();
    let above =
        0.5 + a * (0.435_918_54 + a * (0.181_477_92 + a * (0.040_041_65 + a * 0.004_028_671)));
    let below = 0.464_832_07 + a * (0.100_376_84 + a * 0.010_098_24);
    let below = 1.0 + a * (1.669_722 + a * (1.195_197 + a * below));
    Tail { a, density, ratio: above / below }
}

impl Curve for Gelu {
    #[inline(always)]
    fn value(self, v: f32) -> f32 {
        let Tail { density, ratio, .. } = tail(v);
        let below = density * ratio;
        v * if v < 0.0 { below } else { 1.0 - below }
    }

    /// Φ(v) + v·φ(v), φ(v) = e^(−v²/2)/√(2π).
    #[inline(always)]
    fn derivative(self, v: f32) -> f32 {
        const DENSITY_AT_0: f32 = 0.398_942_3;
        let Tail { a, density, ratio } = tail(v);
        let below = density * (ratio - a * DENSITY_AT_0);
        if v < 0.0 { below } else { 1.0 - below }
    }
}
