//! Backward of one or several layers: gradient sums on every device, exchange, gradients on every
//! device.

use futures::future::{BoxFuture, FutureExt, try_join_all};
use web_time::Instant;

use super::member::{Begin, Calls, begin, end};
use super::part::{self, Recorded, check_encode};
use super::{Failure, SyncBatchNorm, exact, span};
use crate::base::{Access, CheckedBackward, check_disjoint};
use crate::collective::Phase;
use crate::config::{AffineGradient, Statistics};
use crate::device::Device;
use crate::engine::{self, BackwardRank, Steps};
use crate::error::Error;
use crate::exchange::merge_ranks;
use crate::request::{BackwardParts, Gradients};
use crate::saved::{OnHost, Saved};
use crate::stats::{
    BackwardReport, Global, GlobalGradientSums, GradCentering, GradientSums, Grid, Local,
    Normalization, PerRank, PhaseTimes,
};
use crate::tensor::{Output, Tensor};
use crate::trace;

/// One layer of a call.
pub(crate) struct BackwardCall<'r> {
    pub layer: &'r SyncBatchNorm,
    pub saved: &'r Saved,
    pub parts: BackwardParts<'r>,
}

/// Backward of several layers, with the type of their results.
pub(crate) async fn backward_of<O: Output>(
    calls: Vec<BackwardCall<'_>>,
) -> Result<Vec<Gradients<O>>, Failure> {
    let done = backward(calls).await?;
    let gradients =
        done.into_iter().map(|(checked, report)| checked.made.into_output(Some(report)));
    Ok(gradients.collect::<Result<_, _>>()?)
}

/// Results of a call: what it made, and the report.
type Done = (CheckedBackward, BackwardReport);

/// Boxed, as forward is.
fn backward<'r>(calls: Vec<BackwardCall<'r>>) -> BoxFuture<'r, Result<Vec<Done>, Failure>> {
    let ranks = calls.iter().map(|call| call.parts.inputs.x.len()).sum();
    let bytes = || calls.iter().map(|call| call.parts.inputs.bytes()).sum();
    let span = span(Phase::Backward, calls.iter().map(|call| call.layer), ranks, bytes);
    let work = async move {
        let (communicating, begun) =
            begin(calls.iter().map(|BackwardCall { layer, saved, .. }| {
                let exchanges = saved.call().statistics == Statistics::Group;
                let subject = saved.on_host().map_or(0, |of| of.subject);
                let phase = Phase::Backward;
                exchanges.then(|| Begin { member: layer.member(), phase, subject })
            }));
        let result = match begun {
            Ok(()) => steps(calls, &communicating).await,
            Err(failure) => Err(failure),
        };
        end(communicating, result)
    };
    async move { span.around(work).await }.boxed()
}

/// How a call differentiates: the normalization, and the treatment of existing gradients.
pub(super) struct Differentiated<'r> {
    pub normalization: &'r PerRank<Normalization>,
    /// Grids of x, if its sums were of integers. Gradient sums are of integers then too.
    pub grids: Option<&'r PerRank<Vec<Grid>>>,
    pub accumulate: bool,
}

/// A layer during its call.
pub(super) type Part<'r> = part::Part<'r, BackwardRank<'r>, GradientSums, Differentiated<'r>>;

const ALL: Steps = Steps { sums: true, apply: true };

