//! Parameters and running statistics of a group: setting, reading, saving, and sharing them with local layers.

use std::sync::Arc;

use super::{AffineParameters, DeviceGroup, end};
use crate::checksum::Checksum;
use crate::collective::{Phase, ProcessGroup, UNTOLD};
use crate::config::SyncBatchNormConfig;
use crate::coordinator::{Call, Contribution, Exchange, Mergeable};
use crate::device::Device;
use crate::error::{ArgumentError, Error, GroupError};
use crate::state::{LoadOptions, Naming, StateDict};
use crate::stats::RunningStats;
use crate::tensor::Tensor;

impl DeviceGroup {
    /// Running statistics, the same for every rank; `None` where the layer does not track them.
    pub fn running_stats(&self) -> Option<&RunningStats> {
        self.running.as_ref()
    }

    /// Replaces the running statistics.
    ///
    /// # Errors
    /// [`ArgumentError`] when the layer does not track them or the lengths are not `num_features`. Nothing is replaced then.
    pub fn set_running_stats(&mut self, running: RunningStats) -> Result<(), Error> {
        self.check_running(&running)?;
        self.running = Some(running);
        Ok(())
    }

    /// Sets weight and bias, (C) each, to the same values on every rank; `None` leaves one as it is. They are
    /// written where the parameters lie: into the caller's tensors after
    /// [`set_parameter_tensors`](Self::set_parameter_tensors).
    ///
    /// # Errors
    /// [`ArgumentError`] when the layer was configured without one of them or a length is not `num_features`. Nothing is
    /// set then.
    pub fn set_parameters(&mut self, weight: Option<&[f32]>, bias: Option<&[f32]>) -> Result<(), Error> {
        let given = [("weight", weight, self.config.weight), ("bias", bias, self.config.bias)];
        for (name, values, configured) in given {
            let Some(values) = values else { continue };
            if !configured {
                return Err(ArgumentError::NoSuchParameter { name }.into());
            }
            self.check_length(name, values.len())?;
        }
        // Everything that can be refused is refused before the first is written.
        for present in self.parameters.iter().flat_map(AffineParameters::both).flatten() {
            present.check_writable()?;
        }
        for (parameters, device) in self.parameters.iter_mut().zip(&self.devices) {
            set(&mut parameters.weight, device, weight)?;
            set(&mut parameters.bias, device, bias)?;
        }
        Ok(())
    }

    /// Uses the caller's tensors as weight and bias from now on, one per rank on its device, (C) each, without a copy:
    /// what an optimizer on the device writes to them holds for the next call. They must hold the same values on every
    /// rank. `None` leaves one as it is. Backward needs those of its forward call: where they were exchanged for others since,
    /// as by a framework whose optimizer makes new ones, give the earlier ones first.
    ///
    /// Where other processes or threads hold ranks too, all compare their parameters at the first exchange, so that buffers
    /// need the usage `COPY_SRC`.
    ///
    /// # Errors
    /// [`ArgumentError`] when the layer was configured without one of them or a tensor does not fit;
    /// [`ArgumentError::ParameterUsage`] for one that cannot be read where ranks compare it. Nothing is set then.
    pub fn set_parameter_tensors(
        &mut self,
        weights: Option<Vec<Tensor>>,
        biases: Option<Vec<Tensor>>,
    ) -> Result<(), Error> {
        let given = [("weight", &weights, self.config.weight), ("bias", &biases, self.config.bias)];
        for (name, tensors, configured) in given {
            let Some(tensors) = tensors else { continue };
            if !configured {
                return Err(ArgumentError::NoSuchParameter { name }.into());
            }
            self.check_vectors(name, tensors)?;
            if self.has_peers() {
                tensors.iter().enumerate().try_for_each(|(rank, tensor)| check_readable(name, rank, tensor))?;
            }
        }
        for (parameters, weight) in self.parameters.iter_mut().zip(weights.into_iter().flatten()) {
            parameters.weight = Some(weight);
        }
        for (parameters, bias) in self.parameters.iter_mut().zip(biases.into_iter().flatten()) {
            parameters.bias = Some(bias);
        }
        Ok(())
    }

