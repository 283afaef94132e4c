//! The phases of forward: submit everywhere, gather, merge, send back, normalize everywhere.

use std::time::{Duration, Instant};

use futures::future::try_join_all;

use super::{Forward, ForwardReport, PhaseTimes};
use crate::collective::Phase;
use crate::config::{Mode, Statistics};
use crate::coordinator::Call;
use crate::engine::{self, Mask, Source, View};
use crate::error::{BatchError, Error};
use crate::group::{DeviceGroup, InPlace, Inputs, SavedCall, SavedForward, end, zeros_like};
use crate::shape::Shape;
use crate::stats::{ChannelStats, GlobalStats, Normalization};
use crate::tensor::Tensor;

impl DeviceGroup {
    /// Forward into tensors of its own, all but the running statistics.
    pub(super) async fn forward_allocating(
        &self,
        mode: Mode,
        phase: Phase,
        inputs: Inputs<'_>,
    ) -> Result<Forward, Error> {
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
    pub(super) async fn forward(
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
    pub(super) async fn forward_in_place(
        &self,
        mode: Mode,
        phase: Phase,
        tensors: InPlace<'_>,
    ) -> Result<ForwardReport, Error> {
        let statistics = self.config.statistics(mode);
        let call = self.begin(phase, 0, statistics)?;
        let InPlace { tensors, residuals } = tensors;
        let normalized = async {
            let shapes = self.check_forward_in_place(tensors, residuals)?;
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
        call: Option<&Call>,
        inputs: Inputs<'_>,
        outputs: &mut [Tensor],
    ) -> Result<(SavedForward, ForwardReport), Error> {
        let shapes = self.check_forward(inputs, outputs)?;
        let masks = self.masks(inputs.x, &shapes, outputs)?;
        let mut saved = SavedCall::new(self, inputs, statistics, masks);
        let started = Instant::now();
        let together = self.forward_together(statistics, inputs, &shapes, outputs, saved.masks_mut());
        let done = together.is_some();
        let local = Local { started, together };
        let (normalizations, report) = self.statistics(statistics, call, inputs.x, &shapes, local).await?;
        if !done {
            let target = Target::Apart { x: inputs.x, outputs };
            self.apply(target, inputs.residuals, &shapes, &normalizations, saved.masks_mut()).await?;
        }
        let exchange = call.map_or(0, Call::step);
        Ok((SavedForward { call: saved, exchange, normalizations }, report.applied()))
    }

    /// What normalizes every rank, and a report that lacks the time of normalizing.
    async fn statistics(
        &self,
        statistics: Statistics,
        call: Option<&Call>,
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
            global = GlobalStats::finalize(self.merge_telling(call, &local).await?, eps);
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
    pub(in crate::group) fn track(&mut self, mode: Mode, report: &ForwardReport) {
        if self.config.statistics(mode) == Statistics::Group
            && let Some(running) = &mut self.running
        {
            running.update(&report.global, self.config.momentum, self.config.running_variance);
        }
    }

    /// What normalizes: one for all ranks, or one for each where each uses its own batch.
    pub(in crate::group) fn normalizations(
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
            let x = View { tensor: &inputs[rank], shape: &shapes[rank] };
            pending[rank] = Some(engine::local_stats(x, self.config.eps)?);
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
        for rank in self.outputs_order() {
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
    pub(in crate::group) fn gpus_first(&self) -> Vec<usize> {
        let mut ranks: Vec<usize> = (0..self.devices.len()).collect();
        ranks.sort_by_key(|&rank| self.devices[rank].is_host());
        ranks
    }

    /// The order in which outputs are computed: on the host from the last rank, whose input the sums have left in the caches.
    pub(in crate::group) fn outputs_order(&self) -> Vec<usize> {
        let mut ranks = self.gpus_first();
        let gpus = ranks.partition_point(|&rank| !self.devices[rank].is_host());
        ranks[gpus..].reverse();
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
