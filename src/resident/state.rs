//! Parameters and running statistics: set at once, read when asked for.

use super::ResidentGroup;
use crate::error::Error;
use crate::state::StateDict;
use crate::stats::RunningStats;
use crate::tensor::Tensor;

impl ResidentGroup {
    /// Reads the running statistics, which are on the device; `None` where the layer does not track them.
    ///
    /// # Errors
    /// [`GpuError`](crate::GpuError) when the device does not deliver.
    pub async fn running_stats(&self) -> Result<Option<RunningStats>, Error> {
        if !self.config().track_running_stats {
            return Ok(None);
        }
        self.running.read(self.device()).await.map(Some)
    }

    /// Replaces the running statistics.
    ///
    /// # Errors
    /// As [`DeviceGroup::set_running_stats`](crate::DeviceGroup::set_running_stats).
    pub fn set_running_stats(&mut self, running: &RunningStats) -> Result<(), Error> {
        self.group.check_running(running)?;
        let device = self.device().clone();
        self.running.write(&device, running)
    }

    /// Sets weight and bias on every rank, as [`DeviceGroup::set_parameters`](crate::DeviceGroup::set_parameters).
    ///
    /// # Errors
    /// As there.
    pub fn set_parameters(&mut self, weight: Option<&[f32]>, bias: Option<&[f32]>) -> Result<(), Error> {
        self.group.set_parameters(weight, bias)
    }

    /// Uses the caller's tensors as weight and bias, one per rank, as
    /// [`DeviceGroup::set_parameter_tensors`](crate::DeviceGroup::set_parameter_tensors).
    ///
    /// # Errors
    /// As there.
    pub fn set_parameter_tensors(
        &mut self,
        weights: Option<Vec<Tensor>>,
        biases: Option<Vec<Tensor>>,
    ) -> Result<(), Error> {
        self.group.set_parameter_tensors(weights, biases)
    }

    /// Weight and bias of a rank, (C) each; `None` for what the layer does not have.
    pub fn parameters(&self, rank: usize) -> [Option<&Tensor>; 2] {
        self.group.parameters(rank)
    }

    /// Reads parameters and running statistics.
    ///
    /// # Errors
    /// [`GpuError`](crate::GpuError) when the device does not deliver.
    pub async fn state_dict(&self) -> Result<StateDict, Error> {
        let parameters = self.group.state_dict().await?;
        let Some(running) = self.running_stats().await? else { return Ok(parameters) };
        Ok(StateDict {
            num_batches_tracked: Some(running.num_batches_tracked),
            running_mean: Some(running.mean),
            running_var: Some(running.var),
            ..parameters
        })
    }

    /// Takes in a state. It waits only where the state does not say how many batches were counted, and the layer's own
    /// counter stays.
    ///
    /// # Errors
    /// As [`DeviceGroup::load_state_dict`](crate::DeviceGroup::load_state_dict).
    pub async fn load_state_dict(&mut self, state: &StateDict, allow_non_finite: bool) -> Result<(), Error> {
        state.check(self.config(), allow_non_finite)?;
        let mut running = None;
        if let (Some(mean), Some(var)) = (&state.running_mean, &state.running_var) {
            let num_batches_tracked = match state.num_batches_tracked {
                Some(batches) => batches,
                None => self.running.read(self.device()).await?.num_batches_tracked,
            };
            running = Some(RunningStats { mean: mean.clone(), var: var.clone(), num_batches_tracked });
        }
        self.group.load_state_dict(state, allow_non_finite)?;
        if let Some(running) = &running {
            self.set_running_stats(running)?;
        }
        Ok(())
    }
}
