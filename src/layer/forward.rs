//! Forward of one or several layers: submit everywhere, gather, merge, send back, normalize
//! everywhere. A call of one layer is a joint call of one.

use futures::future::try_join_all;
use web_time::Instant;

use super::member::{Calls, Exchanging, begin, end, exchange};
use super::{Failure, SyncBatchNorm, span};
use crate::base::CheckedForward;
use crate::collective::Phase;
use crate::config::{Mode, Statistics};
use crate::engine::{self, ForwardRank, Steps};
use crate::error::{ArgumentError, Error};
use crate::exchange::{Call, merge_ranks};
use crate::request::{ForwardParts, Normalized};
use crate::saved::{OnHost, Saved};
use crate::stats::{
    Centering, ForwardReport, Global, GlobalStatistics, Local, Moments, Normalization, PerRank,
    PhaseTimes,
};
use crate::tensor::{Output, Tensor};

/// One layer of a call.
pub(crate) struct ForwardCall<'r> {
    pub layer: &'r SyncBatchNorm,
    pub parts: ForwardParts<'r>,
}

/// What a call leaves: outputs that were made for the caller, and what is saved.
type Done = (Vec<Tensor>, Saved);

/// Forward of several layers, with the type of what comes back.
pub(crate) async fn forward_of<O: Output>(
    calls: Vec<ForwardCall<'_>>,
    mode: Mode,
) -> Result<Vec<Normalized<O>>, Failure> {
    let done = forward(calls, mode).await?;
    Ok(done.into_iter().filter_map(normalized).collect())
}

/// What the caller gets.
pub(super) fn normalized<O: Output>((outputs, saved): Done) -> Option<Normalized<O>> {
    O::of_list(outputs).map(|output| Normalized { output, saved })
}

async fn forward(calls: Vec<ForwardCall<'_>>, mode: Mode) -> Result<Vec<Done>, Failure> {
    let phase = |call: &ForwardCall<'_>| match (mode, call.parts.untracked) {
        (_, true) => Phase::Recompute,
        (Mode::Train, false) => Phase::Forward,
        (Mode::Eval, false) => Phase::Evaluate,
    };
    let ranks = calls.iter().map(|call| call.parts.ranks()).sum();
    let bytes = || calls.iter().map(|call| call.parts.bytes()).sum();
    let layers = calls.iter().map(|call| call.layer);
    let span = span(calls.first().map_or(Phase::Forward, phase), layers, ranks, bytes);
    let work = async {
        let (communicating, begun) = begin(calls.iter().map(|call| {
            let layer = call.layer;
            let exchanges = layer.config().statistics(mode) == Statistics::Group;
            exchanges.then(|| (layer.member(), phase(call), 0))
        }));
        let result = match begun {
            Ok(()) => steps(calls, &communicating, mode).await,
            Err(failure) => Err(failure),
        };
        end(communicating, result)
    };
    span.around(work).await
}

/// A layer during its call.
pub(super) struct Part<'r> {
    layer: &'r SyncBatchNorm,
    statistics: Statistics,
    tracks: bool,
    ranks: Vec<ForwardRank<'r>>,
    /// `[rank][channel]`, once they are there.
    local: Vec<Vec<Moments>>,
    /// Whether the outputs came with the local statistics.
    is_done: bool,
}

