//! Backward of one or several layers: gradient sums everywhere, gather, add up, send back,
//! gradients everywhere.

use futures::future::try_join_all;
use web_time::Instant;

use super::member::{Calls, Exchanging, begin, end, exchange};
use super::{Failure, SyncBatchNorm, span};
use crate::base::CheckedBackward;
use crate::collective::Phase;
use crate::config::{AffineGradient, Statistics};
use crate::engine::{self, BackwardRank, Steps};
use crate::error::{ArgumentError, Error};
use crate::exchange::merge_ranks;
use crate::request::{BackwardParts, Gradients};
use crate::saved::Saved;
use crate::stats::{
    BackwardReport, GlobalGradientSums, GradCentering, GradientSums, Local, Normalization, PerRank,
    PhaseTimes,
};
use crate::tensor::{Output, Tensor};

/// One layer of a call.
pub(crate) struct BackwardCall<'r> {
    pub layer: &'r SyncBatchNorm,
    pub saved: &'r Saved,
    pub parts: BackwardParts<'r>,
}

/// Backward of several layers, with the type of what comes back.
pub(crate) async fn backward_of<O: Output>(
    calls: Vec<BackwardCall<'_>>,
) -> Result<Vec<Gradients<O>>, Failure> {
    let ranks = calls.iter().map(|call| call.parts.x.len()).sum();
    let bytes = || calls.iter().map(|call| call.parts.bytes()).sum();
    let span = span(Phase::Backward, calls.iter().map(|call| call.layer), ranks, bytes);
    let work = async {
        let (communicating, begun) =
            begin(calls.iter().map(|BackwardCall { layer, saved, .. }| {
                let exchanges = saved.call().statistics == Statistics::Group;
                let subject = saved.on_host().map_or(0, |of| of.subject);
                exchanges.then(|| (layer.member(), Phase::Backward, subject))
            }));
        let result = match begun {
            Ok(()) => steps(calls, &communicating).await,
            Err(failure) => Err(failure),
        };
        end(communicating, result)
    };
    let done = span.around(work).await?;
    Ok(done
        .into_iter()
        .filter_map(|(checked, report)| checked.made.into_output(Some(report)))
        .collect())
}

/// A layer during its call.
pub(super) struct Part<'r> {
    pub layer: &'r SyncBatchNorm,
    pub normalization: &'r PerRank<Normalization>,
    pub ranks: Vec<BackwardRank<'r>>,
    pub accumulate: bool,
    /// `[rank][channel]`, once they are there.
    pub local: Vec<Vec<GradientSums>>,
    pub global: Option<GlobalGradientSums>,
    /// Whether the gradients of activations came with the local sums.
    pub is_done: bool,
}

const ALL: Steps = Steps { sums: true, apply: true };

async fn steps(
    calls: Vec<BackwardCall<'_>>,
    communicating: &Calls,
) -> Result<Vec<(CheckedBackward, BackwardReport)>, Failure> {
    let mut checked = Vec::with_capacity(calls.len());
    for (index, call) in calls.iter().enumerate() {
        calls[0].layer.check_joint(call.layer).map_err(Failure::of(index))?;
        checked.push(call.check(ALL).map_err(Failure::of(index))?);
    }
    check_disjoint(&calls)?;
    let mut parts = Vec::with_capacity(calls.len());
    for (index, (call, checked)) in calls.into_iter().zip(&mut checked).enumerate() {
        parts.push(call.part(checked, ALL).map_err(Failure::of(index))?);
    }
    let started = Instant::now();
    gradient_sums(&mut parts, true).await?;
    let gathered = Instant::now();
    let layers = parts.iter().zip(communicating).enumerate().filter_map(|(index, (part, call))| {
        let (member, call) = call.as_deref()?;
        Some(Exchanging { index, member, call: call.as_ref(), local: &part.local, tracks: false })
    });
    let layers: Vec<_> = layers.collect();
    let indices: Vec<usize> = layers.iter().map(|layer| layer.index).collect();
    let merged = exchange(&layers).await?;
    drop(layers);
    indices.into_iter().zip(merged).for_each(|(index, global)| parts[index].global = Some(global));
    let merged = Instant::now();
    apply(&mut parts).await?;
    for (index, part) in parts.iter_mut().enumerate() {
        part.write_parameters().await.map_err(Failure::of(index))?;
    }
    let applied = merged.elapsed();
    let times =
        PhaseTimes { local: gathered - started, synchronize: merged - gathered, apply: applied };
    let reports: Vec<BackwardReport> = parts
        .into_iter()
        .map(|part| {
            let local = Local::new(part.layer.config().num_features, part.local);
            BackwardReport { local, global: part.global, times }
        })
        .collect();
    Ok(checked.into_iter().zip(reports).collect())
}

impl<'r> BackwardCall<'r> {
    /// Checks the request, before anything is submitted.
    pub(super) fn check(&self, steps: Steps) -> Result<CheckedBackward, Error> {
        if self.parts.encode.is_some() {
            let (argument, reason) = ("encode", "this layer reads sums back; BatchNorm does not");
            return Err(ArgumentError::NotWanted { argument, reason }.into());
        }
        self.saved.on_host()?;
        self.layer.base.check_backward(self.saved.call(), &self.parts, steps)
    }

    /// The layer with its ranks and their plans.
    pub(super) fn part(
        self,
        checked: &'r mut CheckedBackward,
        steps: Steps,
    ) -> Result<Part<'r>, Error> {
        let Self { layer, saved, parts } = self;
        let normalization = &saved.on_host()?.normalization;
        let accumulate = parts.accumulate;
        let ranks = checked.ranks(&layer.base, saved.call(), parts, steps)?;
        Ok(Part {
            layer,
            normalization,
            ranks,
            accumulate,
            local: Vec::new(),
            global: None,
            is_done: false,
        })
    }
}

