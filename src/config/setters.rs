//! The `with_…` methods: a copy of the settings with one of them set.

use super::{Activation, AffineGradient, BatchNormConfig, Initializer, Momentum, RunningVariance};

impl BatchNormConfig {
    /// Sets `eps`.
    pub fn with_eps(self, eps: f64) -> Self {
        Self { eps, ..self }
    }

    /// Sets `momentum`.
    pub fn with_momentum(self, momentum: Momentum) -> Self {
        Self { momentum, ..self }
    }

    /// Sets whether there is a weight.
    pub fn with_weight(self, weight: bool) -> Self {
        Self { weight, ..self }
    }

    /// Sets whether there is a bias.
    pub fn with_bias(self, bias: bool) -> Self {
        Self { bias, ..self }
    }

    /// Sets whether there are a weight and a bias.
    pub fn with_affine(self, affine: bool) -> Self {
        self.with_weight(affine).with_bias(affine)
    }

    /// Sets whether running statistics are kept.
    pub fn with_track_running_stats(self, track_running_stats: bool) -> Self {
        Self { track_running_stats, ..self }
    }

    /// Sets the statistics that normalize.
    pub fn with_use_batch_statistics(self, use_batch_statistics: Option<bool>) -> Self {
        Self { use_batch_statistics, ..self }
    }

    /// Sets the variance that goes into the running variance.
    pub fn with_running_variance(self, running_variance: RunningVariance) -> Self {
        Self { running_variance, ..self }
    }

    /// Sets the gradients that backward returns for weight and bias.
    pub fn with_affine_gradient(self, affine_gradient: AffineGradient) -> Self {
        Self { affine_gradient, ..self }
    }

    /// Sets the operation on the normalized value before it is written.
    pub fn with_activation(self, activation: Activation) -> Self {
        Self { activation, ..self }
    }

    /// Sets whether a residual is added before the activation.
    pub fn with_residual(self, residual: bool) -> Self {
        Self { residual, ..self }
    }

    /// Sets whether forward keeps a mask of the activation. With it backward needs no residual.
    pub fn with_activation_mask(self, activation_mask: bool) -> Self {
        Self { activation_mask, ..self }
    }

    /// Sets whether weight and bias are frozen: applied and saved, but without a gradient.
    pub fn with_freeze_affine(self, freeze_affine: bool) -> Self {
        Self { freeze_affine, ..self }
    }

    /// Sets the initial weight.
    pub fn with_weight_init(self, weight_init: Initializer) -> Self {
        Self { weight_init, ..self }
    }

    /// Sets the initial bias.
    pub fn with_bias_init(self, bias_init: Initializer) -> Self {
        Self { bias_init, ..self }
    }

    /// Sets the initial running mean.
    pub fn with_running_mean_init(self, running_mean_init: Initializer) -> Self {
        Self { running_mean_init, ..self }
    }

    /// Sets the initial running variance.
    pub fn with_running_var_init(self, running_var_init: Initializer) -> Self {
        Self { running_var_init, ..self }
    }

    /// Sets the seed of random initial values.
    pub fn with_seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// Sets whether sums have the same bits for every split of a batch.
    ///
    /// These have the same bits for every split and order of the samples: count, mean, m2, running
    /// statistics, gradient sums, and with [`AffineGradient::GroupSum`] the gradients of weight and
    /// bias. On one kind of device, y and grad_input do too. The guide, "Any number of ranks", has
    /// what a network needs, and what depends on the activation.
    pub fn with_reproducible(self, reproducible: bool) -> Self {
        Self { reproducible, ..self }
    }
}