    /// Weight and bias of a rank, (C) each, on its device; `None` for what the layer or the group does not have.
    pub fn parameters(&self, rank: usize) -> [Option<&Tensor>; 2] {
        self.parameters.get(rank).map_or([None, None], AffineParameters::both)
    }

    /// Parameters, read from the first rank's device, and running statistics.
    ///
    /// # Errors
    /// [`GpuError`](crate::GpuError) when the device does not deliver; [`ArgumentError::ParameterUsage`] for parameters in
    /// buffers without `COPY_SRC`.
    pub async fn state_dict(&self) -> Result<StateDict, Error> {
        let [weight, bias] = self.parameters(0);
        for (name, tensor) in [("weight", weight), ("bias", bias)] {
            tensor.map_or(Ok(()), |tensor| check_readable(name, 0, tensor))?;
        }
        let read = async |tensor: Option<&Tensor>| match tensor {
            Some(tensor) => tensor.to_vec().await.map(Some),
            None => Ok(None),
        };
        let running = self.running.clone();
        Ok(StateDict {
            weight: read(weight).await?,
            bias: read(bias).await?,
            num_batches_tracked: running.as_ref().map(|running| running.num_batches_tracked),
            running_mean: running.as_ref().map(|running| running.mean.clone()),
            running_var: running.map(|running| running.var),
        })
    }

    /// Takes in a state, the same on every rank.
    ///
    /// # Errors
    /// [`StateError`](crate::StateError) when it is not one of this layer, or holds NaN or infinity without
    /// `allow_non_finite`; [`GpuError`](crate::GpuError) when a device refuses. The layer is unchanged then.
    pub fn load_state_dict(&mut self, state: &StateDict, allow_non_finite: bool) -> Result<(), Error> {
        state.check(&self.config, allow_non_finite)?;
        self.exchange.announce_again();
        self.set_parameters(state.weight.as_deref(), state.bias.as_deref())?;
        if let (Some(running), Some(mean), Some(var)) = (&mut self.running, &state.running_mean, &state.running_var) {
            let num_batches_tracked = state.num_batches_tracked.unwrap_or(running.num_batches_tracked);
            *running = RunningStats { mean: mean.clone(), var: var.clone(), num_batches_tracked };
        }
        Ok(())
    }

    /// Gives every process of the group the state of process `from`, NaN and infinity included.
    ///
    /// Every process must call it. For a group that is not within a [`ProcessGroup`](crate::ProcessGroup) there is
    /// nothing to do.
    ///
    /// # Errors
    /// [`GroupError::OutOfRange`](crate::GroupError::OutOfRange) for a process that does not exist;
    /// [`ExchangeError`](crate::ExchangeError) when one does not take part. The layer is unchanged then.
    pub async fn broadcast_state(&mut self, from: usize) -> Result<(), Error> {
        let exchange = Arc::clone(&self.exchange);
        let (rank, world_size) = (exchange.group().rank(), exchange.group().world_size());
        let call = exchange.begin(Phase::State, from as u64, self.config.checksum(), self.patience())?;
        let received = async {
            let own =
                if rank == from { self.state_dict().await?.to_safetensors(Naming::Torch, "")? } else { Vec::new() };
            if from >= world_size {
                // All must know that all ask for it, so that the group can go on.
                call.broadcast(0, own).await?;
                return Err(GroupError::OutOfRange { rank: from, world_size }.into());
            }
            let sent = call.broadcast(from, own).await?;
            let options = LoadOptions { allow_non_finite: true, ..LoadOptions::default() };
            let state = StateDict::from_safetensors(&sent, &self.config, &options)?;
            self.load_state_dict(&state, true)
        };
        let result = received.await;
        end(Some(call), result)
    }

