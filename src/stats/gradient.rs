//! The gradient sums of a channel, which backward exchanges.

/// Gradient sums of one channel, over a rank or over the group.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct GradientSums {
    /// Σg, the gradient of the bias.
    pub sum_dy: f64,
    /// Σ g·(x − mean). Its product with inv_std is the gradient of the weight.
    pub sum_dy_xmu: f64,
}

impl GradientSums {
    /// The sums over no value: the identity of [`merge`](Self::merge).
    pub const EMPTY: Self = Self { sum_dy: 0.0, sum_dy_xmu: 0.0 };

    /// Sums about the mean from `sum_dy_x` = Σ g·(x − pivot), where mean = pivot + rest.
    pub fn from_pivot(sum_dy: f64, sum_dy_x: f64, rest: f64) -> Self {
        Self { sum_dy, sum_dy_xmu: sum_dy_x - rest * sum_dy }
    }

    /// The sums over both sets of values.
    pub fn merge(self, other: Self) -> Self {
        Self { sum_dy: self.sum_dy + other.sum_dy, sum_dy_xmu: self.sum_dy_xmu + other.sum_dy_xmu }
    }
}
