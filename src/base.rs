//! The common part of both kinds of layer: settings, devices, parameters, and the checks of a call,
//! which return ranks with their plans.

mod backward;
mod check;
mod double;
mod forward;
mod inputs;
mod lengths;
mod parameters;

pub(crate) use backward::CheckedBackward;
pub(crate) use check::{Access, check_disjoint};
pub(crate) use double::CheckedDouble;
pub(crate) use forward::CheckedForward;
pub(crate) use parameters::{AffineParameters, check_readable, state_of};

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::checksum::Manifest;
use crate::config::{BatchNormConfig, Initializer};
use crate::device::Device;
use crate::engine;
use crate::error::{ArgumentError, ConfigError, Error};
use crate::stats::RunningStats;
use crate::tensor::{Seen, Tensor};

/// Settings, devices and parameters of a layer.
#[derive(Debug)]
pub(crate) struct Base {
    pub config: BatchNormConfig,
    /// One for each rank; or one for any number of ranks, each of which has the parameters of that
    /// one.
    pub devices: Vec<Device>,
    /// As many as devices. Shared with exchanges that are under way.
    pub parameters: Arc<Vec<AffineParameters>>,
    /// Whether a call decides how many ranks there are.
    any_ranks: bool,
    /// Distinguishes the layers of a process, and the groups that a layer was in.
    pub id: u64,
    /// The `id` that the layer had first.
    pub first_id: u64,
    /// The settings as ranks compare them.
    pub manifest: Manifest,
}

/// A number that no other layer of this process has.
pub(crate) fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Base {
    /// With the initial values that the configuration gives, the running statistics beside it.
    ///
    /// # Errors
    /// [`ConfigError`] for a setting outside its range or an empty list of devices.
    pub fn new(
        config: BatchNormConfig,
        devices: Vec<Device>,
        any_ranks: bool,
    ) -> Result<(Self, Option<RunningStats>), Error> {
        config.validate()?;
        if devices.is_empty() {
            return Err(ConfigError::NoDevices.into());
        }
        if any_ranks {
            config.check_without_renorm()?;
        }
        let initial = |initializer: &Initializer, name, stream| {
            initializer.values(name, config.num_features, config.seed, stream)
        };
        let weight =
            config.weight.then(|| initial(&config.weight_init, "weight_init", 0)).transpose()?;
        let bias = config.bias.then(|| initial(&config.bias_init, "bias_init", 1)).transpose()?;
        let mean = initial(&config.running_mean_init, "running_mean_init", 2)?;
        let var = initial(&config.running_var_init, "running_var_init", 3)?;
        if let Some(&negative) = var.iter().find(|&&var| var < 0.0) {
            let found = f64::from(negative);
            let name = "running_var_init";
            let allowed = "variances of at least 0";
            return Err(ConfigError::OutOfRange { name, found, allowed }.into());
        }
        let running = config.track_running_stats.then_some(RunningStats {
            mean,
            var,
            num_batches_tracked: 0,
        });
        let parameters = Arc::new(devices.iter().map(|_| AffineParameters::default()).collect());
        let manifest = config.manifest();
        let id = next_id();
        let mut base = Self { config, devices, parameters, any_ranks, id, first_id: id, manifest };
        base.set_parameters(weight.as_deref(), bias.as_deref())?;
        Ok((base, running))
    }

    /// Another layer of the same settings with these ranks.
    pub fn with_ranks(&self, devices: Vec<Device>, parameters: Arc<Vec<AffineParameters>>) -> Self {
        let config = self.config.clone();
        let manifest = self.manifest.clone();
        let id = next_id();
        Self { config, devices, parameters, manifest, id, first_id: id, ..*self }
    }

    /// The device of a rank.
    pub fn device(&self, rank: usize) -> &Device {
        &self.devices[rank % self.devices.len()]
    }

    /// The layer on a rank, for the engine.
    pub fn engine_layer(&self, rank: usize) -> engine::Layer<'_> {
        let [weight, bias] = self.parameters[rank % self.parameters.len()].both();
        let host_ranks = self.devices.iter().filter(|device| device.is_host()).count();
        engine::Layer {
            weight,
            bias,
            epilogue: self.config.epilogue(),
            eps: self.config.eps,
            host_ranks,
            reproducible: self.config.reproducible,
        }
    }

    /// The current parameters, weight and bias of each rank, as a later call recognizes them. So a
    /// backward pass with other parameters than its forward pass is an error.
    pub fn seen_parameters(&self) -> Vec<Option<Seen>> {
        let mut seen = Vec::with_capacity(2 * self.parameters.len());
        for parameter in self.parameters.iter().flat_map(AffineParameters::both) {
            seen.push(parameter.map(Tensor::seen));
        }
        seen
    }

    /// Whether the parameters are still those that were seen, unchanged.
    pub fn has_parameters(&self, seen: &[Option<Seen>]) -> bool {
        let parameters = self.parameters.iter().flat_map(AffineParameters::both);
        2 * self.parameters.len() == seen.len()
            && parameters.zip(seen).all(|pair| match pair {
                (Some(parameter), Some(seen)) => seen.is(parameter) && !seen.is_written(parameter),
                (None, None) => true,
                _ => false,
            })
    }

    /// Compiles the pipelines of a shape and storage type on every device.
    pub fn prepare(
        &self,
        dims: &[usize],
        layout: crate::tensor::Layout,
        dtype: crate::tensor::DType,
    ) -> Result<(), Error> {
        let shape = crate::shape::Shape::new(dims, layout)?;
        let found = shape.channels();
        let expected = self.config.num_features;
        if found != expected {
            let argument = "dims";
            let dims = dims.to_vec();
            return Err(
                ArgumentError::Channels { argument, rank: None, dims, found, expected }.into()
            );
        }
        self.devices.iter().enumerate().try_for_each(|(rank, device)| {
            engine::prepare(
                device,
                &shape,
                dtype,
                self.engine_layer(rank),
                self.config.keeps_mask(),
            )
        })
    }

    /// Replaces settings that may change on a living layer.
    ///
    /// # Errors
    /// [`ConfigError`] for a setting outside its range, or one that parameters, running statistics
    /// or saved contexts depend on. Nothing is replaced then.
    pub fn set_config(&mut self, config: BatchNormConfig) -> Result<(), Error> {
        config.validate()?;
        self.config.check_change(&config)?;
        self.manifest = config.manifest();
        self.config = config;
        Ok(())
    }
}
