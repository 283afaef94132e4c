//! The statistics of the whole group and what a device is told of them.

use bytemuck::{Pod, Zeroable};

use super::ChannelStats;

/// Statistics of the whole group, per channel.
#[derive(Clone, Debug, PartialEq)]
pub struct GlobalStats {
    channels: Vec<ChannelStats>,
    inv_std: Vec<f64>,
}

/// What a device needs to center and scale one channel: mean = pivot + rest, each a f32, and 1/√(var + eps).
///
/// A mean held in one f32 would be off by up to half an ulp of the mean, which is many deviations where mean ≫ deviation.
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct Centering {
    /// The mean, rounded to f32: the same bits on every rank.
    pub pivot: f32,
    /// mean − pivot.
    pub rest: f32,
    /// 1/√(var_biased + eps), 0 where var_biased + eps is 0.
    pub inv_std: f32,
    /// Fills the 16 bytes that the kernels read at once.
    pub padding: f32,
}

impl Centering {
    /// Rounds mean and inverse deviation for the device; both NaN where the channel is not finite.
    pub fn new(mean: f64, inv_std: f64) -> Self {
        if !(mean.is_finite() && inv_std.is_finite()) {
            return Self { pivot: f32::NAN, rest: f32::NAN, inv_std: f32::NAN, padding: 0.0 };
        }
        let pivot = mean as f32;
        // Finite also where the deviation itself has no f32: y is then far below what f32 distinguishes, but not NaN.
        let inv_std = inv_std.min(f64::from(f32::MAX)) as f32;
        Self { pivot, rest: (mean - f64::from(pivot)) as f32, inv_std, padding: 0.0 }
    }
}

/// 1/√(var + eps), and 0 where var + eps is 0, so that a constant channel gives y = bias.
pub(crate) fn inv_std(var: f64, eps: f64) -> f64 {
    let sum = var + eps;
    if sum == 0.0 { 0.0 } else { 1.0 / sum.sqrt() }
}

impl GlobalStats {
    /// Adds the inverse deviations to the merged moments.
    pub fn finalize(channels: Vec<ChannelStats>, eps: f64) -> Self {
        let inv_std = channels.iter().map(|channel| inv_std(channel.var_biased(), eps)).collect();
        Self { channels, inv_std }
    }

    /// The moments of every channel.
    pub fn channels(&self) -> &[ChannelStats] {
        &self.channels
    }

    /// 1/√(var_biased + eps) of every channel.
    pub fn inv_std(&self) -> &[f64] {
        &self.inv_std
    }

    /// Values per channel in the whole group, the same for every channel.
    pub fn count(&self) -> u64 {
        self.channels.first().map_or(0, |channel| channel.count)
    }

    /// What is sent to the devices.
    pub fn centering(&self) -> Vec<Centering> {
        self.channels
            .iter()
            .zip(&self.inv_std)
            .map(|(channel, &inv_std)| Centering::new(channel.mean, inv_std))
            .collect()
    }
}
