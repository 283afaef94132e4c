//! What a call normalizes with, and what devices get of it, forward and backward.

use bytemuck::{Pod, Zeroable};

use super::GradientSums;

/// Mean and inverse deviation per channel, and whether they depend on the batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Normalization {
    /// Mean, (C).
    pub mean: Vec<f64>,
    /// 1/√(var + eps), (C); 0 where var + eps is 0.
    pub inv_std: Vec<f64>,
    /// Values per channel that the statistics were taken of; `None` where they are running ones,
    /// constants for the gradient.
    pub batch_count: Option<u64>,
}

/// What a device needs to center and scale one channel: mean = pivot + rest, each a f32, and
/// 1/√(var + eps), in units in which no deviation leaves the range of f32.
///
/// A mean held in one f32 would be off by up to half an ulp of the mean, which is many deviations
/// where mean ≫ deviation.
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct Centering {
    /// mean·unit, rounded to f32: the same bits on every rank.
    pub pivot: f32,
    /// mean·unit − pivot.
    pub rest: f32,
    /// 1/(unit·√(var + eps)), 0 where var + eps is 0.
    pub inv_std: f32,
    /// A power of two: 1 unless values of the channel are beyond 2¹⁰⁰ or deviations below 2⁻⁹⁰.
    pub unit: f32,
}

/// What a device needs for the gradient of one channel's input.
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct GradCentering {
    /// As in forward.
    pub center: Centering,
    /// A/N, A = Σg over the group; 0 where the statistics are constants, NaN where one of the sums
    /// is not finite.
    pub mean_dy: f32,
    /// B/(N·unit·(var + eps)), B = Σ g·(x − mean) over the group; 0 where the statistics are
    /// constants.
    pub projection: f32,
}

/// What one channel sends where it is not finite: everything that is computed with it is NaN.
const NOT_FINITE: Centering =
    Centering { pivot: f32::NAN, rest: f32::NAN, inv_std: f32::NAN, unit: 1.0 };

impl Normalization {
    /// What forward sends to the devices.
    pub fn centering(&self) -> Vec<Centering> {
        self.mean.iter().zip(&self.inv_std).map(|(&mean, &inv_std)| center(mean, inv_std)).collect()
    }

    /// What backward sends to the devices, from the sums of all values that the statistics were
    /// taken of.
    pub fn grad_centering(&self, sums: &[GradientSums]) -> Vec<GradCentering> {
        let divisor = self.batch_count.unwrap_or(0).max(1) as f64;
        let channels = self.centering().into_iter().zip(&self.inv_std).zip(sums);
        channels
            .map(|((center, inv_std), sums)| {
                if self.batch_count.is_none() {
                    return GradCentering { center, mean_dy: 0.0, projection: 0.0 };
                }
                let mean_dy = (sums.sum_dy / divisor) as f32;
                let projection = (inv_std * (inv_std * sums.sum_dy_xmu / divisor)
                    / f64::from(center.unit)) as f32;
                if mean_dy.is_finite() && projection.is_finite() {
                    GradCentering { center, mean_dy, projection }
                } else {
                    // The center stays: by it the activation, and so the gradient of a residual,
                    // goes on as in forward.
                    GradCentering { center, mean_dy: f32::NAN, projection: 0.0 }
                }
            })
            .collect()
    }

    /// mean − pivot of every channel, in f64, with the pivot that [`centering`](Self::centering)
    /// sends.
    pub fn rest(&self) -> impl Iterator<Item = f64> {
        let pivot = |center: Centering| f64::from(center.pivot) / f64::from(center.unit);
        let centers =
            self.mean.iter().zip(&self.inv_std).map(move |(&mean, &inv_std)| center(mean, inv_std));
        self.mean.iter().zip(centers).map(move |(mean, center)| mean - pivot(center))
    }
}

/// The unit in which a channel's values and deviations have a f32 with all its digits.
///
/// Values of at most 2³² deviations from a mean of at most 2¹⁰⁰ are below 2¹³³·2⁻⁶⁴ in the one
/// unit; a deviation above 0 is at least 2⁻²⁴ of the mean, so that a mean of such deviations as
/// have the other is below 2⁻⁵⁰.
fn unit_of(mean: f64, inv_std: f64) -> f64 {
    let is_large = mean.abs() > 2f64.powi(100) || (inv_std > 0.0 && inv_std < 2f64.powi(-100));
    if is_large {
        2f64.powi(-64)
    } else if inv_std > 2f64.powi(90) {
        2f64.powi(64)
    } else {
        1.0
    }
}

fn center(mean: f64, inv_std: f64) -> Centering {
    if !(mean.is_finite() && inv_std.is_finite()) {
        return NOT_FINITE;
    }
    let unit = unit_of(mean, inv_std);
    let mean = mean * unit;
    let pivot = mean as f32;
    // Finite also where the deviation itself has no f32: y is then far below what f32
    // distinguishes, but not NaN.
    let inv_std = (inv_std / unit).min(f64::from(f32::MAX)) as f32;
    Centering { pivot, rest: (mean - f64::from(pivot)) as f32, inv_std, unit: unit as f32 }
}

/// 1/√(var + eps), and 0 where var + eps is 0, so that a constant channel gives y = bias.
pub(super) fn inv_std(var: f64, eps: f64) -> f64 {
    let sum = var + eps;
    if sum == 0.0 { 0.0 } else { 1.0 / sum.sqrt() }
}
