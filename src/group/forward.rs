//! Forward in training and evaluation: submit everywhere, gather, merge, send back, normalize everywhere.

use std::time::{Duration, Instant};

use futures::future::try_join_all;

use super::{DeviceGroup, InPlace, Inputs, SavedCall, SavedForward, end, zeros_like};
use crate::collective::Phase;
use crate::config::{Mode, Statistics};
use crate::coordinator::Call;
use crate::engine::{self, Mask, Source, View};
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

    /// Forward into tensors of its own, all but the running statistics.
    async fn forward_allocating(&self, mode: Mode, phase: Phase, inputs: Inputs<'_>) -> Result<Forward, Error> {
        let statistics = self.config.statistics(mode);
        let call = self.begin(phase, 0, statistics)?;
        let normalized = async {
            self.check_inputs(inputs.x)?;
            let mut outputs = zeros_like(inputs.x)?;
            let (saved, report) = self.forward_apart(statistics, call.as_ref(), inputs, &mut outputs).await?;
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
        let result = self.forward_apart(statistics, call.as_ref(), inputs, outputs).await;
        end(call, result)
    }

    /// Forward over the caller's tensors, all but the running statistics.
    async fn forward_in_place(&self, mode: Mode, phase: Phase, tensors: InPlace<'_>) -> Result<ForwardReport, Error> {
        let statistics = self.config.statistics(mode);
        let call = self.begin(phase, 0, statistics)?;
        let InPlace { tensors, residuals } = tensors;
        let normalized = async {
            let shapes = self.check_inputs(tensors)?;
            self.check_residuals(Inputs { x: tensors, residuals }, self.config.epilogue.adds_residual())?;
            self.check_targets("inputs", tensors, &[("residuals", residuals.unwrap_or(&[]))])?;
            let (call, local) = (call.as_ref(), Local { started: Instant::now(), together: None });
            let (normalizations, report) = self.statistics(statistics, call, tensors, &shapes, local).await?;
            let target = Target::InPlace(tensors);
            self.apply(target, residuals, &shapes, &normalizations, &mut []).await?;
            Ok(report.applied())
        };
        let result = normalized.await;
        end(call, result)
    }

    async fn forward_apart(
        &self,
        statistics: Statistics,
        call: Option<&Call<'_>>,
        inputs: Inputs<'_>,
        outputs: &mut [Tensor],
    ) -> Result<(SavedForward, ForwardReport), Error> {
        let shapes = self.check_forward(inputs, outputs)?;
        let mut masks = self.masks(inputs.x, &shapes, outputs)?;
        let started = Instant::now();
        // Where a row of a mask begins within a word, two channels share one.
        let together = masks.is_empty().then(|| self.forward_together(statistics, inputs, &shapes, outputs)).flatten();
        let done = together.is_some();
        let local = Local { started, together };
        let (normalizations, report) = self.statistics(statistics, call, inputs.x, &shapes, local).await?;
        if !done {
            let target = Target::Apart { x: inputs.x, outputs };
            self.apply(target, inputs.residuals, &shapes, &normalizations, &mut masks).await?;
        }
        let exchange = call.map_or(0, Call::step);
        let call = SavedCall::new(self, inputs, statistics, masks);
        Ok((SavedForward { call, exchange, normalizations }, report.applied()))
    }

    /// What normalizes every rank, and a report that lacks the time of normalizing.
    async fn statistics(
        &self,
        statistics: Statistics,
        call: Option<&Call<'_>>,
        x: &[Tensor],
        shapes: &[Shape],
        Local { started, together }: Local,
    ) -> Result<(Vec<Normalization>, Unapplied), Error> {
        let local = match (together, statistics) {
            (Some(local), _) => local,
            (None, Statistics::Running) => Vec::new(),
            (None, Statistics::Group | Statistics::Local) => self.local_stats(x, shapes).await?,
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
        let timing = PhaseTimes { statistics: gathered - started, merge: merged - gathered, apply: Duration::ZERO };
        Ok((normalizations, Unapplied { merged, report: ForwardReport { local, global, timing } }))
    }

    /// Empty masks, where the layer keeps them and every rank can: they take a residual's place in backward.
    pub(crate) fn masks(&self, x: &[Tensor], shapes: &[Shape], outputs: &[Tensor]) -> Result<Vec<Mask>, Error> {
        let mut masks = Vec::new();
        if self.config.keeps_mask() {
            for ((tensor, shape), y) in x.iter().zip(shapes).zip(outputs) {
                masks.extend(Mask::new(View { tensor, shape }, y.dtype())?);
            }
        }
        Ok(if masks.len() == x.len() { masks } else { Vec::new() })
    }

    /// Lets the running statistics follow a call that took the group's, once everything else has succeeded.
    pub(super) fn track(&mut self, mode: Mode, report: &ForwardReport) {
        if self.config.statistics(mode) == Statistics::Group
            && let Some(running) = &mut self.running
        {
            running.update(&report.global, self.config.momentum, self.config.running_variance);
        }
    }

    /// What normalizes: one for all ranks, or one for each where each uses its own batch.
    pub(super) fn normalizations(
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

    /// Normalizes every rank, filling masks where there are any.
    async fn apply(
        &self,
        mut target: Target<'_>,
        residuals: Option<&[Tensor]>,
        shapes: &[Shape],
        normalizations: &[Normalization],
        masks: &mut [Mask],
    ) -> Result<(), Error> {
        let centering: Vec<_> = normalizations.iter().map(Normalization::centering).collect();
        let mut pending = Vec::with_capacity(shapes.len());
        for rank in self.gpus_first() {
            // One for all ranks, or one for each.
            let centering = &centering[rank % centering.len()];
            let residual = residuals.and_then(|residuals| residuals.get(rank));
            let (x, y) = target.rank(rank, &shapes[rank]);
            pending.push(engine::apply(x, residual, centering, self.engine_layer(rank), y, masks.get_mut(rank))?);
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

/// Where a call finds x and writes y.
enum Target<'a> {
    Apart { x: &'a [Tensor], outputs: &'a mut [Tensor] },
    InPlace(&'a mut [Tensor]),
}

impl Target<'_> {
    /// What is read and what is written on a rank.
    fn rank<'s>(&'s mut self, rank: usize, shape: &'s Shape) -> (Source<'s>, &'s mut Tensor) {
        match self {
            Self::Apart { x, outputs } => (Source::Apart(View { tensor: &x[rank], shape }), &mut outputs[rank]),
            Self::InPlace(tensors) => (Source::Over(shape), &mut tensors[rank]),
        }
    }
}

/// What there is of the local statistics before they are asked for.
struct Local {
    started: Instant,
    /// All of them, where the outputs were computed with them.
    together: Option<Vec<Vec<ChannelStats>>>,
}

/// The report of a call that has its statistics.
struct Unapplied {
    merged: Instant,
    report: ForwardReport,
}

impl Unapplied {
    /// The whole report, now that outputs are on their way.
    fn applied(mut self) -> ForwardReport {
        self.report.timing.apply = self.merged.elapsed();
        self.report
    }
}
