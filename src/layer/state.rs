//! Parameters and running statistics of a layer: setting, reading, saving, and sharing them with
//! local layers.

use std::sync::Arc;

use super::{Running, SyncBatchNorm};
use crate::base::check_readable;
use crate::checksum::Difference;
use crate::collective::Phase;
use crate::error::{ArgumentError, ConfigError, Error, GroupError, position};
use crate::state::{LoadOptions, LoadReport, ScaleShift, StateDict};
use crate::stats::{GlobalStatistics, LocalStatistics, RunningStats};
use crate::tensor::Tensor;

impl SyncBatchNorm {
    /// A copy of the running statistics, the same for every rank. `None` if the layer does not
    /// track them.
    pub fn running_stats(&self) -> Option<RunningStats> {
        self.running.snapshot().map(Arc::unwrap_or_clone)
    }

    /// Replaces the running statistics, for example by those of a whole data set from
    /// [`to_running`](crate::stats::GlobalStatistics::to_running). All ranks need the same ones:
    /// they compare them in the next exchange.
    ///
    /// # Errors
    /// [`ArgumentError`] when the layer does not track them or the lengths are not `num_features`.
    /// Nothing is replaced then.
    pub fn set_running_stats(&mut self, running: RunningStats) -> Result<(), Error> {
        self.base.check_running(&running)?;
        self.exchange.announce_again();
        self.running.set(running);
        Ok(())
    }

    /// Merges the statistics of a data set over ranks, and replaces the running statistics by them.
    /// All values have the same weight, while a moving average gives late batches more. The setting
    /// `running_variance` chooses the variance. The counter becomes 1. If no rank has a value, the
    /// running statistics stay.
    ///
    /// ```
    /// use syncbn::{BatchNormConfig, Device, SyncBatchNorm, stats::LocalStatistics};
    ///
    /// # pollster::block_on(async {
    /// let host = Device::host();
    /// let mut bn = SyncBatchNorm::new(BatchNormConfig::torch(1), [host.clone()])?;
    /// let mut local = LocalStatistics::empty(1);
    /// for batch in [[1.0f32, 2.0], [3.0, 6.0]] {
    ///     let x = host.upload(&[2, 1], &batch)?;
    ///     local.merge(&bn.local_statistics(&x).await?)?;
    /// }
    /// bn.set_population_statistics(local).await?;
    /// assert_eq!(bn.running_stats().map(|running| running.mean), Some(vec![3.0]));
    /// # Ok::<(), syncbn::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// [`ArgumentError`] when the layer does not track running statistics, and those of
    /// [`synchronize`](Self::synchronize), which exchanges them. Nothing is replaced then.
    ///
    /// # Cancel safety
    /// As [`synchronize`](Self::synchronize); nothing is replaced.
    pub async fn set_population_statistics(
        &mut self,
        local: LocalStatistics,
    ) -> Result<GlobalStatistics, Error> {
        self.base.check_running(&RunningStats::new(self.config().num_features))?;
        let global = self.synchronize(local).untracked().await?;
        if global.count() > 0 {
            self.set_running_stats(global.to_running(self.config().running_variance))?;
        }
        Ok(global)
    }

    /// Sets weight and bias, (C) each, to the same values on every rank. `None` leaves one as it
    /// is. After [`set_parameter_tensors`](Self::set_parameter_tensors) it writes into the caller's
    /// tensors.
    ///
    /// Ranks compare their parameters in the first exchange. Values that are set later are not
    /// compared.
    ///
    /// # Errors
    /// [`ArgumentError`] when the layer was configured without one of them or a length is not
    /// `num_features`. Nothing is set then.
    pub fn set_parameters(
        &mut self,
        weight: Option<&[f32]>,
        bias: Option<&[f32]>,
    ) -> Result<(), Error> {
        self.base.set_parameters(weight, bias)
    }

