//! What happens to the normalized value before it is written: a residual is added, an activation is
//! applied.

/// The end of the layer: y = act(v), with v = normalized, or normalized + residual.
///
/// It is fused into the kernels that normalize and differentiate. Backward computes v again from x,
/// and from the residual if there is one. With
/// [`activation_mask`](crate::BatchNormConfig::activation_mask) forward keeps the sign of every v
/// as one bit, and backward reads that instead.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Activation {
    /// y = v.
    #[default]
    None,
    /// y = max(v, 0); a NaN stays.
    Relu,
    /// y = v above 0, slope·v elsewhere.
    LeakyRelu(f32),
}

impl Activation {
    /// The factor of values of 0 and below; 1 without an activation.
    pub(crate) fn slope(self) -> f32 {
        match self {
            Self::None => 1.0,
            Self::Relu => 0.0,
            Self::LeakyRelu(slope) => slope,
        }
    }
}

/// What follows normalization in the same kernel: a residual, an activation, both.
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

    /// The factor of the activation for values of 0 and below; 1 without an activation.
    pub fn slope(self) -> f32 {
        self.activation.slope()
    }
}
