//! The settings of a layer as plain data that serde can write and read, and their checks.
//!
//! Begin with [`BatchNormConfig::torch`], [`BatchNormConfig::mindspore`] or
//! [`BatchNormConfig::mindspore_mint`], which have the frameworks' defaults. Change single settings
//! with the `with_…` methods. [`TorchArguments`] and [`MindSporeArguments`] have the frameworks'
//! own parameter names.

mod activation;
mod call;
mod conventions;
#[cfg(feature = "serde")]
mod defaults;
mod initializer;
mod manifest;
mod mint;
mod renorm;

pub(crate) use call::{Mode, Statistics};
pub use conventions::{MindSporeArguments, TorchArguments};
pub use initializer::Initializer;
pub use renorm::Renorm;

pub use crate::epilogue::Activation;

use crate::error::ConfigError;

/// Settings of a batch normalization layer.
///
/// With serde, settings that the data does not mention have PyTorch's defaults, those of
/// [`torch`](Self::torch). `num_features` is needed. An unknown name is an error.
///
/// ```
/// use syncbn::{BatchNormConfig, config::Momentum};
/// let config = BatchNormConfig::torch(64).with_momentum(Momentum::Cumulative).with_affine(false);
/// config.validate()?;
/// # Ok::<(), syncbn::error::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(deny_unknown_fields)
)]
#[non_exhaustive]
pub struct BatchNormConfig {
    /// C, the channels of every input. At least 1.
    pub num_features: usize,
    /// Added to the variance under the root. Finite. With 0 a constant channel gives y = bias.
    #[cfg_attr(feature = "serde", serde(default = "defaults::eps"))]
    pub eps: f64,
    /// The weight of a batch in the running statistics.
    #[cfg_attr(feature = "serde", serde(default = "defaults::momentum"))]
    pub momentum: Momentum,
    /// Whether the layer scales by a learned weight (gamma).
    #[cfg_attr(feature = "serde", serde(default = "defaults::yes"))]
    pub weight: bool,
    /// Whether the layer shifts by a learned bias (beta).
    #[cfg_attr(feature = "serde", serde(default = "defaults::yes"))]
    pub bias: bool,
    /// Whether weight and bias are applied and saved but get no gradient.
    #[cfg_attr(feature = "serde", serde(default))]
    pub freeze_affine: bool,
    /// Whether running statistics are kept for evaluation.
    #[cfg_attr(feature = "serde", serde(default = "defaults::yes"))]
    pub track_running_stats: bool,
    /// Choice of the statistics that normalize. `None`: the batch's in training, the running ones
    /// in evaluation. `Some(true)`: always the batch's. `Some(false)`: always the running ones.
    #[cfg_attr(feature = "serde", serde(default))]
    pub use_batch_statistics: Option<bool>,
    /// The variance that goes into the running variance.
    #[cfg_attr(feature = "serde", serde(default))]
    pub running_variance: RunningVariance,
    /// The gradients that backward returns for weight and bias, in calls that communicate.
    #[cfg_attr(feature = "serde", serde(default))]
    pub affine_gradient: AffineGradient,
    /// The operation on the normalized value before it is written.
    #[cfg_attr(feature = "serde", serde(default))]
    pub activation: Activation,
    /// Whether a residual is added before the activation.
    #[cfg_attr(feature = "serde", serde(default))]
    pub residual: bool,
    /// Whether forward keeps a mask of one bit per value for backward, with ReLU or leaky ReLU
    /// after a residual. It is an error with any other activation. Backward then needs no
    /// residual. The mask takes 1/32 of the memory of an f32 input. A GPU keeps none for a 16-bit
    /// input with an f32 output, and backward reads the residual.
    #[cfg_attr(feature = "serde", serde(default))]
    pub activation_mask: bool,
    /// Initial weight.
    #[cfg_attr(feature = "serde", serde(default = "defaults::ones"))]
    pub weight_init: Initializer,
    /// Initial bias.
    #[cfg_attr(feature = "serde", serde(default = "defaults::zeros"))]
    pub bias_init: Initializer,
    /// Initial running mean.
    #[cfg_attr(feature = "serde", serde(default = "defaults::zeros"))]
    pub running_mean_init: Initializer,
    /// Initial running variance. No value is negative.
    #[cfg_attr(feature = "serde", serde(default = "defaults::ones"))]
    pub running_var_init: Initializer,
    /// Seed of random initial values.
    #[cfg_attr(feature = "serde", serde(default))]
    pub seed: u64,
    /// Whether batch statistics and gradient sums are sums of integers. Their bits do not depend
    /// on the split of a batch. Each pass costs one more read of x or grad_output and, but for a
    /// [`BatchNorm`](crate::BatchNorm), one exchange more; channels with far outliers cost
    /// another.
    #[cfg_attr(feature = "serde", serde(default))]
    pub reproducible: bool,
    /// Batch renormalization, in calls that normalize with the statistics of the group's batch. It
    /// needs running statistics and an eps above 0. `SyncBatchNorm` has it.
    #[cfg_attr(feature = "serde", serde(default))]
    pub renorm: Option<Renorm>,
}

