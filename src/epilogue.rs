//! The epilogue: what is done to the normalized value before it is written, adding a residual and
//! activating.

/// The end of the layer: y = act(v) with v = normalized + residual.
///
/// Fused into the kernels that normalize and differentiate, so that v is not kept between forward
/// and backward: backward forms it again from x, and from the residual where there is one, unless
/// the layer keeps a mask of the activation.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
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

    /// What the activation multiplies values of 0 and below by; 1 without one.
    pub fn slope(self) -> f32 {
        match self {
            Self::None | Self::Add => 1.0,
            Self::Relu | Self::AddRelu => 0.0,
            Self::LeakyRelu(slope) => slope,
        }
    }
}
