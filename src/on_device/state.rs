//! Parameters and running statistics of a layer on one GPU: setting, reading, saving.

use super::BatchNorm;
use crate::error::Error;
use crate::state::{LoadOptions, LoadReport, ScaleShift, StateDict};
use crate::stats::RunningStats;
use crate::tensor::Tensor;

impl BatchNorm {
    /// Sets weight and bias, (C) each. `None` leaves one as it is. It writes into their current
    /// tensors.
    ///
    /// # Errors
    /// As [`SyncBatchNorm::set_parameters`](crate::SyncBatchNorm::set_parameters).
    pub fn set_parameters(
        &mut self,
        weight: Option<&[f32]>,
        bias: Option<&[f32]>,
    ) -> Result<(), Error> {
        self.base.set_parameters(weight, bias)
    }

    /// Uses the caller's tensors as weight and bias, (C) f32 each, without a copy; `None` leaves
    /// one as it is. See
    /// [`SyncBatchNorm::set_parameter_tensors`](crate::SyncBatchNorm::set_parameter_tensors).
    ///
    /// # Errors
    /// As there.
    pub fn set_parameter_tensors(
        &mut self,
        weight: Option<Tensor>,
        bias: Option<Tensor>,
    ) -> Result<(), Error> {
        self.base.set_parameter_tensors(
            weight.into_iter().collect(),
            bias.into_iter().collect(),
            false,
        )
    }

    /// Reads the running statistics from the device. `None` if the layer does not track them.
    ///
    /// # Errors
    /// [`GpuError`](crate::error::GpuError) when the device does not deliver.
    ///
    /// # Cancel safety
    /// A dropped future has no effect.
    pub async fn running_stats(&self) -> Result<Option<RunningStats>, Error> {
        if !self.config().track_running_stats {
            return Ok(None);
        }
        self.running.read(&self.gpu, self.device().deadline()).await.map(Some)
    }

    /// Replaces the running statistics.
    ///
    /// # Errors
    /// As [`SyncBatchNorm::set_running_stats`](crate::SyncBatchNorm::set_running_stats).
    pub fn set_running_stats(&mut self, running: RunningStats) -> Result<(), Error> {
        self.base.check_running(&running)?;
        self.running.write(&self.gpu, &running)
    }

    /// Reads parameters and running statistics.
    ///
    /// # Errors
    /// [`GpuError`](crate::error::GpuError) when the device does not deliver;
    /// [`ArgumentError::ParameterUsage`](crate::error::ArgumentError::ParameterUsage) for
    /// parameters in buffers without `COPY_SRC`.
    ///
    /// # Cancel safety
    /// A dropped future has no effect.
    pub async fn state(&self) -> Result<StateDict, Error> {
        let parameters = self.base.parameter_state().await?;
        let Some(running) = self.running_stats().await? else { return Ok(parameters) };
        Ok(parameters.with_running(&running))
    }

    /// Evaluation as a scale and a shift per channel, as
    /// [`SyncBatchNorm::scale_shift`](crate::SyncBatchNorm::scale_shift).
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// A dropped future has no effect.
    pub async fn scale_shift(&self) -> Result<ScaleShift, Error> {
        self.config().check_evaluates_with_running()?;
        Ok(self.state().await?.scale_shift(self.config().eps)?)
    }

    /// Takes in a state, as [`SyncBatchNorm::load_state`](crate::SyncBatchNorm::load_state). It
    /// waits only if the state lacks a running statistic or the counter, because the layer's own
    /// stays then.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// A dropped future leaves the layer as it was.
    pub async fn load_state(
        &mut self,
        state: &StateDict,
        options: &LoadOptions,
    ) -> Result<LoadReport, Error> {
        let report = state.check(self.config(), options)?;
        let state = state.fitting(self.config());
        let running = match state.running() {
            Some(running) => Some(running),
            None => self.running_stats().await?.map(|own| state.running_or(own)),
        };
        self.set_parameters(state.weight.as_deref(), state.bias.as_deref())?;
        running.map_or(Ok(()), |running| self.set_running_stats(running))?;
        Ok(report)
    }
}