async fn steps(calls: Vec<BackwardCall<'_>>, communicating: &Calls) -> Result<Vec<Done>, Failure> {
    let mut checked = Vec::with_capacity(calls.len());
    for (index, call) in calls.iter().enumerate() {
        calls[0].layer.check_joint(call.layer).map_err(Failure::of(index))?;
        checked.push(call.check(ALL).map_err(Failure::of(index))?);
    }
    check_disjoint(calls.iter().map(BackwardCall::access))
        .map_err(|(index, error)| Failure::of_request(index, error))?;
    let mut parts = Vec::with_capacity(calls.len());
    for (index, (call, checked)) in calls.into_iter().zip(&mut checked).enumerate() {
        parts.push(call.part(checked, ALL).map_err(Failure::of(index))?);
    }
    let started = Instant::now();
    parts.iter_mut().for_each(Part::fuse);
    parts.iter().filter(|part| part.is_done).for_each(|_| trace::fused());
    let recorded = gradient_sums(&mut parts).await?;
    let gathered = Instant::now();
    part::synchronize(&mut parts, communicating).await?;
    exact::gradient_sums(&mut parts, communicating).await?;
    let merged = Instant::now();
    apply(&mut parts, recorded).await?;
    for (index, part) in parts.iter_mut().enumerate() {
        part.write_parameters().await.map_err(Failure::of(index))?;
    }
    let applied = merged.elapsed();
    let times =
        PhaseTimes { local: gathered - started, synchronize: merged - gathered, apply: applied };
    let reports = parts.into_iter().map(|part| {
        let local = Local::new(part.layer.config().num_features, part.local);
        BackwardReport { local, global: part.global, times }
    });
    let reports: Vec<_> = reports.collect();
    Ok(checked.into_iter().zip(reports).collect())
}

impl<'r> BackwardCall<'r> {
    /// Checks the request, before anything is submitted.
    pub(super) fn check(&self, steps: Steps) -> Result<CheckedBackward, Error> {
        check_encode(&self.parts.inputs.encode)?;
        self.saved.on_host()?;
        self.layer.base.check_backward(self.saved.call(), &self.parts, steps)
    }

    fn access(&self) -> Access<'_> {
        let Self { layer, parts, .. } = self;
        Access { base: &layer.base, read: parts.read(), written: parts.written() }
    }

    /// The layer with its ranks and their plans.
    pub(super) fn part(
        self,
        checked: &'r mut CheckedBackward,
        steps: Steps,
    ) -> Result<Part<'r>, Error> {
        let Self { layer, saved, parts } = self;
        let OnHost { normalization, grids, .. } = saved.on_host()?;
        let grids = grids.as_ref();
        let how = Differentiated { normalization, grids, accumulate: parts.accumulate };
        let ranks = checked.ranks(&layer.base, saved.call(), parts, steps)?;
        Ok(Part { is_exact: grids.is_some(), ..Part::new(layer, ranks, how) })
    }
}

