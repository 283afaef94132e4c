//! The parameters of PyTorch's layer, and the conversion to the configuration and back.

use super::{check_variance_and_gradient, refusal};
use crate::config::{AffineGradient, BatchNormConfig, Initializer, Momentum, RunningVariance};
use crate::epilogue::Activation;
use crate::error::ConfigError;

/// The parameters of `torch.nn.SyncBatchNorm`, under its names. `mindspore.mint.nn.SyncBatchNorm`
/// has the same ones except `bias`.
///
/// ```
/// use syncbn::{BatchNormConfig, config::TorchArguments};
/// let torch = TorchArguments { momentum: None, ..TorchArguments::new(64) };
/// let config = BatchNormConfig::from(torch);
/// assert_eq!(TorchArguments::try_from(&config)?, torch);
/// # Ok::<(), syncbn::error::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TorchArguments {
    /// C.
    pub num_features: usize,
    /// Added to the variance; 1e-5 by default.
    pub eps: f64,
    /// Weight of the new batch, 0.1 by default; `None` for the cumulative average.
    pub momentum: Option<f64>,
    /// Whether there is a weight, and with `bias` a bias; true by default.
    pub affine: bool,
    /// Whether an affine layer has a bias (newer versions); true by default.
    pub bias: bool,
    /// Whether running statistics are kept; true by default.
    pub track_running_stats: bool,
}

impl TorchArguments {
    /// PyTorch's defaults.
    pub fn new(num_features: usize) -> Self {
        Self {
            num_features,
            eps: 1e-5,
            momentum: Some(0.1),
            affine: true,
            bias: true,
            track_running_stats: true,
        }
    }
}

impl From<TorchArguments> for BatchNormConfig {
    fn from(torch: TorchArguments) -> Self {
        Self {
            num_features: torch.num_features,
            eps: torch.eps,
            momentum: torch.momentum.map_or(Momentum::Cumulative, Momentum::NewWeight),
            weight: torch.affine,
            bias: torch.affine && torch.bias,
            freeze_affine: false,
            track_running_stats: torch.track_running_stats,
            use_batch_statistics: None,
            running_variance: RunningVariance::Unbiased,
            affine_gradient: AffineGradient::Local,
            activation: Activation::None,
            residual: false,
            activation_mask: false,
            weight_init: Initializer::Ones,
            bias_init: Initializer::Zeros,
            running_mean_init: Initializer::Zeros,
            running_var_init: Initializer::Ones,
            seed: 0,
            reproducible: false,
            renorm: None,
        }
    }
}

impl TryFrom<&BatchNormConfig> for TorchArguments {
    type Error = ConfigError;

    /// # Errors
    /// [`ConfigError::NotExpressible`] names the first setting that PyTorch's layer does not have.
    fn try_from(config: &BatchNormConfig) -> Result<Self, ConfigError> {
        let refuse = refusal("torch.nn.SyncBatchNorm");
        refuse(
            config.bias && !config.weight,
            "a bias without a weight",
            "affine and bias switch them on together",
        )?;
        refuse(
            config.freeze_affine,
            "freeze_affine",
            "set requires_grad of the parameters instead",
        )?;
        refuse(config.use_batch_statistics.is_some(), "use_batch_statistics", "the mode decides")?;
        check_variance_and_gradient(config, &refuse)?;
        let defaults = Self::new(config.num_features);
        let plain = BatchNormConfig::from(defaults);
        let inits = |config: &BatchNormConfig| {
            let BatchNormConfig {
                weight_init, bias_init, running_mean_init, running_var_init, ..
            } = config.clone();
            [weight_init, bias_init, running_mean_init, running_var_init]
        };
        refuse(
            inits(config) != inits(&plain),
            "an initial value",
            "they are 1, 0, 0, 1; load a state instead",
        )?;
        Ok(Self {
            num_features: config.num_features,
            eps: config.eps,
            momentum: match config.momentum {
                Momentum::NewWeight(weight) => Some(weight),
                Momentum::Decay(decay) => Some(1.0 - decay),
                Momentum::Cumulative => None,
            },
            affine: config.weight,
            // Without a weight the setting has no effect, so it takes PyTorch's default.
            bias: config.bias || !config.weight,
            track_running_stats: config.track_running_stats,
        })
    }
}

impl BatchNormConfig {
    /// The defaults of `torch.nn.SyncBatchNorm`: eps 1e-5, weight of the new batch 0.1, weight and
    /// bias, unbiased running variance, the batch's statistics in training and the running ones in
    /// evaluation.
    pub fn torch(num_features: usize) -> Self {
        TorchArguments::new(num_features).into()
    }
}