async fn steps(
    calls: Vec<ForwardCall<'_>>,
    communicating: &Calls,
    mode: Mode,
) -> Result<Vec<Done>, Failure> {
    let mut checked = Vec::with_capacity(calls.len());
    for (index, call) in calls.iter().enumerate() {
        let statistics = call.layer.config().statistics(mode);
        calls[0].layer.check_joint(call.layer).map_err(Failure::of(index))?;
        checked.push(call.check(statistics).map_err(Failure::of(index))?);
    }
    check_disjoint(&calls)?;
    let mut parts = Vec::with_capacity(calls.len());
    for (index, (call, checked)) in calls.into_iter().zip(&mut checked).enumerate() {
        let ForwardCall { layer, parts: request } = call;
        let statistics = layer.config().statistics(mode);
        let steps = Steps { sums: statistics != Statistics::Running, apply: true };
        let tracks = !request.untracked;
        let ranks = checked.ranks(&layer.base, request, steps, None).map_err(Failure::of(index))?;
        parts.push(Part { tracks, ..Part::new(layer, statistics, ranks) });
    }
    let started = Instant::now();
    local_statistics(&mut parts, true).await?;
    let gathered = Instant::now();
    let mut globals = synchronize(&parts, communicating).await?;
    let of_part = |(part, global): (&Part<'_>, &Option<GlobalStatistics>)| {
        part.normalization(global.as_ref())
    };
    let normalizations: Vec<_> = parts.iter().zip(&globals).map(of_part).collect();
    let merged = Instant::now();
    apply(&mut parts, &normalizations).await?;
    let applied = merged.elapsed();
    let times =
        PhaseTimes { local: gathered - started, synchronize: merged - gathered, apply: applied };
    let mut found = Vec::with_capacity(parts.len());
    for part in parts {
        let local = Local::new(part.layer.config().num_features, part.local);
        found.push((masks_of(part.ranks), local));
    }
    let done = checked
        .into_iter()
        .zip(found)
        .zip(normalizations)
        .zip(globals.iter_mut())
        .zip(communicating);
    let done = done.map(|((((checked, (masks, local)), normalization), global), call)| {
        let subject = call.as_deref().and_then(|(_, call)| call.as_ref()).map_or(0, Call::step);
        let of = OnHost {
            subject,
            normalization,
            global: global.take(),
            report: ForwardReport { local, times },
        };
        finish(checked, masks, of)
    });
    Ok(done.collect())
}

/// What is left when the outputs are on their way.
pub(super) fn finish(checked: CheckedForward, masks: Vec<engine::Mask>, of: OnHost) -> Done {
    let CheckedForward { outputs, mut call, .. } = checked;
    call.masks = masks;
    (outputs, Saved::of_host(call, of))
}

impl ForwardCall<'_> {
    /// Checks the request, before anything is submitted.
    pub(super) fn check(&self, statistics: Statistics) -> Result<CheckedForward, Error> {
        check_encode(&self.parts)?;
        self.layer.base.check_forward(&self.parts, statistics)
    }
}

/// Refuses an encoder.
pub(super) fn check_encode(parts: &ForwardParts<'_>) -> Result<(), ArgumentError> {
    let (argument, reason) = ("encode", "this layer reads statistics back; BatchNorm does not");
    if parts.encode.is_none() { Ok(()) } else { Err(ArgumentError::NotWanted { argument, reason }) }
}

