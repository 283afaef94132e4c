//! The statistics of the whole group.

use super::normalization::inv_std;
use super::{ChannelStats, Normalization};

/// Statistics of the whole group, per channel.
#[derive(Clone, Debug, PartialEq)]
pub struct GlobalStats {
    channels: Vec<ChannelStats>,
    inv_std: Vec<f64>,
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

    /// What normalizes with these statistics.
    pub fn normalization(&self) -> Normalization {
        let mean = self.channels.iter().map(|channel| channel.mean).collect();
        Normalization { mean, inv_std: self.inv_std.clone(), batch_count: Some(self.count()) }
    }
}
