//! Forward in training and evaluation: the forms of the call, and what it returns.

mod phases;

use std::time::Duration;

use super::{DeviceGroup, InPlace, Inputs, SavedForward};
use crate::collective::Phase;
use crate::config::Mode;
use crate::error::Error;
use crate::stats::{ChannelStats, GlobalStats};
use crate::tensor::Tensor;

/// What forward returns.
#[derive(Debug)]
pub struct Forward {
    /// y per rank, of the shape of its input, on its device.
    pub outputs: Vec<Tensor>,
    /// What [`DeviceGroup::backward`] needs of this call.
    pub saved: SavedForward,
    /// Statistics and times of the call.
    pub report: ForwardReport,
}

/// The statistics that a forward call took, and how long its phases lasted.
#[derive(Clone, Debug)]
pub struct ForwardReport {
    /// Statistics of each rank's own input, `local[rank][channel]`; empty where running statistics normalized.
    pub local: Vec<Vec<ChannelStats>>,
    /// Statistics of the group; without channels where the group's were not taken.
    pub global: GlobalStats,
    /// Times of the phases.
    pub timing: PhaseTimes,
}

/// Wall-clock times of the phases of a forward call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PhaseTimes {
    /// Local statistics on all devices, from submission until the last one was read back. Where every rank is on the
    /// host of this process, the outputs are computed with them, channel by channel, and their time is in this one.
    pub statistics: Duration,
    /// Exchanging with other processes, where there are any, merging and finalizing on the host.
    pub merge: Duration,
    /// Sending the statistics and submitting the normalization. A GPU is not done with it then; [`Device::wait`] is
    /// the way to know. The host is done.
    ///
    /// [`Device::wait`]: crate::Device::wait
    pub apply: Duration,
}

impl DeviceGroup {
    /// Normalizes with the statistics of the whole group's batch and updates the running statistics.
    ///
    /// y = act(weight·(x − mean)/√(var + eps) + bias + residual) with the mean and biased variance over all ranks (Ioffe and Szegedy,
    /// 2015, algorithm 1). With `use_batch_statistics = Some(false)` the running statistics normalize instead.
    ///
    /// # Errors
    /// [`ArgumentError`](crate::ArgumentError) for inputs that do not fit the group, [`BatchError`](crate::BatchError)
    /// for one value per channel in the whole group, [`LimitError`](crate::LimitError) for an input that its device
    /// cannot bind, [`GpuError`](crate::GpuError) when a device fails. The layer is unchanged then.
    pub async fn forward_train(&mut self, inputs: impl Into<Inputs<'_>>) -> Result<Forward, Error> {
        let forward = self.forward_allocating(Mode::Train, Phase::Forward, inputs.into()).await?;
        self.track(Mode::Train, &forward.report);
        Ok(forward)
    }

    /// [`forward_train`](Self::forward_train) once more for activation checkpointing: the same result, with its exchange,
    /// but neither the running statistics nor their counter move.
    ///
    /// # Errors
    /// As [`forward_train`](Self::forward_train).
    pub async fn forward_recompute(&self, inputs: impl Into<Inputs<'_>>) -> Result<Forward, Error> {
        self.forward_allocating(Mode::Train, Phase::Recompute, inputs.into()).await
    }

    /// [`forward_train`](Self::forward_train) into tensors of the caller: y\[r\] has the shape of inputs\[r\] and lies on
    /// the same device, in memory of its own.
    ///
    /// # Errors
    /// As [`forward_train`](Self::forward_train); [`ArgumentError`](crate::ArgumentError) also for outputs that do not
    /// fit or overlap an input. When a device fails, outputs may be partly written; the layer is unchanged.
    pub async fn forward_train_into(
        &mut self,
        inputs: impl Into<Inputs<'_>>,
        outputs: &mut [Tensor],
    ) -> Result<(SavedForward, ForwardReport), Error> {
        let (saved, report) = self.forward(Mode::Train, Phase::Forward, inputs.into(), outputs).await?;
        self.track(Mode::Train, &report);
        Ok((saved, report))
    }

    /// Normalizes with the running statistics, each rank for itself.
    ///
    /// Two settings change that, as in the frameworks they come from: without `track_running_stats` each rank uses its
    /// own batch (PyTorch); with `use_batch_statistics = Some(true)` the group's batch is used and the running statistics
    /// follow it, as in training (MindSpore).
    ///
    /// # Errors
    /// As [`forward_train`](Self::forward_train).
    pub async fn forward_eval(&mut self, inputs: impl Into<Inputs<'_>>) -> Result<Forward, Error> {
        let forward = self.forward_allocating(Mode::Eval, Phase::Evaluate, inputs.into()).await?;
        self.track(Mode::Eval, &forward.report);
        Ok(forward)
    }

    /// [`forward_eval`](Self::forward_eval) into tensors of the caller.
    ///
    /// # Errors
    /// As [`forward_train_into`](Self::forward_train_into).
    pub async fn forward_eval_into(
        &mut self,
        inputs: impl Into<Inputs<'_>>,
        outputs: &mut [Tensor],
    ) -> Result<(SavedForward, ForwardReport), Error> {
        let (saved, report) = self.forward(Mode::Eval, Phase::Evaluate, inputs.into(), outputs).await?;
        self.track(Mode::Eval, &report);
        Ok((saved, report))
    }

    /// [`forward_train`](Self::forward_train) over x itself, for a call that is never differentiated or whose x the caller
    /// can make again: x is gone afterwards, so nothing is saved for backward. Takes `&mut` the tensors, or
    /// [`InPlace::with_residuals`].
    ///
    /// # Errors
    /// As [`forward_train`](Self::forward_train). When a device fails, the tensors may be partly written; the layer is
    /// unchanged.
    pub async fn forward_train_in_place(&mut self, tensors: impl Into<InPlace<'_>>) -> Result<ForwardReport, Error> {
        let report = self.forward_in_place(Mode::Train, Phase::Forward, tensors.into()).await?;
        self.track(Mode::Train, &report);
        Ok(report)
    }

    /// [`forward_eval`](Self::forward_eval) over x itself.
    ///
    /// # Errors
    /// As [`forward_train_in_place`](Self::forward_train_in_place).
    pub async fn forward_eval_in_place(&mut self, tensors: impl Into<InPlace<'_>>) -> Result<ForwardReport, Error> {
        let report = self.forward_in_place(Mode::Eval, Phase::Evaluate, tensors.into()).await?;
        self.track(Mode::Eval, &report);
        Ok(report)
    }
}
