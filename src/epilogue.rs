//! What happens to the normalized value before it is written: a residual is added, an activation is
//! applied.

/// The end of the layer: y = act(v), with v = normalized + residual.
///
/// It is fused into the kernels that normalize and differentiate. Backward computes v again from x,
/// and from the residual if there is one. With
/// [`activation_mask`](crate::BatchNormConfig::activation_mask) forward keeps the sign of every v
/// as one bit, and backward reads that instead.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Epilogue {
    /// y = v.
    #[default]
    None,
    /// y = max(v, 0); a NaN stays.
    Relu,
    /// y = v above 0, slope·v elsewhere.
    LeakyRelu(f32),
    /// y = v with v = normalized + residual.
    Add,
    /// y = max(v, 0) with v = normalized + residual.
    AddRelu,
}

impl Epilogue {
    /// Whether a residual is added.
    pub fn adds_residual(self) -> bool {
        matches!(self, Self::Add | Self::AddRelu)
    }

    /// Whether there is an activation.
    pub fn activates(self) -> bool {
        !matches!(self, Self::None | Self::Add)
    }

    /// The factor of the activation for values of 0 and below; 1 without an activation.
    pub fn slope(self) -> f32 {
        match self {
            Self::None | Self::Add => 1.0,
            Self::Relu | Self::AddRelu => 0.0,
            Self::LeakyRelu(slope) => slope,
        }
    }
}
