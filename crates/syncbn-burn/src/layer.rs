//! The layers below a module: one of `syncbn` per rank and way of calling, made when the module is
//! first used so. The rank holds them: a module that is shared with other ranks must not hold those
//! in their group.
//!
//! Alone a rank normalizes on its device, where nothing is read back and nothing waits. With other
//! ranks statistics merge on the host, on the thread that calls, and nothing of Burn's is held
//! while it waits.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use burn::tensor::Device;
use burn_cubecl::CubeDevice;
use burn_cubecl::tensor::CubeTensor;
use syncbn::config::{Activation, AffineGradient, Momentum, RunningVariance};
use syncbn::{BatchNorm, BatchNormConfig, SyncBatchNorm};

use crate::error::Error;
use crate::memory::{Pin, lend};
use crate::rank::{Shared, of_cube_device, of_device};

/// The layers of a module and its clones.
#[derive(Debug)]
pub(crate) struct Layers {
    channels: usize,
    /// The same on every rank: given, or the number of the module on its device.
    name: String,
    /// The rank that the module was made on, which lives as long as the module.
    rank: Option<Arc<Shared>>,
    /// The ranks that have layers of it.
    used_on: Mutex<Vec<Weak<Shared>>>,
}

/// The layers of the modules of a rank.
#[derive(Debug, Default)]
pub(crate) struct OfModules(Mutex<Vec<(Weak<Layers>, Arc<Layer>)>>);

/// How a call uses its layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Way {
    pub activation: Activation,
    pub residual: bool,
    pub epsilon: f64,
    pub momentum: f64,
    /// Whether the statistics are those of the group.
    pub of_group: bool,
    /// Whether the tensors of several ranks come in one call, on one device.
    pub joint: bool,
}

/// The layer of one rank.
#[derive(Debug)]
pub(crate) struct Layer {
    pub gpu: syncbn::Device,
    activation: Activation,
    residual: bool,
    joint: bool,
    /// A pass takes `&self`, but before each the parameters of its call are set, which must stay
    /// until it is over.
    norm: Mutex<Norm>,
    over_ranks: bool,
}

/// The layer of `syncbn` that normalizes.
#[derive(Debug)]
pub(crate) enum Norm {
    /// On the device, alone.
    OnDevice(Box<BatchNorm>),
    /// With other ranks.
    OverRanks(Box<SyncBatchNorm>),
}

impl Layers {
    pub fn new(channels: usize, name: Option<&str>, device: &Device) -> Result<Self, Error> {
        BatchNormConfig::torch(channels).validate().map_err(syncbn::Error::from)?;
        let rank = of_device(device);
        // Modules that belong to no rank yet are forked: one number is for all their copies.
        static WITHOUT_RANK: AtomicUsize = AtomicUsize::new(0);
        let next = rank.as_ref().map_or(&WITHOUT_RANK, |rank| &rank.modules);
        let kind = if rank.is_some() { "module" } else { "shared module" };
        let name = match name {
            Some(name) => name.to_owned(),
            None => format!("{kind} {}", next.fetch_add(1, Ordering::Relaxed)),
        };
        Ok(Self { channels, name, rank, used_on: Mutex::default() })
    }

    /// The name that errors mention.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The rank of a device, if there is one.
    pub fn rank_on(&self, device: &CubeDevice) -> Option<Arc<Shared>> {
        let own = self.rank.clone().filter(|rank| rank.is_on(device));
        own.or_else(|| of_cube_device(device))
    }

