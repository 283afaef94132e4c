//! `SyncBatchNorm`: a layer over one or several devices of one caller, alone or in a process group.

mod backward;
mod double;
mod exact;
mod forward;
mod member;
mod merging;
mod part;
mod passes;
mod rounds;
mod state;
mod steps;
mod synchronize;
mod tiles;

pub(crate) use backward::{BackwardCall, backward_of};
pub(crate) use forward::{ForwardCall, forward_of};
pub(crate) use member::Failure;
pub use rounds::{GradientRounds, StatisticsRounds};
pub(crate) use synchronize::synchronize_layers;

use std::fmt;
use std::sync::Arc;

use crate::base::{Base, next_id};
use crate::collective::{Phase, ProcessGroup};
use crate::config::{BatchNormConfig, Momentum, Renorm};
use crate::device::Device;
use crate::error::{ArgumentError, Error};
use crate::exchange::Exchange;
use crate::tensor::{DType, Layout, Tensor};
use crate::trace::{self, Span};
use member::{Member, Running};

/// A synchronized batch normalization layer. Every value of every rank has the same weight in the
/// statistics.
///
/// It drives one or several devices, in any mix of GPUs and the host, with one rank each. A call
/// takes `&x` for one device, and a list with a tensor per device for several.
/// [`in_group`](Self::in_group) joins it with the layers of other threads or processes. Inputs are
/// of shape (Nᵣ, C, spatial…). Ranks may differ in batch and spatial size, and a rank may be empty.
/// Parameters have the same values on every rank. Running statistics are kept once, on the host.
///
/// Every pass takes `&self`: a layer in an `Arc` trains and evaluates on several threads.
/// [`forward_train`](Self::forward_train) has three steps, which may be called one at a time:
/// [`local_statistics`](Self::local_statistics) before the exchange,
/// [`synchronize`](Self::synchronize), and [`normalize`](Self::normalize) after it. So has
/// [`backward`](Self::backward), with [`local_gradient_sums`](Self::local_gradient_sums), the same
/// `synchronize`, and [`input_gradients`](Self::input_gradients).
///
/// ```
/// use syncbn::{BatchNormConfig, Device, SyncBatchNorm};
///
/// # pollster::block_on(async {
/// // Two ranks on the host; `Device::all` gives the GPUs of the machine.
/// let [a, b] = [Device::host(), Device::host()];
/// let bn = SyncBatchNorm::new(BatchNormConfig::torch(1), [a.clone(), b.clone()])?;
/// // One channel; three samples on rank 0, one on rank 1.
/// let x = [a.upload(&[3, 1], &[0.0f32, 2.0, 4.0])?, b.upload(&[1, 1], &[6.0f32])?];
/// let forward = bn.forward_train(&x).await?;
/// assert_eq!(forward.saved.statistics().unwrap().channels()[0].mean, 3.0);
/// // (6 − 3) / √5, as in the batch [0, 2, 4, 6].
/// assert!((forward.output[1].to_vec().await?[0] - 1.341_64).abs() < 1e-5);
/// # Ok::<(), syncbn::Error>(())
/// # }).unwrap();
/// ```
pub struct SyncBatchNorm {
    base: Base,
    running: Running,
    /// The ranks beyond this caller's.
    exchange: Arc<Exchange>,
}

/// Without parameters and statistics, which may be long.
impl fmt::Debug for SyncBatchNorm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SyncBatchNorm")
            .field("config", self.config())
            .field("devices", &self.devices())
            .field("rank", &self.exchange.group().rank())
            .field("world_size", &self.exchange.group().world_size())
            .finish_non_exhaustive()
    }
}

