//! The statistics that a call normalizes with, and their form for devices, forward and backward.

use bytemuck::{Pod, Zeroable};

use super::GradientSums;
use crate::config::Renorm;

/// Mean and inverse deviation per channel, and whether they depend on the batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Normalization {
    /// Mean, (C).
    pub mean: Vec<f64>,
    /// 1/√(var + eps), (C); 0 where var + eps is 0.
    pub inv_std: Vec<f64>,
    /// Values per channel of the batch. `None` for running statistics, which are constants for the
    /// gradient.
    pub batch_count: Option<u64>,
    /// Mean and 1/√(var + eps) of the batch, (C), if they are others: of a renormalized batch,
    /// whose x̂·r + d is (x − mean)·inv_std. Empty if not.
    pub batch: Vec<[f64; 2]>,
}

/// Parameters for centering and scaling one channel on a device: mean = pivot + rest, each an f32,
/// and 1/√(var + eps). Their unit keeps every deviation within the range of f32.
///
/// A mean in one f32 would be off by up to half an ulp of the mean. If mean ≫ deviation, that is
/// many deviations.
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct Centering {
    /// mean·unit, rounded to f32: the same bits on every rank.
    pub pivot: f32,
    /// mean·unit − pivot.
    pub rest: f32,
    /// 1/(unit·√(var + eps)), 0 where var + eps is 0.
    pub inv_std: f32,
    /// A power of two. It is 1 unless values of the channel are beyond 2¹⁰⁰ or deviations below
    /// 2⁻⁹⁰.
    pub unit: f32,
}

/// Parameters for the gradient of one channel's input on a device.
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct GradCentering {
    /// As in forward.
    pub center: Centering,
    /// A/N with A = Σg over the group. 0 if the statistics are constants, NaN if one of the sums is
    /// not finite.
    pub mean_dy: f32,
    /// B/(N·unit·(var + eps)) with B = Σ g·(x − mean) over the group. 0 if the statistics are
    /// constants.
    pub projection: f32,
}

/// Parameters of a channel that is not finite. Every result of them is NaN.
const NOT_FINITE: Centering =
    Centering { pivot: f32::NAN, rest: f32::NAN, inv_std: f32::NAN, unit: 1.0 };

impl Normalization {
    /// Parameters of forward for the devices.
    pub fn centering(&self) -> Vec<Centering> {
        self.mean.iter().zip(&self.inv_std).map(|(&mean, &inv_std)| center(mean, inv_std)).collect()
    }

    /// Parameters of backward for the devices, from the sums over the same values as the
    /// statistics.
    pub fn grad_centering(&self, sums: &[GradientSums]) -> Vec<GradCentering> {
        let divisor = self.batch_count.unwrap_or(0).max(1) as f64;
        let channels = self.centering().into_iter().zip(&self.inv_std).zip(sums).enumerate();
        channels
            .map(|(channel, ((center, inv_std), sums))| {
                if self.batch_count.is_none() {
                    return GradCentering { center, mean_dy: 0.0, projection: 0.0 };
                }
                let about_batch = self.batch.get(channel).map(|&[mean, inv_std]| {
                    let moved = self.mean[channel] - mean;
                    let sum = sums.sum_dy_xmu + moved * sums.sum_dy;
                    let projection = inv_std * (inv_std * sum / divisor);
                    [sums.sum_dy / divisor + moved * projection, projection]
                });
                let [mean_dy, projection] = about_batch.unwrap_or_else(|| {
                    let projection = inv_std * (inv_std * sums.sum_dy_xmu / divisor);
                    [sums.sum_dy / divisor, projection]
                });
                let mean_dy = mean_dy as f32;
                let projection = (projection / f64::from(center.unit)) as f32;
                if mean_dy.is_finite() && projection.is_finite() {
                    GradCentering { center, mean_dy, projection }
                } else {
                    // The center stays, because the activation and the gradient of a residual need
                    // that of forward.
                    GradCentering { center, mean_dy: f32::NAN, projection: 0.0 }
                }
            })
            .collect()
    }

    /// The same with x̂·r + d in the place of x̂, by the running statistics.
    ///
    /// (x − mean')·inv_std' with inv_std' = r·inv_std and mean' = mean − d/inv_std' is x̂·r + d.
    /// The gradient of x with r and d constant is that of x̂ times r, so that backward needs the
    /// mean and inv_std of the batch too.
    pub fn renormalized(self, running: &Self, limits: Renorm) -> Self {
        let Renorm { r_max, d_max } = limits;
        let Self { mean, inv_std, batch_count, .. } = self;
        let batch: Vec<[f64; 2]> = mean.into_iter().zip(inv_std).map(|(m, s)| [m, s]).collect();
        let channels = batch.iter().zip(running.mean.iter().zip(&running.inv_std));
        let moved = channels.map(|(&[mean, inv_std], (&mean_running, &inv_std_running))| {
            // clamp keeps a NaN.
            let r = (inv_std_running / inv_std).clamp(1.0 / r_max, r_max);
            let d = ((mean - mean_running) * inv_std_running).clamp(-d_max, d_max);
            (mean - d / (r * inv_std), r * inv_std)
        });
        let (mean, inv_std) = moved.unzip();
        Self { mean, inv_std, batch_count, batch }
    }

    /// mean − pivot of every channel, in f64, with the pivot of [`centering`](Self::centering).
    pub fn rest(&self) -> impl Iterator<Item = f64> {
        let pivot = |center: Centering| f64::from(center.pivot) / f64::from(center.unit);
        let centers =
            self.mean.iter().zip(&self.inv_std).map(move |(&mean, &inv_std)| center(mean, inv_std));
        self.mean.iter().zip(centers).map(move |(mean, center)| mean - pivot(center))
    }
}

/// The unit in which f32 holds a channel's values and deviations with all digits.
///
/// Unit 2⁻⁶⁴: values at most 2³² deviations from a mean of at most 2¹⁰⁰ are below 2¹³³·2⁻⁶⁴. Unit
/// 2⁶⁴: a deviation above 0 is at least 2⁻²⁴ of the mean, so the mean is below 2⁻⁵⁰.
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
    // Finite, also if f32 cannot hold the deviation. y is then too small to matter, but not NaN.
    let inv_std = (inv_std / unit).min(f64::from(f32::MAX)) as f32;
    Centering { pivot, rest: (mean - f64::from(pivot)) as f32, inv_std, unit: unit as f32 }
}

/// 1/√(var + eps). 0 if var + eps is 0, so a constant channel gives y = bias.
pub(super) fn inv_std(var: f64, eps: f64) -> f64 {
    let sum = var + eps;
    if sum == 0.0 { 0.0 } else { 1.0 / sum.sqrt() }
}
