//! What all ranks have, after the all-reduce.

use crate::config::RunningVariance;

use super::{GradientSums, Grid, Moments, Normalization, RunningStats, ValueRange};

/// What all ranks have of every channel, the same bits on each: [`GlobalStatistics`] or
/// [`GlobalGradientSums`].
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Global<T> {
    channels: Vec<T>,
    /// Ranges of x, where its sums were of integers: backward sums by the same.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    ranges: Option<Vec<ValueRange>>,
}

/// Moments of every channel over all ranks.
pub type GlobalStatistics = Global<Moments>;

/// Gradient sums of every channel over all ranks.
pub type GlobalGradientSums = Global<GradientSums>;

impl<T> Global<T> {
    /// Of given values, one for each channel.
    pub fn new(channels: impl IntoIterator<Item = T>) -> Self {
        Self { channels: channels.into_iter().collect(), ranges: None }
    }

    /// The same with other values of the same channels.
    pub(crate) fn with_channels(&self, channels: Vec<T>) -> Self {
        Self { channels, ranges: self.ranges.clone() }
    }

    /// What all ranks have of every channel.
    pub fn channels(&self) -> &[T] {
        &self.channels
    }
}

impl Global<Moments> {
    /// The same with the ranges that their sums of integers were of.
    pub(crate) fn with_ranges(self, ranges: Vec<ValueRange>) -> Self {
        Self { ranges: Some(ranges), ..self }
    }

    /// Ranges of x of every channel, where the sums were of integers.
    pub fn ranges(&self) -> Option<&[ValueRange]> {
        self.ranges.as_deref()
    }

    /// By which backward sums, where the sums were of integers.
    pub(crate) fn grids(&self) -> Option<Vec<Grid>> {
        self.ranges().map(|ranges| ranges.iter().map(ValueRange::grid).collect())
    }

    /// Values per channel over all ranks, the same for every channel.
    pub fn count(&self) -> u64 {
        self.channels.first().map_or(0, |channel| channel.count)
    }

    /// 1/√(var + eps) of every channel, with the biased variance; 0 where var + eps is 0.
    pub fn inv_std(&self, eps: f64) -> Vec<f64> {
        self.channels.iter().map(|channel| channel.inv_std(eps)).collect()
    }

    /// These as running statistics that have seen one batch: the mean, and the variance asked for,
    /// which is the biased one in any case below two values.
    pub fn to_running(&self, variance: RunningVariance) -> RunningStats {
        let var = |channel: &Moments| match variance {
            RunningVariance::Unbiased if channel.count > 1 => channel.var_unbiased() as f32,
            _ => channel.var_biased() as f32,
        };
        RunningStats {
            mean: self.channels.iter().map(|channel| channel.mean as f32).collect(),
            var: self.channels.iter().map(var).collect(),
            num_batches_tracked: 1,
        }
    }

    /// What normalizes with these statistics.
    pub(crate) fn normalization(&self, eps: f64) -> Normalization {
        let mean = self.channels.iter().map(|channel| channel.mean).collect();
        Normalization { mean, inv_std: self.inv_std(eps), batch_count: Some(self.count()) }
    }
}
