//! Bounds for the errors of results that are computed in f32: [`Preactivation`] has those of y
//! before its activation, [`Terms`] those of the gradients.
//!
//! Let k = |weight|·inv_std, x̂ = (x − mean)·inv_std, and ⟨·⟩ the average of absolute values over
//! the values of the statistics. The terms that are rounded in the computation of a gradient are at
//! most as large as
//!
//! ```text
//! grad_bias    Σ|g|
//! grad_weight  Σ|g·x̂| + e·Σ|g|                   e: by an error of the mean in x̂, times g
//! grad_input   k·( max|g| + ⟨g⟩ + max|x̂|·⟨g·x̂⟩   g, A/N, and (x − mean)·inv_std²·B/N
//!                  + e·(max|x̂|·⟨g⟩ + ⟨g·x̂⟩) )    e: by that in B and in x − mean
//! ```
//!
//! A statistic and a gradient have a few dozen roundings of random sign (the longest way: both
//! deviations from the mean, 16 values of an invocation, 16 and 16 lanes, batches of tiles,
//! inv_std², the product). The bound is [`TOLERANCE`] times the sum of the terms. e is
//! [`mean_error`]. Running statistics are exact: e is 0 with them, and grad_input is k·max|g|.
//!
//! Behind an activation g itself may be off, by a slack s: where rounding decides on the sign of v,
//! or where a derivative depends on v. That adds Σs to the bound of grad_bias and Σs·|x̂| to that
//! of grad_weight. Through the sums, it adds k·(⟨s⟩ + max|x̂|·⟨s·x̂⟩) to that of grad_input. What it
//! adds there directly differs between values: k·s.

mod preactivation;

pub use preactivation::{Call, Preactivation, Statistics};

/// Half an ulp of 1 in f32.
pub const HALF_ULP: f64 = 1.0 / (1u64 << 24) as f64;

/// The allowed error, relative to the terms that are rounded: sixteen half ulp.
pub const TOLERANCE: f64 = 16.0 * HALF_ULP;

/// e: deviation·inv_std for the error of the batch's mean, and u·|mean|·inv_std for what one f32
/// cannot hold of it.
pub fn mean_error(mean: f64, var_biased: f64, inv_std: f64) -> f64 {
    (var_biased.sqrt() + HALF_ULP * mean.abs()) * inv_std
}

/// The terms that the bounds of a channel depend on, over one rank or over the group.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Terms {
    /// Values seen.
    pub values: f64,
    /// max|g|.
    pub max_g: f64,
    /// max|x̂|.
    pub max_xhat: f64,
    /// Σ|g|.
    pub sum_g: f64,
    /// Σ|g·x̂|.
    pub sum_g_xhat: f64,
    /// Σs, where g may be off.
    pub slack: f64,
    /// Σs·|x̂|.
    pub slack_xhat: f64,
}

impl Terms {
    /// Takes in one value.
    pub fn see(&mut self, g: f64, xhat: f64) {
        self.values += 1.0;
        self.max_g = self.max_g.max(g.abs());
        self.max_xhat = self.max_xhat.max(xhat.abs());
        self.sum_g += g.abs();
        self.sum_g_xhat += (g * xhat).abs();
    }

    /// Takes in by how much g of a value may be off.
    pub fn see_slack(&mut self, slack: f64, xhat: f64) {
        self.slack += slack;
        self.slack_xhat += slack * xhat.abs();
    }

    /// Those of both.
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        Self {
            values: self.values + other.values,
            max_g: self.max_g.max(other.max_g),
            max_xhat: self.max_xhat.max(other.max_xhat),
            sum_g: self.sum_g + other.sum_g,
            sum_g_xhat: self.sum_g_xhat + other.sum_g_xhat,
            slack: self.slack + other.slack,
            slack_xhat: self.slack_xhat + other.slack_xhat,
        }
    }

    /// Those of all ranks, given the ones of each rank and channel.
    pub fn of_group(ranks: &[Vec<Self>], channel: usize) -> Self {
        ranks.iter().map(|rank| rank[channel]).fold(Self::default(), Self::merge)
    }

    /// Of the gradient of the bias.
    pub fn of_bias(&self) -> f64 {
        TOLERANCE * self.sum_g + self.slack
    }

    /// Of the gradient of the weight.
    pub fn of_weight(&self, mean_error: f64) -> f64 {
        TOLERANCE * (self.sum_g_xhat + mean_error * self.sum_g) + self.slack_xhat
    }

    /// Of the gradient of the input, without k·s of the value itself; without `mean_error` for
    /// statistics that do not depend on the batch.
    pub fn of_input(&self, k: f64, mean_error: Option<f64>) -> f64 {
        let Some(mean_error) = mean_error else { return TOLERANCE * k * self.max_g };
        let average = |sum: f64| sum / self.values;
        let g = average(self.sum_g);
        let g_xhat = average(self.sum_g_xhat);
        let rounded = g + self.max_xhat * g_xhat + mean_error * (self.max_xhat * g + g_xhat);
        let slack = average(self.slack) + self.max_xhat * average(self.slack_xhat);
        TOLERANCE * k * (self.max_g + rounded) + k * slack
    }
}

/// The distance from |value| to the next f32.
pub fn ulp(value: f64) -> f64 {
    let value = value.abs() as f32;
    f64::from(value.next_up()) - f64::from(value)
}

/// Largest rounding error of a smaller floating-point type for a value of this size: half of its
/// last place. The type has `places` binary places after the leading one, and its smallest normal
/// value is 2 to the power of `smallest`.
pub fn half_place(value: f64, places: i32, smallest: i32) -> f64 {
    let exponent =
        if value == 0.0 { smallest } else { (value.abs().log2().floor() as i32).max(smallest) };
    2f64.powi(exponent - places - 1)
}
