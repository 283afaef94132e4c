//! Values of all ranks, after the all-reduce.

use crate::config::{Renorm, RunningVariance};

use super::{GradientSums, Grid, Moments, Normalization, RunningStats, ValueRange};

/// Merged values of every channel over all ranks: [`GlobalStatistics`] or [`GlobalGradientSums`].
/// All ranks have the same bits.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Global<T> {
    channels: Vec<T>,
    /// Ranges of x, if its sums were of integers. Backward uses the same.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    ranges: Option<Vec<ValueRange>>,
    /// The coefficients of a layer that renormalizes.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    renormalized: Option<Renormalized>,
}

/// The coefficients by which a batch is renormalized.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Renormalized {
    /// Running statistics before the batch.
    pub running: RunningStats,
    pub limits: Renorm,
}

/// Moments of every channel over all ranks.
pub type GlobalStatistics = Global<Moments>;

/// Gradient sums of every channel over all ranks.
pub type GlobalGradientSums = Global<GradientSums>;

impl<T> Global<T> {
    /// Made of given values, one for each channel.
    pub fn new(channels: impl IntoIterator<Item = T>) -> Self {
        Self { channels: channels.into_iter().collect(), ranges: None, renormalized: None }
    }

    /// The same with other values of the same channels.
    pub(crate) fn with_channels(&self, channels: Vec<T>) -> Self {
        Self { channels, ranges: self.ranges.clone(), renormalized: self.renormalized.clone() }
    }

    /// Merged values of every channel.
    pub fn channels(&self) -> &[T] {
        &self.channels
    }
}

impl Global<Moments> {
    /// The same with the ranges of its sums of integers.
    pub(crate) fn with_ranges(self, ranges: Vec<ValueRange>) -> Self {
        Self { ranges: Some(ranges), ..self }
    }

    /// Has the batch renormalized by the running statistics before it.
    pub(crate) fn set_renormalized(&mut self, running: RunningStats, limits: Renorm) {
        self.renormalized = Some(Renormalized { running, limits });
    }

    /// The coefficients by which the batch is renormalized.
    pub(crate) fn renormalized(&self) -> Option<&Renormalized> {
        self.renormalized.as_ref()
    }

    /// Ranges of x for every channel, if the sums were of integers.
    pub fn ranges(&self) -> Option<&[ValueRange]> {
        self.ranges.as_deref()
    }

    /// Grids for the sums of backward, if the sums were of integers.
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

    /// Running statistics of one batch: the mean and the chosen variance. Below two values it is
    /// always the biased one.
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

    /// The normalization with these statistics.
    pub(crate) fn normalization(&self, eps: f64) -> Normalization {
        let mean = self.channels.iter().map(|channel| channel.mean).collect();
        let batch_count = Some(self.count());
        let of_batch =
            Normalization { mean, inv_std: self.inv_std(eps), batch_count, batch: Vec::new() };
        match &self.renormalized {
            Some(Renormalized { running, limits }) => {
                of_batch.renormalized(&running.normalization(eps), *limits)
            }
            None => of_batch,
        }
    }
}