    /// The layer of a rank for a way of calling.
    ///
    /// It is made when it is first asked for. Ranks number their layers in that order and compare
    /// the names, so that a network that uses its modules in another order is found out.
    pub fn on(self: &Arc<Self>, rank: &Arc<Shared>, way: Way) -> Result<Arc<Layer>, Error> {
        let over_ranks = way.of_group && rank.group.world_size() > 1;
        let mut made = lock(&rank.layers.0);
        let fits = |(of, layer): &&(Weak<Self>, Arc<Layer>)| {
            of.as_ptr() == Arc::as_ptr(self)
                && (layer.activation, layer.residual) == (way.activation, way.residual)
                && layer.joint == way.joint
                && layer.over_ranks == over_ranks
        };
        if let Some((_, layer)) = made.iter().find(fits) {
            return Ok(layer.clone());
        }
        let config = self.config(way);
        let norm = if over_ranks {
            let norm = SyncBatchNorm::new(config, [rank.gpu.clone()])?.named(&self.name);
            Norm::OverRanks(norm.in_group(&rank.group)?.into())
        } else {
            Norm::OnDevice(BatchNorm::new(config, &rank.gpu)?.into())
        };
        let Way { activation, residual, joint, .. } = way;
        let gpu = rank.gpu.clone();
        let norm = Mutex::new(norm);
        let layer = Arc::new(Layer { gpu, activation, residual, joint, norm, over_ranks });
        made.push((Arc::downgrade(self), layer.clone()));
        lock(&self.used_on).push(Arc::downgrade(rank));
        Ok(layer)
    }

    fn config(&self, way: Way) -> BatchNormConfig {
        // The ranks of a joint call have one weight and one bias.
        let affine_gradient =
            if way.joint { AffineGradient::GroupSum } else { AffineGradient::Local };
        // The running statistics are Burn's; the layer has none to go apart from them.
        BatchNormConfig::torch(self.channels)
            .with_running_variance(RunningVariance::Biased)
            .with_track_running_stats(false)
            .with_activation(way.activation)
            .with_residual(way.residual)
            .with_affine_gradient(affine_gradient)
            .with_eps(way.epsilon)
            .with_momentum(Momentum::NewWeight(way.momentum))
    }

    /// Notifies the other ranks that this one has failed: the rank of the first of these devices
    /// that has one, or else the rank that the module was made on.
    pub fn notify(&self, devices: &[Device], error: &Error) {
        if let Some(rank) = devices.iter().find_map(of_device).or_else(|| self.rank.clone()) {
            rank.notify(error);
        }
    }
}

impl Drop for Layers {
    /// The layers of a module end with its last clone.
    fn drop(&mut self) {
        let own: *const Self = self;
        for rank in lock(&self.used_on).iter().filter_map(Weak::upgrade) {
            let mut made = lock(&rank.layers.0);
            let gone: Vec<_> = made.extract_if(.., |(of, _)| of.as_ptr() == own).collect();
            drop(made);
            drop(gone);
        }
    }
}

impl Layer {
    /// Whether its statistics are merged with those of other ranks, on the host.
    pub fn is_over_ranks(&self) -> bool {
        self.over_ranks
    }

    /// The layer with the settings of a call, which may differ: Burn's settings are fields.
    pub fn norm(&self, way: Way) -> Result<MutexGuard<'_, Norm>, Error> {
        let mut norm = lock(&self.norm);
        let config = norm.config();
        let momentum = Momentum::NewWeight(way.momentum);
        if (config.eps, config.momentum) != (way.epsilon, momentum) {
            let config = config.clone().with_eps(way.epsilon).with_momentum(momentum);
            match &mut *norm {
                Norm::OnDevice(norm) => norm.set_config(config)?,
                Norm::OverRanks(norm) => norm.set_config(config)?,
            }
        }
        Ok(norm)
    }
}

impl Norm {
    fn config(&self) -> &BatchNormConfig {
        match self {
            Self::OnDevice(norm) => norm.config(),
            Self::OverRanks(norm) => norm.config(),
        }
    }

    /// Lends weight and bias to the layer.
    pub fn set_parameters(
        &mut self,
        parameters: &[CubeTensor; 2],
        gpu: &syncbn::Device,
    ) -> Result<[Pin; 2], Error> {
        let [weight, bias] = parameters;
        let weight = lend("gamma", weight, gpu)?;
        let bias = lend("beta", bias, gpu)?;
        let tensors = (Some(weight.tensor), Some(bias.tensor));
        match self {
            Self::OnDevice(norm) => norm.set_parameter_tensors(tensors.0, tensors.1)?,
            Self::OverRanks(norm) => norm.set_parameter_tensors(tensors.0, tensors.1)?,
        }
        Ok([weight.pinned, bias.pinned])
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
