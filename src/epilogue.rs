//! The end of a layer, between the normalized value and y: a residual is added, an activation is
//! applied.

/// The end of the layer: y = act(v), with v = normalized, or normalized + residual.
///
/// It is fused into the kernels that normalize and differentiate. Backward computes v again from x,
/// and from the residual if there is one. With
/// [`activation_mask`](crate::BatchNormConfig::activation_mask) forward keeps the sign of every v
/// as one bit, and backward reads that instead, where the activation is ReLU or leaky ReLU.
///
/// A NaN stays a NaN. An infinite v gives the limit, but −∞ gives NaN with SiLU and both forms of
/// GELU, as in PyTorch. PyTorch has NaN as well, of 0·∞, for the derivatives of these three at both
/// infinities and for hardswish of −∞. The functions are this crate's own, the same on every device
/// up to a few units in the last place; `docs/numerics.md` has their errors.
///
/// ```
/// use syncbn::config::Activation;
/// assert_eq!("SiLU".parse(), Ok(Activation::Silu));
/// assert_eq!("leaky_relu(0.2)".parse(), Ok(Activation::LeakyRelu(0.2)));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Activation {
    /// y = v.
    #[default]
    None,
    /// y = max(v, 0).
    Relu,
    /// y = v above 0, slope·v elsewhere.
    LeakyRelu(f32),
    /// y = min(max(v, 0), 6); the derivative is 0 at 0 and at 6.
    Relu6,
    /// y = v·σ(v) with σ(v) = 1/(1 + e⁻ᵛ); also called swish (Elfwing et al., 2017).
    Silu,
    /// y = v·min(max(v + 3, 0), 6)/6; the derivative is 0 at −3 and 1 at 3 (Howard et al., 2019,
    /// "Searching for MobileNetV3").
    Hardswish,
    /// y = v·(1 + erf(v/√2))/2 (Hendrycks and Gimpel, 2016).
    Gelu,
    /// y = v·(1 + tanh(√(2/π)·(v + 0.044715·v³)))/2, an approximation of GELU from the same paper.
    GeluTanh,
    /// y = v above 0, alpha·(eᵛ − 1) elsewhere; the derivative is alpha at 0 (Clevert et al.,
    /// 2015).
    Elu(f32),
}

/// How kernels compute an activation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// y = v.
    Identity,
    /// v above 0, a multiple of it elsewhere: one bit is enough for backward.
    TwoSlopes,
    /// Any other, by its number in `shaders/parts/curves.wgsl`; backward needs v.
    Curve(u32),
}

impl Activation {
    /// How kernels compute it.
    pub(crate) fn form(self) -> Form {
        match self {
            Self::None => Form::Identity,
            Self::Relu | Self::LeakyRelu(_) => Form::TwoSlopes,
            Self::Relu6 => Form::Curve(1),
            Self::Silu => Form::Curve(2),
            Self::Hardswish => Form::Curve(3),
            Self::Gelu => Form::Curve(4),
            Self::GeluTanh => Form::Curve(5),
            Self::Elu(_) => Form::Curve(6),
        }
    }

    /// The number that it is configured with; for two slopes that of values of 0 and below.
    pub(crate) fn number(self) -> f32 {
        match self {
            Self::None => 1.0,
            Self::LeakyRelu(slope) => slope,
            Self::Elu(alpha) => alpha,
            _ => 0.0,
        }
    }

    /// Its name in settings.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Relu => "relu",
            Self::LeakyRelu(_) => "leaky_relu",
            Self::Relu6 => "relu6",
            Self::Silu => "silu",
            Self::Hardswish => "hardswish",
            Self::Gelu => "gelu",
            Self::GeluTanh => "gelu_tanh",
            Self::Elu(_) => "elu",
        }
    }
}

/// A residual, an activation or both, fused with normalization into one kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Epilogue {
    /// Whether a residual is added.
    pub residual: bool,
    /// The activation of the sum.
    pub activation: Activation,
}

impl Epilogue {
    /// y = v.
    pub const NONE: Self = Self::of(Activation::None);
    /// y = max(v, 0).
    pub const RELU: Self = Self::of(Activation::Relu);
    /// y = v with v = normalized + residual.
    pub const ADD: Self = Self::NONE.after_residual();
    /// y = max(v, 0) with v = normalized + residual.
    pub const ADD_RELU: Self = Self::RELU.after_residual();

    /// An activation of the normalized value.
    pub const fn of(activation: Activation) -> Self {
        Self { residual: false, activation }
    }

    /// y = v above 0, slope·v elsewhere.
    pub const fn leaky_relu(slope: f32) -> Self {
        Self::of(Activation::LeakyRelu(slope))
    }

    /// The same activation after a residual was added.
    pub const fn after_residual(self) -> Self {
        Self { residual: true, ..self }
    }

    /// Whether a residual is added.
    pub fn adds_residual(self) -> bool {
        self.residual
    }

    /// Whether there is an activation.
    pub fn activates(self) -> bool {
        self.activation != Activation::None
    }

    /// Whether the slope of the activation is constant on either side of 0, so that its second
    /// derivative is 0.
    pub(crate) fn is_piecewise_linear(self) -> bool {
        matches!(self.activation.form(), Form::Identity | Form::TwoSlopes)
    }

    /// The factor of the activation for values of 0 and below, where it has two slopes; 1 without
    /// an activation.
    pub fn slope(self) -> f32 {
        self.activation.number()
    }

    /// Whether a mask of one bit per value is enough for backward.
    pub fn has_two_slopes(self) -> bool {
        self.activation.form() == Form::TwoSlopes
    }

    /// The number of the activation in `shaders/parts/curves.wgsl`, where it is there.
    pub fn curve(self) -> Option<u32> {
        match self.activation.form() {
            Form::Curve(number) => Some(number),
            Form::Identity | Form::TwoSlopes => None,
        }
    }
}