    /// Uses the caller's tensors as weight and bias from now on, one per rank on its device, (C)
    /// f32 each, without a copy. The caller can keep a [`handle`](Tensor::handle) of a GPU's
    /// tensor. Values that an optimizer writes to them hold for the next call. They must hold the
    /// same values on every rank. An empty list, or `None`, leaves one as it is. Backward needs the
    /// tensors of its forward call. If they were replaced since, as by a framework whose optimizer
    /// makes new ones, set the earlier ones first.
    ///
    /// In a process group all ranks compare their parameters at the first exchange, so buffers need
    /// the usage `COPY_SRC`.
    ///
    /// # Errors
    /// [`ArgumentError`] when the layer was configured without one of them or a tensor does not
    /// fit; [`ArgumentError::ParameterUsage`] for one that cannot be read where ranks compare it.
    /// Nothing is set then.
    pub fn set_parameter_tensors(
        &mut self,
        weights: impl IntoIterator<Item = Tensor>,
        biases: impl IntoIterator<Item = Tensor>,
    ) -> Result<(), Error> {
        let has_peers = self.has_peers();
        self.base.set_parameter_tensors(
            weights.into_iter().collect(),
            biases.into_iter().collect(),
            has_peers,
        )
    }

    /// Refuses parameters that ranks could not compare.
    pub(super) fn check_comparable(&self) -> Result<(), ArgumentError> {
        let all = &self.base.parameters;
        for (rank, parameters) in all.iter().enumerate() {
            let rank = position(rank, all.len());
            for (name, tensor) in ["weight", "bias"].into_iter().zip(parameters.both()) {
                tensor.map_or(Ok(()), |tensor| check_readable(name, rank, tensor))?;
            }
        }
        Ok(())
    }

    /// Parameters, read from the first rank's device, and running statistics.
    ///
    /// # Errors
    /// [`GpuError`](crate::error::GpuError) when the device does not deliver;
    /// [`ArgumentError::ParameterUsage`] for parameters in buffers without `COPY_SRC`.
    ///
    /// # Cancel safety
    /// A dropped future has no effect.
    pub async fn state(&self) -> Result<StateDict, Error> {
        self.member().state().await
    }

    /// Evaluation as a scale and a shift per channel, from the current parameters and running
    /// statistics. It is for [folding](ScaleShift::fold) the layer into the one before it.
    ///
    /// # Errors
    /// [`ConfigError::Conflict`] if the layer does not evaluate with running statistics; else as
    /// [`state`](Self::state).
    ///
    /// # Cancel safety
    /// A dropped future has no effect.
    pub async fn scale_shift(&self) -> Result<ScaleShift, Error> {
        self.config().check_evaluates_with_running()?;
        Ok(self.state().await?.scale_shift(self.config().eps)?)
    }

    /// Takes in a state, the same on every rank. It must have exactly the layer's tensors, as with
    /// `strict=True` in PyTorch, unless the options allow others. A counter may be missing. The
    /// layer's own stays then. The report lists missing and unexpected tensors.
    ///
    /// # Errors
    /// [`StateError`](crate::error::StateError) when it is not one of this layer, or holds NaN or
    /// infinity without `allow_non_finite`; the layer is unchanged then.
    /// [`GpuError`](crate::error::GpuError) when a device fails, which may leave the parameters of
    /// some ranks set.
    pub fn load_state(
        &mut self,
        state: &StateDict,
        options: &LoadOptions,
    ) -> Result<LoadReport, Error> {
        let report = state.check(self.config(), options)?;
        let state = state.fitting(self.config());
        self.exchange.announce_again();
        self.set_parameters(state.weight.as_deref(), state.bias.as_deref())?;
        if let Some(own) = self.running_stats() {
            self.running.set(state.running_or(own));
        }
        Ok(report)
    }