impl SyncBatchNorm {
    /// A layer over these devices, one rank each, with the initial values that the configuration
    /// gives.
    ///
    /// # Errors
    /// [`ConfigError`](crate::error::ConfigError) for a setting outside its range or an empty list
    /// of devices; [`GpuError`](crate::error::GpuError) when a device has no memory for the
    /// parameters.
    pub fn new(
        config: BatchNormConfig,
        devices: impl IntoIterator<Item = Device>,
    ) -> Result<Self, Error> {
        let (base, running) = Base::new(config, devices.into_iter().collect(), false)?;
        Ok(Self::of(base, Running::new(running)))
    }

    /// A layer without peers.
    fn of(base: Base, running: Running) -> Self {
        let channels = base.config.num_features;
        let ranks = base.devices.len();
        let exchange = Exchange::new(&ProcessGroup::single(), "", channels, ranks).into();
        Self { base, running, exchange }
    }

    /// The same layer with a name for errors, such as `layer1.0.bn1`. The name is the same on every
    /// rank.
    pub fn named(mut self, name: &str) -> Self {
        self.exchange = self.exchange.renamed(name).into();
        self
    }

    /// The same layer as a member of a process group. Its statistics merge first among its own
    /// devices and then with those of the other threads or processes. Each of them may hold any
    /// number of devices. Ranks are numbered through: those of the first process, then those of the
    /// second, and so on.
    ///
    /// All members must make their layers in the same order and call them in the same order.
    /// Nothing is exchanged here. The first call exchanges the numbers of devices and checks that
    /// all begin with the same parameters.
    ///
    /// # Errors
    /// [`ArgumentError::ParameterUsage`] for the caller's parameters in buffers that cannot be
    /// read, because ranks compare parameters.
    pub fn in_group(mut self, group: &ProcessGroup) -> Result<Self, Error> {
        self.set_group(group)?;
        Ok(self)
    }

    /// As [`in_group`](Self::in_group), in place. After an error the layer is as before, in the
    /// group that it was in.
    ///
    /// # Errors
    /// As [`in_group`](Self::in_group).
    pub fn set_group(&mut self, group: &ProcessGroup) -> Result<(), Error> {
        if group.world_size() > 1 {
            self.check_comparable()?;
        }
        let channels = self.base.config.num_features;
        let ranks = self.base.devices.len();
        self.exchange = Exchange::new(group, self.exchange.name(), channels, ranks).into();
        // Contexts that it saved alone, or in another group, are not differentiated in this one.
        self.base.id = next_id();
        Ok(())
    }

    /// The devices in rank order.
    pub fn devices(&self) -> &[Device] {
        &self.base.devices
    }

    /// The layer's settings.
    pub fn config(&self) -> &BatchNormConfig {
        &self.base.config
    }

    /// Replaces settings. They hold for later calls, including backward of earlier ones. All ranks
    /// must make the same change.
    ///
    /// # Errors
    /// [`ConfigError`](crate::error::ConfigError) for a setting outside its range, or one that
    /// parameters, running statistics or saved contexts depend on: the number of features, whether
    /// there are weight, bias and running statistics, the activation and its mask, the residual,
    /// and whether the layer is reproducible. Nothing is replaced then.
    pub fn set_config(&mut self, config: BatchNormConfig) -> Result<(), Error> {
        self.base.set_config(config)
    }

    /// Replaces the momentum, as a schedule does in every epoch.
    ///
    /// # Errors
    /// As [`set_config`](Self::set_config).
    pub fn set_momentum(&mut self, momentum: Momentum) -> Result<(), Error> {
        self.set_config(self.config().clone().with_momentum(momentum))
    }

    /// Replaces the limits of batch renormalization, as a schedule does.
    ///
    /// # Errors
    /// As [`set_config`](Self::set_config).
    pub fn set_renorm(&mut self, renorm: Option<Renorm>) -> Result<(), Error> {
        self.set_config(self.config().clone().with_renorm(renorm))
    }

