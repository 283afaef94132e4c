//! The settings of a layer as plain data that serde can write and read, and their checks.
//!
//! Begin with [`BatchNormConfig::torch`], [`BatchNormConfig::mindspore`] or
//! [`BatchNormConfig::mindspore_mint`], which have the frameworks' defaults. Change single settings
//! with the `with_…` methods. [`TorchArguments`] and [`MindSporeArguments`] have the frameworks'
//! own parameter names.

mod activation;
mod call;
mod check;
mod conventions;
#[cfg(feature = "serde")]
mod defaults;
mod initializer;
mod manifest;
mod mint;
mod renorm;
mod setters;

pub(crate) use call::{Mode, Statistics};
pub use conventions::{MindSporeArguments, TorchArguments};
pub use initializer::Initializer;
pub use renorm::Renorm;

pub use crate::epilogue::Activation;

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
    /// Added to the variance under the root. Finite, at least 0. With 0 a constant channel gives y =
    /// bias.
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
    /// input with an f32 output that it walks value by value, and backward reads the residual:
    /// [`Saved::needs_residual`](crate::Saved::needs_residual) says so.
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