/// The update of running statistics by a batch: `running ← (1 − f)·running + f·batch`.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Momentum {
    /// f itself, the weight of the new batch: PyTorch's meaning.
    NewWeight(f64),
    /// 1 − f, the weight of the old value: the meaning of MindSpore, Keras, Flax, ONNX.
    Decay(f64),
    /// f = 1 / num_batches_tracked: the plain average of all batches.
    Cumulative,
}

impl Momentum {
    /// f for the step with which the counter becomes `num_batches_tracked`.
    pub fn new_weight(self, num_batches_tracked: u64) -> f64 {
        match self {
            Self::NewWeight(weight) => weight,
            Self::Decay(decay) => 1.0 - decay,
            Self::Cumulative => 1.0 / num_batches_tracked.max(1) as f64,
        }
    }
}

/// The variance that goes into the running variance. Normalization itself always uses the biased
/// one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum RunningVariance {
    /// m2 / (N − 1), as PyTorch and MindSpore.
    #[default]
    Unbiased,
    /// m2 / N, as Keras, Flax, Paddle, ONNX and Burn.
    Biased,
}

/// The gradients that backward returns for weight and bias, in calls that communicate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum AffineGradient {
    /// The rank's own sums; the trainer reduces them with all other gradients.
    #[default]
    Local,
    /// The sum over the group.
    GroupSum,
    /// The sum over the group divided by the number of its ranks.
    GroupMean,
}

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

    /// Checks every setting's range. Initializers are checked when a layer is made of them.
    ///
    /// # Errors
    /// [`ConfigError::OutOfRange`] names the first setting outside its range,
    /// [`ConfigError::Conflict`] one that another excludes.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.num_features == 0 || u32::try_from(self.num_features).is_err() {
            return out_of_range("num_features", self.num_features as f64, "1 to 4294967295");
        }
        if !(self.eps >= 0.0 && self.eps.is_finite()) {
            return out_of_range("eps", self.eps, "finite and at least 0");
        }
        if self.use_batch_statistics == Some(false) && !self.track_running_stats {
            let setting = "use_batch_statistics = Some(false)";
            return Err(ConfigError::Conflict {
                setting,
                needs: "track_running_stats = true, to have what to normalize with",
            });
        }
        self.check_activation()?;
        self.check_renorm()?;
        match self.momentum {
            Momentum::NewWeight(momentum) | Momentum::Decay(momentum)
                if !(0.0..=1.0).contains(&momentum) =>
            {
                out_of_range("momentum", momentum, "0 to 1")
            }
            _ => Ok(()),
        }
    }
}

impl BatchNormConfig {
    fn check_activation(&self) -> Result<(), ConfigError> {
        match self.activation {
            Activation::LeakyRelu(slope) if !slope.is_finite() => {
                return out_of_range("slope of LeakyRelu", slope.into(), "finite numbers");
            }
            Activation::Elu(alpha) if !alpha.is_finite() => {
                return out_of_range("alpha of Elu", alpha.into(), "finite numbers");
            }
            _ => {}
        }
        if self.activation_mask && self.epilogue().curve().is_some() {
            return Err(ConfigError::Conflict {
                setting: "activation_mask = true",
                needs: "Relu or LeakyRelu, whose derivative one bit tells",
            });
        }
        Ok(())
    }
}

fn out_of_range(name: &'static str, found: f64, allowed: &'static str) -> Result<(), ConfigError> {
    Err(ConfigError::OutOfRange { name, found, allowed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_setting_outside_its_range_is_named() {
        let base = BatchNormConfig::torch(4);
        let named = |config: BatchNormConfig| match config.validate() {
            Err(ConfigError::OutOfRange { name, .. }) => name,
            other => panic!("expected an error, found {other:?}"),
        };
        assert_eq!(named(BatchNormConfig::torch(0)), "num_features");
        assert_eq!(named(base.clone().with_eps(-1e-9)), "eps");
        assert_eq!(named(base.clone().with_eps(f64::NAN)), "eps");
        assert_eq!(named(base.clone().with_momentum(Momentum::NewWeight(1.5))), "momentum");
        assert_eq!(named(base.clone().with_momentum(Momentum::Decay(f64::NAN))), "momentum");
        assert_eq!(base.with_eps(0.0).with_momentum(Momentum::Decay(1.0)).validate(), Ok(()));
    }
}