    /// Compiles on every device the kernels of training, evaluation and backward for an x of these
    /// dimensions, layout and storage type, with y and grad_output stored alike. Without it each
    /// kernel is compiled when a call first needs it. This stays so for further kernels, such as
    /// those in place and those that add gradients.
    ///
    /// # Errors
    /// [`ShapeError`](crate::error::ShapeError); [`ArgumentError::Channels`] for other channels
    /// than the layer's, [`LimitError`](crate::error::LimitError) for a shape that a device cannot
    /// bind, [`GpuError`](crate::error::GpuError) when a device refuses a kernel.
    pub fn prepare(&self, dims: &[usize], layout: Layout, dtype: DType) -> Result<(), Error> {
        self.base.prepare(dims, layout, dtype)
    }

    /// The weight of a rank, (C) f32 on its device. `None` without a weight, and for a rank that
    /// does not exist.
    pub fn weight(&self, rank: usize) -> Option<&Tensor> {
        self.base.affine(rank)[0]
    }

    /// The bias of a rank, as [`weight`](Self::weight).
    pub fn bias(&self, rank: usize) -> Option<&Tensor> {
        self.base.affine(rank)[1]
    }

    /// Refuses a single step in a reproducible layer, because its steps have rounds.
    fn check_one_round(&self) -> Result<(), ArgumentError> {
        if !self.config().reproducible {
            return Ok(());
        }
        let reason = "the layer is reproducible: its sums take rounds, of `statistics_in_rounds` \
                      and `gradient_sums_in_rounds`";
        Err(ArgumentError::NotWanted { argument: "a step of one round", reason })
    }

    /// Whether other processes or threads hold ranks too.
    fn has_peers(&self) -> bool {
        self.exchange.group().world_size() > 1
    }

    /// The parts of the layer that exchanges need.
    fn member(&self) -> Member {
        Member::new(&self.base, &self.exchange, &self.running)
    }

    /// Ranks with those of GPUs before those of the host.
    fn gpus_first(&self) -> Vec<usize> {
        let mut ranks: Vec<usize> = (0..self.base.devices.len()).collect();
        ranks.sort_by_key(|&rank| self.base.devices[rank].is_host());
        ranks
    }

    /// The order in which outputs are computed. On the host it begins with the last rank, because
    /// the caches still have that rank's input.
    fn outputs_order(&self) -> Vec<usize> {
        let mut ranks = self.gpus_first();
        let gpus = ranks.partition_point(|&rank| !self.base.devices[rank].is_host());
        ranks[gpus..].reverse();
        ranks
    }

    /// Whether a layer can take part in a joint call whose first layer this is.
    fn check_joint(&self, other: &Self) -> Result<(), ArgumentError> {
        let own = self.devices();
        let others = other.devices();
        if own.len() != others.len() || own.iter().zip(others).any(|(a, b)| !a.is_same(b)) {
            return Err(ArgumentError::NotJoint { reason: "it is on other devices" });
        }
        if self.config().reproducible != other.config().reproducible {
            return Err(ArgumentError::NotJoint {
                reason: "one of both is reproducible, whose passes have other exchanges",
            });
        }
        check_same_group(&self.exchange, &other.exchange)
    }
}

/// The span of a pass of these layers over this caller's ranks.
fn span<'l>(
    phase: Phase,
    layers: impl Iterator<Item = &'l SyncBatchNorm> + Clone,
    ranks: usize,
    bytes: impl FnOnce() -> u64,
) -> Span {
    let group = layers.clone().next().map(|layer| layer.exchange.group());
    let rank = group.map_or(0, |group| group.world_rank(group.rank()));
    trace::pass(phase, layers.map(|layer| layer.exchange.label()), rank, ranks, bytes)
}

/// Whether a layer can share an exchange with another.
fn check_same_group(exchange: &Exchange, other: &Exchange) -> Result<(), ArgumentError> {
    let is_same = exchange.group().is_same(other.group());
    if is_same {
        Ok(())
    } else {
        Err(ArgumentError::NotJoint { reason: "it is of another process group" })
    }
}