    /// Merges local statistics with those of all others, and compares states where a rank has to tell its own: if not all
    /// do, once more with all of them, so that equal states are equal whoever tells.
    pub(super) async fn merge_telling<T: Mergeable>(&self, call: &Call, local: &[Vec<T>]) -> Result<Vec<T>, Error> {
        let mut state = self.state_to_tell().await?;
        loop {
            let merged = Call::merge(&[Contribution { call, local, state }]).await.map_err(|(_, error)| error)?;
            if let Some(merged) = merged {
                call.pass();
                return Ok(merged.into_iter().flatten().collect());
            }
            if state.is_none() {
                state = Some(self.state_checksum().await?);
            }
        }
    }

    /// A checksum of the state for the next exchange, where it is to be told.
    pub(super) async fn state_to_tell(&self) -> Result<Option<u64>, Error> {
        Ok(if self.exchange.must_announce() { Some(self.state_checksum().await?) } else { None })
    }

    /// A checksum of the state, never that which says that there is none.
    pub(super) async fn state_checksum(&self) -> Result<u64, Error> {
        let mut checksum = Checksum::new();
        checksum.add(&self.state_dict().await?.to_safetensors(Naming::Torch, "")?);
        Ok(checksum.finish().max(UNTOLD + 1))
    }

    /// Takes the group apart into local layers, one per device, each with the parameters of its rank, not copied, and the
    /// running statistics. Ranks in other processes or threads are no peers of theirs.
    pub fn into_local(self) -> Vec<Self> {
        let ranks = self.devices.into_iter().zip(self.parameters);
        ranks
            .map(|(device, parameters)| Self {
                config: self.config.clone(),
                devices: vec![device],
                parameters: vec![parameters],
                running: self.running.clone(),
                id: super::next_id(),
                exchange: alone(&self.config, 1).into(),
            })
            .collect()
    }

    /// Makes one synchronized layer of several layers, usually local ones: their devices become its ranks, their
    /// parameters stay where they are and must hold the same values. The running statistics are those of the first.
    ///
    /// # Errors
    /// [`ConfigError::NoDevices`](crate::ConfigError::NoDevices) for an empty list; [`ArgumentError::Config`] for layers
    /// of different configuration; [`ArgumentError::HasPeers`] for one with ranks in other processes or threads.
    pub fn synchronized(layers: Vec<Self>) -> Result<Self, Error> {
        if let Some(index) = layers.iter().position(Self::has_peers) {
            return Err(ArgumentError::HasPeers { argument: "layers", index }.into());
        }
        let mut layers = layers.into_iter().enumerate();
        let Some((_, mut group)) = layers.next() else { return Err(crate::error::ConfigError::NoDevices.into()) };
        group.id = super::next_id();
        for (index, layer) in layers {
            if layer.config != group.config {
                let (found, expected) = (format!("{:?}", layer.config), format!("{:?}", group.config));
                return Err(ArgumentError::Config { argument: "layers", index, found, expected }.into());
            }
            group.devices.extend(layer.devices);
            group.parameters.extend(layer.parameters);
        }
        group.exchange = alone(&group.config, group.devices.len()).into();
        Ok(group)
    }
}

/// The exchange of a group that has no peers beyond its own ranks.
fn alone(config: &SyncBatchNormConfig, ranks: usize) -> Exchange {
    Exchange::new(&ProcessGroup::single(), "", config.num_features, ranks)
}

/// Refuses a parameter that cannot be read.
fn check_readable(name: &'static str, rank: usize, tensor: &Tensor) -> Result<(), ArgumentError> {
    tensor.check_readable().map_err(|error| match error {
        ArgumentError::Usage { found, expected } => ArgumentError::ParameterUsage { name, rank, found, expected },
        other => other,
    })
}

/// Writes values into a parameter where it lies, the caller's memory included, or makes it.
fn set(parameter: &mut Option<Tensor>, device: &Device, values: Option<&[f32]>) -> Result<(), Error> {
    match (parameter, values) {
        (_, None) => {}
        (Some(present), Some(values)) => present.write(values)?,
        (absent, Some(values)) => *absent = Some(device.upload(&[values.len()], values)?),
    }
    Ok(())
}
