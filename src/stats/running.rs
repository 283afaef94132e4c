//! Running statistics: the state that evaluation normalizes with.

use super::normalization::inv_std;
use super::{GlobalStatistics, Normalization};
use crate::config::{Momentum, RunningVariance};

/// Running mean and variance per channel, in f32 as they are saved, and the number of batches they
/// have seen.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct RunningStats {
    /// Running mean, (C).
    pub mean: Vec<f32>,
    /// Running variance, (C).
    pub var: Vec<f32>,
    /// Training steps counted.
    pub num_batches_tracked: u64,
}

impl RunningStats {
    /// The state before the first step: mean 0, variance 1, no batch.
    pub fn new(channels: usize) -> Self {
        Self { mean: vec![0.0; channels], var: vec![1.0; channels], num_batches_tracked: 0 }
    }

    /// `running ← (1 − f)·running + f·batch` in f64, rounded once; counts the batch.
    ///
    /// A group without any value leaves everything as it was, the counter included. The unbiased
    /// variance needs two values. Callers refuse a single value before, and here it would leave the
    /// variance as it was.
    pub(crate) fn update(
        &mut self,
        global: &GlobalStatistics,
        momentum: Momentum,
        variance: RunningVariance,
    ) {
        if global.count() == 0 {
            return;
        }
        self.num_batches_tracked = self.num_batches_tracked.saturating_add(1);
        let weight = momentum.new_weight(self.num_batches_tracked);
        let running = self.mean.iter_mut().zip(&mut self.var);
        for ((mean, var), batch) in running.zip(global.channels()) {
            blend(mean, batch.mean, weight);
            match variance {
                RunningVariance::Biased => blend(var, batch.var_biased(), weight),
                RunningVariance::Unbiased if batch.count > 1 => {
                    blend(var, batch.var_unbiased(), weight)
                }
                RunningVariance::Unbiased => {}
            }
        }
    }

    /// The normalization with these statistics.
    pub(crate) fn normalization(&self, eps: f64) -> Normalization {
        let mean = self.mean.iter().copied().map(f64::from).collect();
        let inv_std = self.var.iter().map(|&var| inv_std(f64::from(var), eps)).collect();
        Normalization { mean, inv_std, batch_count: None, batch: Vec::new() }
    }
}

/// Moves `running` towards `batch`. With a weight of 0 or 1, one of the two has no effect, not even
/// as 0·NaN.
fn blend(running: &mut f32, batch: f64, weight: f64) {
    if weight == 1.0 {
        *running = batch as f32;
    } else if weight != 0.0 {
        *running = ((1.0 - weight) * f64::from(*running) + weight * batch) as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Moments;

    #[test]
    fn one_value_never_turns_the_unbiased_running_variance_into_nan() {
        for (variance, expected) in
            [(RunningVariance::Unbiased, 3.0), (RunningVariance::Biased, 1.5)]
        {
            let mut running =
                RunningStats { mean: vec![2.0], var: vec![3.0], num_batches_tracked: 0 };
            let global = GlobalStatistics::new([Moments { count: 1, mean: 4.0, m2: 0.0 }]);
            running.update(&global, Momentum::NewWeight(0.5), variance);
            assert_eq!((running.mean[0], running.var[0]), (3.0, expected));
        }
    }
}
