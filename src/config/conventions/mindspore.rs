//! The parameters of MindSpore's layer, and the conversion to the configuration and back.

use super::{check_variance_and_gradient, refusal};
use crate::config::{AffineGradient, BatchNormConfig, Initializer, Momentum, RunningVariance};
use crate::epilogue::Activation;
use crate::error::ConfigError;

/// The parameters of `mindspore.nn.SyncBatchNorm`, under its names: the signature up to MindSpore
/// 2.10. For the newer one see [`TorchArguments`](crate::config::TorchArguments).
///
/// ```
/// use syncbn::{BatchNormConfig, config::MindSporeArguments};
/// let mindspore =
///     MindSporeArguments { gamma_init: "0.5".parse()?, ..MindSporeArguments::new(64) };
/// let config = BatchNormConfig::try_from(mindspore.clone())?;
/// assert_eq!(MindSporeArguments::try_from(&config)?, mindspore);
/// # Ok::<(), syncbn::error::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct MindSporeArguments {
    /// C.
    pub num_features: usize,
    /// Added to the variance, in (0, 1]; 1e-5 by default.
    pub eps: f64,
    /// Weight of the old value, in \[0, 1\]; 0.9 by default.
    pub momentum: f64,
    /// Whether gamma and beta are trained. If not, they exist and are frozen.
    pub affine: bool,
    /// Initial gamma; ones by default.
    pub gamma_init: Initializer,
    /// Initial beta; zeros by default.
    pub beta_init: Initializer,
    /// Initial moving mean; zeros by default.
    pub moving_mean_init: Initializer,
    /// Initial moving variance; ones by default.
    pub moving_var_init: Initializer,
    /// Choice of the statistics that normalize: by mode, always the batch's, always the moving
    /// ones.
    pub use_batch_statistics: Option<bool>,
}

impl MindSporeArguments {
    /// MindSpore's defaults.
    pub fn new(num_features: usize) -> Self {
        Self {
            num_features,
            eps: 1e-5,
            momentum: 0.9,
            affine: true,
            gamma_init: Initializer::Ones,
            beta_init: Initializer::Zeros,
            moving_mean_init: Initializer::Zeros,
            moving_var_init: Initializer::Ones,
            use_batch_statistics: None,
        }
    }

    fn into_config(self) -> BatchNormConfig {
        BatchNormConfig {
            num_features: self.num_features,
            eps: self.eps,
            momentum: Momentum::Decay(self.momentum),
            weight: true,
            bias: true,
            freeze_affine: !self.affine,
            track_running_stats: true,
            use_batch_statistics: self.use_batch_statistics,
            running_variance: RunningVariance::Unbiased,
            affine_gradient: AffineGradient::Local,
            activation: Activation::None,
            residual: false,
            activation_mask: false,
            weight_init: self.gamma_init,
            bias_init: self.beta_init,
            running_mean_init: self.moving_mean_init,
            running_var_init: self.moving_var_init,
            seed: 0,
            reproducible: false,
            renorm: None,
        }
    }
}

impl BatchNormConfig {
    /// The defaults of `mindspore.nn.SyncBatchNorm`: eps 1e-5, weight of the old value 0.9, gamma
    /// and beta, unbiased moving variance, the batch's statistics in training and the moving ones
    /// in evaluation.
    pub fn mindspore(num_features: usize) -> Self {
        MindSporeArguments::new(num_features).into_config()
    }
}

impl TryFrom<MindSporeArguments> for BatchNormConfig {
    type Error = ConfigError;

    /// # Errors
    /// [`ConfigError::OutOfRange`] for values that MindSpore refuses: eps outside (0, 1], momentum
    /// outside \[0, 1\].
    fn try_from(mindspore: MindSporeArguments) -> Result<Self, ConfigError> {
        check_eps(mindspore.eps)?;
        let config = mindspore.into_config();
        config.validate()?;
        Ok(config)
    }
}

impl TryFrom<&BatchNormConfig> for MindSporeArguments {
    type Error = ConfigError;

    /// # Errors
    /// [`ConfigError::NotExpressible`] names the first setting that MindSpore's layer does not
    /// have; [`ConfigError::OutOfRange`] for an eps outside (0, 1].
    fn try_from(config: &BatchNormConfig) -> Result<Self, ConfigError> {
        let refuse = refusal("mindspore.nn.SyncBatchNorm");
        let affine_hint = "gamma and beta are always there; affine=False freezes them";
        refuse(!(config.weight && config.bias), "a layer without weight or bias", affine_hint)?;
        refuse(
            !config.track_running_stats,
            "track_running_stats = false",
            "moving statistics are always kept",
        )?;
        check_variance_and_gradient(config, &refuse)?;
        check_eps(config.eps)?;
        let momentum = match config.momentum {
            Momentum::NewWeight(weight) => 1.0 - weight,
            Momentum::Decay(decay) => decay,
            Momentum::Cumulative => {
                refuse(true, "Momentum::Cumulative", "momentum is a constant")?;
                0.0
            }
        };
        Ok(Self {
            num_features: config.num_features,
            eps: config.eps,
            momentum,
            affine: !config.freeze_affine,
            gamma_init: config.weight_init.clone(),
            beta_init: config.bias_init.clone(),
            moving_mean_init: config.running_mean_init.clone(),
            moving_var_init: config.running_var_init.clone(),
            use_batch_statistics: config.use_batch_statistics,
        })
    }
}

fn check_eps(eps: f64) -> Result<(), ConfigError> {
    if eps > 0.0 && eps <= 1.0 {
        return Ok(());
    }
    Err(ConfigError::OutOfRange {
        name: "eps (MindSpore)",
        found: eps,
        allowed: "above 0, at most 1",
    })
}