impl Part<'_> {
    /// Local sums and gradients of activations in one go, if all ranks are in this memory and have
    /// one normalization.
    fn fuse(&mut self) {
        let normalization = match self.how.normalization {
            PerRank::Shared(all) => all,
            PerRank::Each(ranks) if ranks.len() == 1 => &ranks[0],
            PerRank::Each(_) => return,
        };
        if !self.is_on_this_host() {
            return;
        }
        if self.is_exact {
            return self.fuse_exact(normalization);
        }
        let finish = |of: &Normalization, local: &[Vec<GradientSums>]| {
            of.grad_centering(&merge_ranks(local))
        };
        let device = &self.layer.devices()[0];
        if let Some(local) = engine::backward_fused(device, &mut self.ranks, normalization, finish)
        {
            self.local = local;
            self.is_done = true;
        }
    }

    /// The same with sums of integers.
    fn fuse_exact(&mut self, normalization: &Normalization) {
        let Some(of_x) = self.how.grids else { return };
        let finish = |of: &Normalization, sums: &[GradientSums]| of.grad_centering(sums);
        let device = &self.layer.devices()[0];
        let of_x = of_x.of(0);
        if let Some(found) =
            engine::backward_exact(device, &mut self.ranks, normalization, of_x, finish)
        {
            self.local = found.local;
            self.global = Some(Global::new(found.global));
            self.is_done = true;
        }
    }

    /// The sums for the statistics of a rank: those of all ranks, or its own.
    fn sums_of(&self, rank: usize) -> &[GradientSums] {
        self.global
            .as_ref()
            .map_or_else(|| self.local[rank].as_slice(), GlobalGradientSums::channels)
    }

    /// Parameters of the kernels for every rank, if gradients of activations are still to be
    /// computed.
    fn centering(&self) -> PerRank<Vec<GradCentering>> {
        if self.is_done {
            return PerRank::Shared(Vec::new());
        }
        let of = |rank| self.how.normalization.of(rank).grad_centering(self.sums_of(rank));
        match (&self.global, self.how.normalization) {
            (Some(_), PerRank::Shared(_)) => PerRank::Shared(of(0)),
            _ => PerRank::Each((0..self.ranks.len()).map(of).collect()),
        }
    }

    /// Writes the gradients of weight and bias, computed on the host.
    pub async fn write_parameters(&mut self) -> Result<(), Error> {
        let communicated = self.global.as_ref().map(GlobalGradientSums::channels);
        let total_ranks = self.layer.exchange.total_ranks() as f64;
        let mut pending = Vec::new();
        for (rank, of_rank) in self.ranks.iter_mut().enumerate() {
            let (sums, divisor) = match (self.layer.config().affine_gradient, communicated) {
                (AffineGradient::GroupSum, Some(global)) => (global, 1.0),
                (AffineGradient::GroupMean, Some(global)) => (global, total_ranks),
                _ => (self.local[rank].as_slice(), 1.0),
            };
            let inv_std = &self.how.normalization.of(rank).inv_std;
            let weight = || {
                sums.iter()
                    .zip(inv_std)
                    .map(|(sums, inv_std)| weight_gradient(sums, divisor, *inv_std))
            };
            let bias = || sums.iter().map(|sums| (sums.sum_dy / divisor) as f32);
            pending.extend(write(of_rank.grad_weight.as_deref_mut(), self.how.accumulate, weight)?);
            pending.extend(write(of_rank.grad_bias.as_deref_mut(), self.how.accumulate, bias)?);
        }
        try_join_all(pending).await?;
        Ok(())
    }
}

/// Writes a gradient, or adds it to the existing one.
fn write<I: Iterator<Item = f32>>(
    target: Option<&mut Tensor>,
    accumulate: bool,
    values: impl Fn() -> I,
) -> Result<Option<crate::gpu::Pending<()>>, Error> {
    let Some(target) = target else { return Ok(None) };
    let values: Vec<f32> = values().collect();
    if accumulate {
        return engine::accumulate(target, &values).map(Some);
    }
    target.write(&values)?;
    Ok(None)
}

/// inv_std·Σ g·(x − mean). 0 for a sum of no value, also if another rank made the channel NaN.
fn weight_gradient(sums: &GradientSums, divisor: f64, inv_std: f64) -> f32 {
    let sum = sums.sum_dy_xmu / divisor;
    if sum == 0.0 { 0.0 } else { (sum * inv_std) as f32 }
}

/// Local sums of every layer, and what is recorded of its gradients meanwhile.
pub(super) async fn gradient_sums(parts: &mut [Part<'_>]) -> Result<Recorded, Error> {
    let submit = |device: &Device, rank: usize, parts: Vec<&mut Part<'_>>| {
        let ranks = parts.into_iter().map(|part| {
            let normalization = part.how.normalization.of(rank);
            (&mut part.ranks[rank], normalization)
        });
        engine::gradient_sums(device, ranks.collect())
    };
    let record = |device: &Device, rank: usize, parts: &[Part<'_>]| {
        let undone = parts.iter().filter(|part| !part.is_done).map(|part| &part.ranks[rank]);
        engine::record_input_gradients(device, undone.filter(|rank| rank.writes_activations()))
    };
    part::gather(parts, submit, record).await
}

/// The requested gradients of activations, for every rank of every layer.
pub(super) async fn apply(parts: &mut [Part<'_>], recorded: Recorded) -> Result<(), Error> {
    let centering: Vec<PerRank<Vec<GradCentering>>> = parts.iter().map(Part::centering).collect();
    let writes = BackwardRank::writes_activations;
    part::apply(parts, &centering, recorded, writes, engine::input_gradients).await
}
