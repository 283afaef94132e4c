//! The ranges of settings, and settings that exclude each other.

use super::{Activation, BatchNormConfig, Momentum};
use crate::error::ConfigError;

impl BatchNormConfig {
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

pub(super) fn out_of_range(
    name: &'static str,
    found: f64,
    allowed: &'static str,
) -> Result<(), ConfigError> {
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