    /// Gives every process of the group the state of process `from`, NaN and infinity included.
    ///
    /// Every process must call it. For a layer without a process group there is nothing to do.
    ///
    /// # Errors
    /// [`GroupError::OutOfRange`] for a process that does not exist;
    /// [`ExchangeError`](crate::error::ExchangeError) when one does not take part;
    /// [`StateError`](crate::error::StateError) when the state received does not fit this layer.
    /// The layer is unchanged then. [`GpuError`](crate::error::GpuError) when a device fails, which
    /// may leave the parameters of some ranks set.
    ///
    /// # Cancel safety
    /// As [`forward_train`](Self::forward_train).
    pub async fn broadcast_state(&mut self, from: usize) -> Result<(), Error> {
        let rank = self.exchange.group().rank();
        let world_size = self.exchange.group().world_size();
        let call = "broadcast_state";
        let no_root = GroupError::OutOfRange { call, list: None, rank: from, world_size };
        if world_size == 1 {
            return if from == 0 { Ok(()) } else { Err(no_root.into()) };
        }
        let call = self.member().begin(Phase::State, from as u64)?;
        let received = async {
            // Earlier calls change the state, so it is read after them.
            call.come().await?;
            let own = if rank == from { self.state().await?.to_message() } else { Vec::new() };
            if from >= world_size {
                // The group can go on only if all know that all asked for it.
                call.broadcast(0, own).await?;
                return Err(no_root.into());
            }
            let sent = call.broadcast(from, own).await?;
            let options = LoadOptions { allow_non_finite: true, ..LoadOptions::default() };
            let state = StateDict::from_message(&sent)?;
            state.check(self.config(), &options)?;
            if rank == from {
                // The state is this rank's own, so saved contexts may still be differentiated.
                self.exchange.announce_again();
                return Ok(());
            }
            self.load_state(&state, &options).map(|_| ())
        };
        let result = received.await;
        call.end(&result);
        result
    }

    /// Splits the layer into local layers, one per device. Each has the parameters of its rank,
    /// without a copy, and the running statistics. The new layers have no peers.
    pub fn into_local(self) -> Vec<Self> {
        let running = self.running_stats();
        let ranks = self.base.devices.iter().zip(self.base.parameters.iter());
        ranks
            .map(|(device, parameters)| {
                let devices = vec![device.clone()];
                let parameters = Arc::new(vec![parameters.clone()]);
                Self::of(self.base.with_ranks(devices, parameters), Running::new(running.clone()))
            })
            .collect()
    }

    /// Makes one synchronized layer of several layers, usually local ones. Their devices become its
    /// ranks. Their parameters stay in their memory and must hold the same values. The running
    /// statistics are those of the first.
    ///
    /// # Errors
    /// [`ConfigError::NoDevices`] for an empty list; [`ArgumentError::Config`] for layers of
    /// different configuration; [`ArgumentError::HasPeers`] for one with ranks in other processes
    /// or threads.
    pub fn synchronized(layers: Vec<Self>) -> Result<Self, Error> {
        if let Some(index) = layers.iter().position(Self::has_peers) {
            return Err(ArgumentError::HasPeers { argument: "layers", index }.into());
        }
        let Some(first) = layers.first() else { return Err(ConfigError::NoDevices.into()) };
        let mut devices = Vec::new();
        let mut parameters = Vec::new();
        for (index, layer) in layers.iter().enumerate() {
            let difference = layer.base.manifest.first_difference(&first.base.manifest);
            if let Some(Difference { name, found, expected }) = difference {
                return Err(ArgumentError::Config {
                    argument: "layers",
                    index,
                    name: name.to_owned(),
                    found: found.to_owned(),
                    expected: expected.to_owned(),
                }
                .into());
            }
            devices.extend(layer.devices().iter().cloned());
            parameters.extend(layer.base.parameters.iter().cloned());
        }
        let running = Running::new(first.running_stats());
        Ok(Self::of(first.base.with_ranks(devices, parameters.into()), running))
    }
}
