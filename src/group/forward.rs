//! Forward in training and evaluation: submit everywhere, gather, merge, send back, normalize everywhere.

use std::time::{Duration, Instant};

use futures::future::try_join_all;

use super::{DeviceGroup, Inputs, SavedForward, end, zeros_like};
use crate::collective::Phase;
use crate::config::{Mode, Statistics};
use crate::coordinator::Call;
use crate::engine::{self, View};
use crate::error::{BatchError, Error};
use crate::shape::Shape;
use crate::stats::{ChannelStats, GlobalStats, Normalization};
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
    /// Local statistics on all devices, from submission until the last one was read back.
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

    /// Forward into tensors of its own, all but the running statistics.
    async fn forward_allocating(&self, mode: Mode, phase: Phase, inputs: Inputs<'_>) -> Result<Forward, Error> {
        let statistics = self.config.statistics(mode);
        let call = self.begin(phase, 0, statistics)?;
        let normalized = async {
            self.check_inputs(inputs.x)?;
            let mut outputs = zeros_like(inputs.x)?;
            let (saved, report) = self.forward_phases(statistics, call.as_ref(), inputs, &mut outputs).await?;
            Ok(Forward { outputs, saved, report })
        };
        let result = normalized.await;
        end(call, result)
    }

    /// Forward into the caller's tensors, all but the running statistics.
    async fn forward(
        &self,
        mode: Mode,
        phase: Phase,
        inputs: Inputs<'_>,
        outputs: &mut [Tensor],
    ) -> Result<(SavedForward, ForwardReport), Error> {
        let statistics = self.config.statistics(mode);
        let call = self.begin(phase, 0, statistics)?;
        let result = self.forward_phases(statistics, call.as_ref(), inputs, outputs).await;
        end(call, result)
    }

    async fn forward_phases(
        &self,
        statistics: Statistics,
        call: Option<&Call<'_>>,
        inputs: Inputs<'_>,
        outputs: &mut [Tensor],
    ) -> Result<(SavedForward, ForwardReport), Error> {
        let shapes = self.check_inputs(inputs.x)?;
        self.check_residuals(inputs, self.config.epilogue.adds_residual())?;
        let sources = [("inputs", inputs.x), ("residuals", inputs.residuals.unwrap_or(&[]))];
        self.check_targets("outputs", outputs, &sources)?;
        self.check_like("outputs", outputs, inputs.x, true)?;

        let started = Instant::now();
        let local = match statistics {
            Statistics::Running => Vec::new(),
            Statistics::Group | Statistics::Local => self.local_stats(inputs.x, &shapes).await?,
        };
        let gathered = Instant::now();
        let eps = self.config.eps;
        let mut global = GlobalStats::finalize(Vec::new(), eps);
        if let Some(call) = call {
            global = GlobalStats::finalize(call.merge(&local, self.state_checksum().await?).await?, eps);
            if global.count() == 1 {
                return Err(BatchError::OneValue.into());
            }
        }
        let normalizations = self.normalizations(statistics, &local, &global);
        let merged = Instant::now();
        self.apply(inputs, &shapes, &normalizations, outputs).await?;
        let timing = PhaseTimes { statistics: gathered - started, merge: merged - gathered, apply: merged.elapsed() };
        let saved = SavedForward::new(self, inputs, statistics, normalizations, call.map_or(0, Call::step));
        Ok((saved, ForwardReport { local, global, timing }))
    }

    /// Lets the running statistics follow a call that took the group's, once everything else has succeeded.
    fn track(&mut self, mode: Mode, report: &ForwardReport) {
        if self.config.statistics(mode) == Statistics::Group
            && let Some(running) = &mut self.running
        {
            running.update(&report.global, self.config.momentum, self.config.running_variance);
        }
    }

    /// What normalizes: one for all ranks, or one for each where each uses its own batch.
    fn normalizations(
        &self,
        statistics: Statistics,
        local: &[Vec<ChannelStats>],
        global: &GlobalStats,
    ) -> Vec<Normalization> {
        let eps = self.config.eps;
        match statistics {
            Statistics::Group => vec![global.normalization()],
            Statistics::Local => {
                let of_rank = |rank: &Vec<ChannelStats>| GlobalStats::finalize(rank.clone(), eps).normalization();
                local.iter().map(of_rank).collect()
            }
            // The configuration's check leaves no way here without running statistics.
            Statistics::Running => self.running.iter().map(|running| running.normalization(eps)).collect(),
        }
    }

    /// Local statistics of every rank. All GPUs have their work before the host begins with its own, and before any is
    /// waited for.
    async fn local_stats(&self, inputs: &[Tensor], shapes: &[Shape]) -> Result<Vec<Vec<ChannelStats>>, Error> {
        let mut pending: Vec<_> = (0..inputs.len()).map(|_| None).collect();
        for rank in self.gpus_first() {
            pending[rank] = Some(engine::local_stats(View { tensor: &inputs[rank], shape: &shapes[rank] })?);
        }
        try_join_all(pending.into_iter().flatten()).await
    }

    async fn apply(
        &self,
        inputs: Inputs<'_>,
        shapes: &[Shape],
        normalizations: &[Normalization],
        outputs: &mut [Tensor],
    ) -> Result<(), Error> {
        let centering: Vec<_> = normalizations.iter().map(Normalization::centering).collect();
        let mut pending = Vec::with_capacity(shapes.len());
        for rank in self.gpus_first() {
            let x = View { tensor: &inputs.x[rank], shape: &shapes[rank] };
            // One for all ranks, or one for each.
            let centering = &centering[rank % centering.len()];
            let (residual, layer) = (inputs.residual(rank), self.engine_layer(rank));
            pending.push(engine::apply(x, residual, centering, layer, &mut outputs[rank])?);
        }
        try_join_all(pending).await?;
        Ok(())
    }

    /// Ranks with those of GPUs before those of the host.
    pub(super) fn gpus_first(&self) -> Vec<usize> {
        let mut ranks: Vec<usize> = (0..self.devices.len()).collect();
        ranks.sort_by_key(|&rank| self.devices[rank].is_host());
        ranks
    }
}
