//! The state of a layer as plain values: its names in two conventions, its checks, safetensors in
//! and out.
//!
//! Knows no device: the drivers read a [`StateDict`] out of themselves and take one in.

#[cfg(feature = "safetensors")]
mod file;
mod message;
mod naming;

pub use naming::Naming;

use crate::checksum::{Checksum, Listing, Manifest};
use crate::config::BatchNormConfig;
use crate::error::StateError;
use crate::stats::RunningStats;
use naming::Names;

/// Everything that a layer keeps between calls. What the layer was configured without is `None`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StateDict {
    /// Weight (gamma), (C).
    pub weight: Option<Vec<f32>>,
    /// Bias (beta), (C).
    pub bias: Option<Vec<f32>>,
    /// Running mean, (C).
    pub running_mean: Option<Vec<f32>>,
    /// Running variance, (C).
    pub running_var: Option<Vec<f32>>,
    /// Training steps counted; `None` also where a file does not say, and then the layer's counter
    /// stays.
    pub num_batches_tracked: Option<u64>,
}

/// How a state is read and checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadOptions {
    /// The names in the file; `None` finds out.
    pub naming: Option<Naming>,
    /// What stands before each name, such as `layer1.0.bn1.`; a missing last dot is added.
    pub prefix: String,
    /// Accepts NaN and infinity, as a run that diverged leaves them. This is not PyTorch's
    /// `strict`: whatever the options, a state has what its layer has.
    pub allow_non_finite: bool,
}

impl StateDict {
    /// The same state with these running statistics.
    pub(crate) fn with_running(self, running: &RunningStats) -> Self {
        Self {
            running_mean: Some(running.mean.clone()),
            running_var: Some(running.var.clone()),
            num_batches_tracked: Some(running.num_batches_tracked),
            ..self
        }
    }

    /// The state as a list by which ranks compare theirs: a checksum of the bits of each vector.
    pub(crate) fn manifest(&self) -> Manifest {
        let Self { weight, bias, running_mean, running_var, num_batches_tracked } = self;
        let vectors = [
            ("weight", weight),
            ("bias", bias),
            ("running_mean", running_mean),
            ("running_var", running_var),
        ];
        let mut lines = Listing::default();
        for (name, values) in vectors {
            let Some(values) = values else { continue };
            let mut checksum = Checksum::new();
            values.iter().for_each(|value| checksum.add(&value.to_le_bytes()));
            lines.add(name, format_args!("{:#018x}", checksum.finish()));
        }
        if let Some(count) = num_batches_tracked {
            lines.add("num_batches_tracked", count);
        }
        lines.finish()
    }

    /// Checks that the state is one of a layer with this configuration.
    ///
    /// # Errors
    /// [`StateError`] names the tensor, in PyTorch's names, and the channel.
    pub fn check(
        &self,
        config: &BatchNormConfig,
        allow_non_finite: bool,
    ) -> Result<(), StateError> {
        self.check_as(config, &Names::new(Naming::Torch, ""), allow_non_finite)
    }

    fn check_as(
        &self,
        config: &BatchNormConfig,
        names: &Names,
        allow_non_finite: bool,
    ) -> Result<(), StateError> {
        let tracked = config.track_running_stats;
        let vectors = [
            (&names.weight, &self.weight, config.weight),
            (&names.bias, &self.bias, config.bias),
            (&names.running_mean, &self.running_mean, tracked),
            (&names.running_var, &self.running_var, tracked),
        ];
        for (name, values, wanted) in vectors {
            let values = match (values, wanted) {
                (Some(values), true) => values,
                (None, false) => continue,
                (None, true) => {
                    return Err(StateError::Missing {
                        name: name.clone(),
                        found: self.present(names),
                    });
                }
                (Some(_), false) => return Err(StateError::Unexpected { name: name.clone() }),
            };
            let expected = config.num_features;
            if values.len() != expected {
                let name = name.clone();
                let found = vec![values.len()];
                return Err(StateError::Shape { name, found, expected: vec![expected] });
            }
            let refused = values.iter().position(|value| !value.is_finite() && !allow_non_finite);
            if let Some(channel) = refused {
                return Err(StateError::NotFinite {
                    name: name.clone(),
                    channel,
                    found: values[channel],
                });
            }
        }
        if self.num_batches_tracked.is_some() && !tracked {
            return Err(StateError::Unexpected {
                name: names.num_batches_tracked.clone().unwrap_or_default(),
            });
        }
        let negative = self.running_var.iter().flatten().position(|&var| var < 0.0);
        if let (Some(channel), Some(vars)) = (negative, &self.running_var) {
            return Err(StateError::NegativeVariance {
                name: names.running_var.clone(),
                channel,
                found: vars[channel],
            });
        }
        Ok(())
    }

    /// The names of what is there.
    fn present(&self, names: &Names) -> Vec<String> {
        let vectors = [
            (&names.weight, &self.weight),
            (&names.bias, &self.bias),
            (&names.running_mean, &self.running_mean),
            (&names.running_var, &self.running_var),
        ];
        vectors
            .into_iter()
            .filter(|(_, values)| values.is_some())
            .map(|(name, _)| name.clone())
            .collect()
    }
}