/// Checks the targets of each layer against the tensors of all others.
fn check_disjoint(calls: &[BackwardCall<'_>]) -> Result<(), Failure> {
    if calls.len() < 2 {
        return Ok(());
    }
    let all: Vec<_> = calls.iter().map(|call| (call.parts.read(), call.parts.written())).collect();
    for (index, (call, (_, written))) in calls.iter().zip(&all).enumerate() {
        call.layer.base.check_disjoint(index, written, &all).map_err(Failure::of(index))?;
        let parameters =
            |other: &BackwardCall<'_>| other.layer.base.check_disjoint_from_parameters(written);
        calls.iter().try_for_each(parameters).map_err(Failure::of(index))?;
    }
    Ok(())
}

impl Part<'_> {
    /// Local sums and gradients of activations, where they can be had at once: one normalization
    /// for all ranks, all of them in this memory.
    fn fuse(&mut self) {
        let normalization = match self.normalization {
            PerRank::Shared(all) => all,
            PerRank::Each(ranks) if ranks.len() == 1 => &ranks[0],
            PerRank::Each(_) => return,
        };
        if self.layer.has_peers() || !self.layer.devices().iter().all(|device| device.is_host()) {
            return;
        }
        let finish = |of: &Normalization, local: &[Vec<GradientSums>]| {
            of.grad_centering(&merge_ranks(local))
        };
        if let Some(local) =
            engine::backward_fused(&self.layer.devices()[0], &mut self.ranks, normalization, finish)
        {
            (self.local, self.is_done) = (local, true);
        }
    }

    /// The sums that the statistics of a rank depend on: those of all, or its own.
    fn sums_of(&self, rank: usize) -> &[GradientSums] {
        self.global
            .as_ref()
            .map_or_else(|| self.local[rank].as_slice(), GlobalGradientSums::channels)
    }

    /// What devices get for every rank, where gradients of activations are still to be
    /// computed.
    fn centering(&self) -> PerRank<Vec<GradCentering>> {
        if self.is_done {
            return PerRank::Shared(Vec::new());
        }
        let of = |rank| self.normalization.of(rank).grad_centering(self.sums_of(rank));
        match (&self.global, self.normalization) {
            (Some(_), PerRank::Shared(_)) => PerRank::Shared(of(0)),
            _ => PerRank::Each((0..self.ranks.len()).map(of).collect()),
        }
    }

    /// Writes the gradients of weight and bias, of which everything is on the host.
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
            let inv_std = &self.normalization.of(rank).inv_std;
            let weight = || {
                sums.iter()
                    .zip(inv_std)
                    .map(|(sums, inv_std)| weight_gradient(sums, divisor, *inv_std))
            };
            let bias = || sums.iter().map(|sums| (sums.sum_dy / divisor) as f32);
            pending.extend(write(of_rank.grad_weight.as_deref_mut(), self.accumulate, weight)?);
            pending.extend(write(of_rank.grad_bias.as_deref_mut(), self.accumulate, bias)?);
        }
        try_join_all(pending).await?;
        Ok(())
    }
}

/// Writes a gradient, or adds it to what is there.
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

/// inv_std·Σ g·(x − mean); 0 for a sum of nothing, also where another rank made the channel NaN.
fn weight_gradient(sums: &GradientSums, divisor: f64, inv_std: f64) -> f32 {
    let sum = sums.sum_dy_xmu / divisor;
    if sum == 0.0 { 0.0 } else { (sum * inv_std) as f32 }
}

/// Local sums of every layer; all GPUs have their work before the host begins with its own. Where
/// it may, it writes the gradients of activations with them.
pub(super) async fn gradient_sums(parts: &mut [Part<'_>], may_fuse: bool) -> Result<(), Failure> {
    if may_fuse {
        parts.iter_mut().for_each(Part::fuse);
    }
    let Some(layer) = parts.first().map(|part| part.layer) else { return Ok(()) };
    if parts.iter().all(|part| part.is_done) {
        return Ok(());
    }
    let mut pending: Vec<_> = layer.devices().iter().map(|_| None).collect();
    for rank in layer.gpus_first() {
        let undone = parts.iter_mut().filter(|part| !part.is_done);
        let ranks =
            undone.map(|part| (&mut part.ranks[rank], part.normalization.of(rank))).collect();
        pending[rank] = Some(engine::gradient_sums(&layer.devices()[rank], ranks)?);
    }
    for of_rank in try_join_all(pending.into_iter().flatten()).await? {
        let undone = parts.iter_mut().filter(|part| !part.is_done);
        undone.zip(of_rank).for_each(|(part, local)| part.local.push(local));
    }
    Ok(())
}

/// Gradients of activations of every rank of every layer, of what is wanted, one submission per
/// GPU.
pub(super) async fn apply(parts: &mut [Part<'_>]) -> Result<(), Error> {
    let Some(layer) = parts.first().map(|part| part.layer) else { return Ok(()) };
    let centering: Vec<PerRank<Vec<GradCentering>>> = parts.iter().map(Part::centering).collect();
    let mut pending = Vec::with_capacity(layer.devices().len());
    for rank in layer.outputs_order() {
        let undone = parts.iter_mut().zip(&centering).filter(|(part, _)| !part.is_done);
        let writing = undone.filter(|(part, _)| part.ranks[rank].writes_activations());
        let ranks: Vec<_> = writing
            .map(|(part, centering)| (&mut part.ranks[rank], centering.of(rank).as_slice()))
            .collect();
        if !ranks.is_empty() {
            pending.push(engine::input_gradients(&layer.devices()[rank], ranks)?);
        }
    }
    try_join_all(pending).await?;
    Ok(())
}