/// Checks the targets of each layer against the tensors of all others.
fn check_disjoint(calls: &[ForwardCall<'_>]) -> Result<(), Failure> {
    if calls.len() < 2 {
        return Ok(());
    }
    let all: Vec<_> = calls.iter().map(|call| (call.parts.read(), call.parts.written())).collect();
    for (index, (call, (_, written))) in calls.iter().zip(&all).enumerate() {
        call.layer.base.check_disjoint(index, written, &all).map_err(Failure::of(index))?;
        let parameters =
            |other: &ForwardCall<'_>| other.layer.base.check_disjoint_from_parameters(written);
        calls.iter().try_for_each(parameters).map_err(Failure::of(index))?;
    }
    Ok(())
}

impl<'r> Part<'r> {
    pub fn new(
        layer: &'r SyncBatchNorm,
        statistics: Statistics,
        ranks: Vec<ForwardRank<'r>>,
    ) -> Self {
        Self { layer, statistics, tracks: false, ranks, local: Vec::new(), is_done: false }
    }

    pub fn into_local(self) -> Vec<Vec<Moments>> {
        self.local
    }

    pub fn into_masks(self) -> Vec<engine::Mask> {
        masks_of(self.ranks)
    }

    /// Whether the statistics of a channel depend on nothing but host memory of this process, the
    /// same for every rank.
    fn is_fusible(&self) -> bool {
        let same = self.statistics != Statistics::Local || self.ranks.len() == 1;
        same && !self.layer.has_peers()
            && self.layer.devices().iter().all(|device| device.is_host())
    }

    /// Local statistics and outputs, where they can be had at once.
    fn fuse(&mut self) {
        let count: u64 = self.ranks.iter().map(|rank| rank.shape.values_per_channel()).sum();
        // One value has no statistics, which is found out before anything is written.
        if self.statistics == Statistics::Running || !self.is_fusible() || count < 2 {
            return;
        }
        let eps = self.layer.config().eps;
        let center =
            |local: &[Vec<Moments>]| Global::new(merge_ranks(local)).normalization(eps).centering();
        if let Some(local) =
            engine::forward_fused(&self.layer.devices()[0], &mut self.ranks, center)
        {
            (self.local, self.is_done) = (local, true);
        }
    }

    fn wants_statistics(&self) -> bool {
        !self.is_done && self.statistics != Statistics::Running
    }

    /// What normalizes: one for all ranks, or one for each where each uses its own batch.
    fn normalization(&self, global: Option<&GlobalStatistics>) -> PerRank<Normalization> {
        let eps = self.layer.config().eps;
        match (self.statistics, global) {
            (Statistics::Group, Some(global)) => PerRank::Shared(global.normalization(eps)),
            (Statistics::Running, _) => {
                // The configuration's check leaves no way here without running statistics.
                let running = self.layer.running.snapshot();
                PerRank::Shared(
                    running
                        .map_or_else(Normalization::default, |running| running.normalization(eps)),
                )
            }
            _ => PerRank::Each(
                self.local
                    .iter()
                    .map(|rank| Global::new(rank.iter().copied()).normalization(eps))
                    .collect(),
            ),
        }
    }

    /// What devices get, where outputs are still to be computed.
    fn centering(&self, normalization: &PerRank<Normalization>) -> PerRank<Vec<Centering>> {
        if self.is_done {
            PerRank::Shared(Vec::new())
        } else {
            normalization.map(Normalization::centering)
        }
    }
}

fn masks_of(ranks: Vec<ForwardRank<'_>>) -> Vec<engine::Mask> {
    ranks.into_iter().filter_map(|rank| rank.mask).collect()
}

/// Local statistics of every layer. All GPUs have their work, in one submission each, before the
/// host begins with its own, and before any is waited for. Where it may, it computes outputs with
/// them.
pub(super) async fn local_statistics(
    parts: &mut [Part<'_>],
    may_fuse: bool,
) -> Result<(), Failure> {
    if may_fuse {
        parts.iter_mut().for_each(Part::fuse);
    }
    let Some(layer) = parts.first().map(|part| part.layer) else { return Ok(()) };
    if !parts.iter().any(Part::wants_statistics) {
        return Ok(());
    }
    let mut pending: Vec<_> = layer.devices().iter().map(|_| None).collect();
    for rank in layer.gpus_first() {
        let wanting = parts.iter_mut().filter(|part| part.wants_statistics());
        let ranks = wanting.map(|part| &mut part.ranks[rank]).collect();
        pending[rank] = Some(engine::statistics(&layer.devices()[rank], ranks)?);
    }
    for of_rank in try_join_all(pending.into_iter().flatten()).await? {
        let wanting = parts.iter_mut().filter(|part| part.wants_statistics());
        wanting.zip(of_rank).for_each(|(part, local)| part.local.push(local));
    }
    Ok(())
}

/// Statistics of all ranks for every layer that exchanges them.
async fn synchronize(
    parts: &[Part<'_>],
    communicating: &Calls,
) -> Result<Vec<Option<GlobalStatistics>>, Failure> {
    let mut globals: Vec<Option<GlobalStatistics>> = parts.iter().map(|_| None).collect();
    let layers = parts.iter().zip(communicating).enumerate().filter_map(|(index, (part, call))| {
        let (member, call) = call.as_deref()?;
        Some(Exchanging {
            index,
            member,
            call: call.as_ref(),
            local: &part.local,
            tracks: part.tracks,
        })
    });
    let layers: Vec<_> = layers.collect();
    let merged = exchange(&layers).await?;
    for (layer, global) in layers.iter().zip(merged) {
        globals[layer.index] = Some(global);
    }
    Ok(globals)
}

/// Normalizes every rank of every layer, one submission per GPU.
pub(super) async fn apply(
    parts: &mut [Part<'_>],
    normalizations: &[PerRank<Normalization>],
) -> Result<(), Error> {
    let Some(layer) = parts.first().map(|part| part.layer) else { return Ok(()) };
    let centering: Vec<PerRank<Vec<Centering>>> =
        parts.iter().zip(normalizations).map(|(part, of)| part.centering(of)).collect();
    let mut pending = Vec::with_capacity(layer.devices().len());
    for rank in layer.outputs_order() {
        let undone = parts.iter_mut().zip(&centering).filter(|(part, _)| !part.is_done);
        let ranks: Vec<_> = undone
            .map(|(part, centering)| (&mut part.ranks[rank], centering.of(rank).as_slice()))
            .collect();
        if !ranks.is_empty() {
            pending.push(engine::normalize(&layer.devices()[rank], ranks)?);
        }
    }
    try_join_all(pending).await?;
    Ok(())
}
