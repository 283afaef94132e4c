//! Parameters and running statistics of the layer.

use super::SyncBatchNorm;
use crate::error::Error;
use crate::state::StateDict;
use crate::stats::RunningStats;
use crate::tensor::Tensor;

impl SyncBatchNorm {
    /// Gives every rank the state of rank `from`. Every rank must call it.
    ///
    /// # Errors
    /// As [`DeviceGroup::broadcast_state`](crate::DeviceGroup::broadcast_state).
    pub async fn broadcast_state(&mut self, from: usize) -> Result<(), Error> {
        self.rank.broadcast_state(from).await
    }

    /// Running statistics, the same bits on every rank; `None` where the layer does not track them.
    pub fn running_stats(&self) -> Option<&RunningStats> {
        self.rank.running_stats()
    }

    /// Replaces the running statistics; every rank should do the same.
    ///
    /// # Errors
    /// As [`DeviceGroup::set_running_stats`](crate::DeviceGroup::set_running_stats).
    pub fn set_running_stats(&mut self, running: RunningStats) -> Result<(), Error> {
        self.rank.set_running_stats(running)
    }

    /// Sets weight and bias, (C) each; `None` leaves one as it is. Every rank should do the same.
    ///
    /// # Errors
    /// As [`DeviceGroup::set_parameters`](crate::DeviceGroup::set_parameters).
    pub fn set_parameters(&mut self, weight: Option<&[f32]>, bias: Option<&[f32]>) -> Result<(), Error> {
        self.rank.set_parameters(weight, bias)
    }

    /// Uses the caller's tensors as weight and bias from now on, without a copy.
    ///
    /// # Errors
    /// As [`DeviceGroup::set_parameter_tensors`](crate::DeviceGroup::set_parameter_tensors).
    pub fn set_parameter_tensors(&mut self, weight: Option<Tensor>, bias: Option<Tensor>) -> Result<(), Error> {
        self.rank.set_parameter_tensors(weight.map(|weight| vec![weight]), bias.map(|bias| vec![bias]))
    }

    /// Weight and bias, (C) each, on the device.
    pub fn parameters(&self) -> [Option<&Tensor>; 2] {
        self.rank.parameters(0)
    }

    /// Parameters, read from the device, and running statistics.
    ///
    /// # Errors
    /// [`GpuError`](crate::GpuError) when the device does not deliver.
    pub async fn state_dict(&self) -> Result<StateDict, Error> {
        self.rank.state_dict().await
    }

    /// Takes in a state; every rank should do the same.
    ///
    /// # Errors
    /// As [`DeviceGroup::load_state_dict`](crate::DeviceGroup::load_state_dict).
    pub fn load_state_dict(&mut self, state: &StateDict, allow_non_finite: bool) -> Result<(), Error> {
        self.rank.load_state_dict(state, allow_non_finite)
    }
}
