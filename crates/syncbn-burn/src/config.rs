//! The configurations of the modules: Burn's names, defaults and limits.

use burn::config::Config;
use burn::nn;
use burn::tensor::Device;

use crate::activation::Activation;
use crate::error::{Error, raise};
use crate::module::{BatchNorm, Normalization, Scope, SyncBatchNorm};

macro_rules! config {
    ($(#[$doc:meta])* $config:ident, $module:ident) => {
        $(#[$doc])*
        #[derive(Config, Debug)]
        pub struct $config {
            /// C, the number of features. At least 1.
            pub num_features: usize,
            /// Added to the variance under the root. Finite and above 0. Default: 1e-5
            #[config(default = 1e-5)]
            pub epsilon: f64,
            /// The weight of a new batch in the running statistics, from 0 to 1. Default: 0.1
            #[config(default = 0.1)]
            pub momentum: f64,
            /// The activation, applied in the same kernel. Default: none
            #[config(default = "Activation::None")]
            pub activation: Activation,
            /// A name that errors mention, the same on every rank. Default: the number of the
            /// module among those made on its device
            #[config(default = "None")]
            pub name: Option<String>,
        }

        impl $config {
            /// A module on a device, with weight 1, bias 0, running mean 0 and running variance 1.
            ///
            /// It trains on the device of a [`Rank`](crate::Rank). On any other device it can
            /// evaluate, load and save.
            ///
            /// # Panics
            /// As Burn's own `init`: for settings outside their range.
            /// [`try_init`](Self::try_init) returns the error.
            pub fn init(&self, device: &Device) -> $module {
                self.try_init(device).unwrap_or_else(|error| raise(error))
            }

            /// [`init`](Self::init) with settings outside their range as an error.
            ///
            /// # Errors
            /// [`Error::Setting`] and [`Error::Layer`].
            pub fn try_init(&self, device: &Device) -> Result<$module, Error> {
                let Self { num_features, epsilon, momentum, activation, ref name } = *self;
                let settings = Settings { num_features, epsilon, momentum, activation };
                made(settings, name.as_deref(), device)
            }
        }
    };
}

config! {
    /// Configuration of a [`SyncBatchNorm`], with the fields and defaults of Burn's
    /// `BatchNormConfig`.
    SyncBatchNormConfig, SyncBatchNorm
}

config! {
    /// Configuration of a [`BatchNorm`], with the fields and defaults of Burn's `BatchNormConfig`.
    BatchNormConfig, BatchNorm
}

/// The settings of both configurations.
#[derive(Clone, Copy)]
struct Settings {
    num_features: usize,
    epsilon: f64,
    momentum: f64,
    activation: Activation,
}

fn made<S: Scope>(
    settings: Settings,
    name: Option<&str>,
    device: &Device,
) -> Result<Normalization<S>, Error> {
    let Settings { num_features, epsilon, momentum, activation } = settings;
    check(epsilon, momentum)?;
    // Before Burn's own `init`, which panics.
    let config = syncbn::BatchNormConfig::torch(num_features);
    let config = config.with_activation(activation.of_layer());
    config.validate().map_err(syncbn::Error::from)?;
    let norm = nn::BatchNormConfig::new(num_features)
        .with_epsilon(epsilon)
        .with_momentum(momentum)
        .init(device);
    Normalization::of(norm, activation, name)
}

/// Refuses what Burn refuses: an epsilon of 0 and a momentum outside [0, 1], where the layer allows
/// either.
pub(crate) fn check(epsilon: f64, momentum: f64) -> Result<(), Error> {
    if !(epsilon.is_finite() && epsilon > 0.0) {
        let allowed = "a finite value above 0";
        return Err(Error::Setting { name: "epsilon", found: epsilon, allowed });
    }
    if !(0.0..=1.0).contains(&momentum) {
        return Err(Error::Setting { name: "momentum", found: momentum, allowed: "0 to 1" });
    }
    Ok(())
}
