//! Activations that are no two straight lines, and their derivatives: own functions, of which LLVM
//! makes loops over registers.
//!
//! Owns the choice of the curve, once per block, and NaN. Each curve is a file, with the formulas
//! of the shader of its name (`shaders/parts/curve_silu.wgsl` for [`silu`]): exponentials of
//! numbers of 0 and below, sums of positive terms, and one division. There is no table and no
//! branch, and the same value gives the same bits in every register and behind the last one.

mod elu;
mod exponential;
mod gelu;
mod gelu_tanh;
mod hardswish;
mod relu6;
mod sigmoid;
mod silu;
#[cfg(test)]
mod tests;

use crate::epilogue::Activation;

/// An activation f and its derivative. Neither is asked about NaN.
trait Curve: Copy {
    /// f(v).
    fn value(self, v: f32) -> f32;
    /// f'(v), finite also where v is not.
    fn derivative(self, v: f32) -> f32;
}

/// A loop that is compiled for every curve.
trait With {
    fn with(self, curve: impl Curve);
}

/// Calls with the curve of an activation, if that is one.
#[inline(always)]
fn with_curve(activation: Activation, call: impl With) {
    match activation {
        Activation::Relu6 => call.with(relu6::Relu6),
        Activation::Silu => call.with(silu::Silu),
        Activation::Hardswish => call.with(hardswish::Hardswish),
        Activation::Gelu => call.with(gelu::Gelu),
        Activation::GeluTanh => call.with(gelu_tanh::GeluTanh),
        Activation::Elu(alpha) => call.with(elu::Elu { alpha }),
        Activation::None | Activation::Relu | Activation::LeakyRelu(_) => {}
    }
}

/// v ← f(v); a NaN stays.
///
/// ```text
/// for value:  y = f(v);  v ← v where it is NaN, else y
/// ```
///
/// 1. The curve is chosen once per block, outside of the loop.
/// 2. The loop has no branch: NaN is a selection after the computation, so LLVM computes a register
///    of values at a time.
#[inline(always)]
pub(super) fn activate(v: &mut [f32], activation: Activation) {
    struct Values<'v>(&'v mut [f32]);
    impl With for Values<'_> {
        #[inline(always)]
        fn with(self, curve: impl Curve) {
            for v in self.0 {
                let value = curve.value(*v);
                *v = if v.is_nan() { *v } else { value };
            }
        }
    }
    with_curve(activation, Values(v));
}

/// g ← g·f'(v): NaN where v is, and 0 for a derivative of 0 also where g is infinite.
///
/// ```text
/// for value:  d = f'(v);  p = 0 where d is 0, else g·d;  g ← v where v is NaN, else p
/// ```
///
/// As in [`activate`], the curve is chosen once per block, and both conditions are selections.
#[inline(always)]
pub(super) fn gate(g: &mut [f32], v: &[f32], activation: Activation) {
    struct Gradients<'v>(&'v mut [f32], &'v [f32]);
    impl With for Gradients<'_> {
        #[inline(always)]
        fn with(self, curve: impl Curve) {
            for (g, v) in self.0.iter_mut().zip(self.1) {
                let derivative = curve.derivative(*v);
                let product = if derivative == 0.0 { 0.0 } else { *g * derivative };
                *g = if v.is_nan() { *v } else { product };
            }
        }
    }
    with_curve(activation, Gradients(g, v));
}
