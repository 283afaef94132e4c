//! The configuration of the module: Burn's names, defaults and limits.

use std::sync::Arc;

use burn::config::Config;
use burn::module::{Initializer, Param, RunningState};
use burn::tensor::{Device, Tensor};

use crate::error::{Error, raise};
use crate::layer::Layers;
use crate::module::SyncBatchNorm;
use crate::rank;

/// Configuration of a [`SyncBatchNorm`], with the fields and defaults of Burn's `BatchNormConfig`.
#[derive(Config, Debug)]
pub struct SyncBatchNormConfig {
    /// C, the number of features. At least 1.
    pub num_features: usize,
    /// Added to the variance under the root. Finite and above 0. Default: 1e-5
    #[config(default = 1e-5)]
    pub epsilon: f64,
    /// The weight of a new batch in the running statistics, from 0 to 1. Default: 0.1
    #[config(default = 0.1)]
    pub momentum: f64,
}

impl SyncBatchNormConfig {
    /// A module on a device, with weight 1, bias 0, running mean 0 and running variance 1.
    ///
    /// On the device of a [`Rank`](crate::Rank) it synchronizes with the modules of the other ranks
    /// when it trains. On any other device it can evaluate, load and save.
    ///
    /// # Panics
    /// As Burn's own `init`: for settings outside their range. [`try_init`](Self::try_init) returns
    /// the error.
    pub fn init(&self, device: &Device) -> SyncBatchNorm {
        self.try_init(device).unwrap_or_else(|error| raise(error))
    }

    /// [`init`](Self::init) with settings outside their range as an error.
    ///
    /// # Errors
    /// [`Error::Setting`] and [`Error::Layer`].
    pub fn try_init(&self, device: &Device) -> Result<SyncBatchNorm, Error> {
        // Burn refuses an epsilon of 0 and a momentum outside [0, 1], where the layer allows
        // either.
        let settings = [
            (
                "epsilon",
                self.epsilon,
                self.epsilon.is_finite() && self.epsilon > 0.0,
                "a finite value above 0",
            ),
            ("momentum", self.momentum, (0.0..=1.0).contains(&self.momentum), "0 to 1"),
        ];
        if let Some(&(name, found, _, allowed)) =
            settings.iter().find(|(_, _, is_allowed, _)| !is_allowed)
        {
            return Err(Error::Setting { name, found, allowed });
        }
        let layers =
            Layers::new(self.num_features, self.epsilon, self.momentum, rank::of_device(device))?;
        let shape = [self.num_features];
        Ok(SyncBatchNorm {
            gamma: Initializer::Ones.init(shape, device),
            beta: Initializer::Zeros.init(shape, device),
            training: Param::from_bool(true),
            running_mean: RunningState::new(Tensor::zeros(shape, device)),
            running_var: RunningState::new(Tensor::ones(shape, device)),
            momentum: self.momentum,
            epsilon: self.epsilon,
            layers: Arc::new(layers),
        })
    }
}
