//! The defaults of MindSpore's newer layer.

use super::BatchNormConfig;

impl BatchNormConfig {
    /// The defaults of `mindspore.mint.nn.SyncBatchNorm`: eps 1e-5, weight of the **new** batch 0.1
    /// (`None` there is [`Momentum::Cumulative`](super::Momentum::Cumulative) here), weight and
    /// bias, running statistics. Files have
    /// [`Naming::MINDSPORE_MINT`](crate::state::Naming::MINDSPORE_MINT).
    ///
    /// With `affine=False` the layer of MindSpore 2.7 to 2.10 has neither weight nor bias:
    /// [`with_affine(false)`](Self::with_affine). MindSpore's older layer has parameters that are
    /// not learned instead: [`with_freeze_affine(true)`](Self::with_freeze_affine).
    ///
    /// ```
    /// use syncbn::BatchNormConfig;
    /// let config = BatchNormConfig::mindspore_mint(64).with_track_running_stats(false);
    /// assert_eq!(config.eps, 1e-5);
    /// ```
    pub fn mindspore_mint(num_features: usize) -> Self {
        Self::torch(num_features)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Momentum, RunningVariance};

    #[test]
    fn the_newer_layer_has_the_opposite_meaning_of_momentum() {
        let [mint, older] = [BatchNormConfig::mindspore_mint(3), BatchNormConfig::mindspore(3)];
        assert_eq!(mint.momentum, Momentum::NewWeight(0.1));
        assert_eq!(older.momentum, Momentum::Decay(0.9));
        assert_eq!((mint.num_features, mint.eps, mint.freeze_affine), (3, 1e-5, false));
        assert!(mint.weight && mint.bias && mint.track_running_stats);
        assert_eq!(mint.running_variance, RunningVariance::Unbiased);
        assert_eq!(mint.use_batch_statistics, None);
    }
}
