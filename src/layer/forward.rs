//! Forward of one or several layers: sums on every device, exchange, normalization on every device.
//! A call of one layer is a joint call of one.

use futures::future::{BoxFuture, FutureExt};
use web_time::Instant;

use super::member::{Begin, Calls, begin, end};
use super::part::{self, Recorded, check_forward_parts};
use super::{Failure, SyncBatchNorm, exact, span};
use crate::base::{Access, CheckedForward, check_disjoint};
use crate::collective::Phase;
use crate::config::{Mode, Statistics};
use crate::device::Device;
use crate::engine::{self, ForwardRank, Kept, Steps};
use crate::error::{ArgumentError, Error};
use crate::exchange::{Call, merge_ranks};
use crate::request::{ForwardParts, Normalized};
use crate::saved::{OnHost, Saved};
use crate::stats::{
    Centering, ForwardReport, Global, Grid, Local, Moments, Normalization, PerRank, PhaseTimes,
};
use crate::tensor::{Output, Tensor};
use crate::trace;

/// One layer of a call.
pub(crate) struct ForwardCall<'r> {
    pub layer: &'r SyncBatchNorm,
    pub parts: ForwardParts<'r>,
}

/// Results of a call: outputs that it allocated, and the saved context.
pub(super) struct Done {
    outputs: Vec<Tensor>,
    saved: Saved,
}

/// Forward of several layers, with the type of their results.
pub(crate) async fn forward_of<O: Output>(
    calls: Vec<ForwardCall<'_>>,
    mode: Mode,
) -> Result<Vec<Normalized<O>>, Failure> {
    let done = forward(calls, mode).await?;
    Ok(done.into_iter().map(normalized).collect::<Result<_, _>>()?)
}

/// The caller's result.
pub(super) fn normalized<O: Output>(done: Done) -> Result<Normalized<O>, Error> {
    Ok(Normalized { output: O::of_list(done.outputs)?, saved: done.saved })
}

/// Boxed, and so compiled once: an application that awaits an `async fn` compiles all that this
/// awaits.
fn forward<'r>(
    calls: Vec<ForwardCall<'r>>,
    mode: Mode,
) -> BoxFuture<'r, Result<Vec<Done>, Failure>> {
    let phase = move |call: &ForwardCall<'_>| match (mode, call.parts.untracked) {
        (_, true) => Phase::Recompute,
        (Mode::Train, false) => Phase::Forward,
        (Mode::Eval, false) => Phase::Evaluate,
    };
    let ranks = calls.iter().map(|call| call.parts.ranks()).sum();
    let bytes = || calls.iter().map(|call| call.parts.bytes()).sum();
    let layers = calls.iter().map(|call| call.layer);
    let span = span(calls.first().map_or(Phase::Forward, phase), layers, ranks, bytes);
    let work = async move {
        let (communicating, begun) = begin(calls.iter().map(|call| {
            let layer = call.layer;
            let exchanges = layer.config().statistics(mode) == Statistics::Group;
            let phase = phase(call);
            exchanges.then(|| Begin { member: layer.member(), phase, subject: 0 })
        }));
        let result = match begun {
            Ok(()) => steps(calls, &communicating, mode).await,
            Err(failure) => Err(failure),
        };
        end(communicating, result)
    };
    async move { span.around(work).await }.boxed()
}

/// A layer during its call, with the statistics that normalize.
pub(super) type Part<'r> = part::Part<'r, ForwardRank<'r>, Moments, By>;

/// The statistics that a call normalizes with.
pub(super) struct By {
    pub statistics: Statistics,
    /// Grids of x, if its sums were of integers.
    pub grids: Option<PerRank<Vec<Grid>>>,
}

impl From<Statistics> for By {
    fn from(statistics: Statistics) -> Self {
        Self { statistics, grids: None }
    }
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
        call.check_recomputation(mode).map_err(Failure::of(index))?;
        checked.push(call.check(statistics).map_err(Failure::of(index))?);
    }
    check_disjoint(calls.iter().map(ForwardCall::access))
        .map_err(|(index, error)| Failure::of_request(index, error))?;
    let mut parts = Vec::with_capacity(calls.len());
    for (index, (call, checked)) in calls.into_iter().zip(&mut checked).enumerate() {
        parts.push(call.part(checked, mode).map_err(Failure::of(index))?);
    }
    let started = Instant::now();
    parts.iter_mut().for_each(Part::fuse);
    parts.iter().filter(|part| part.is_done).for_each(|_| trace::fused());
    let recorded = local_statistics(&mut parts).await?;
    let gathered = Instant::now();
    part::synchronize(&mut parts, communicating).await?;
    exact::statistics(&mut parts, communicating).await?;
    let normalizations: Vec<_> = parts.iter().map(Part::normalization).collect();
    let merged = Instant::now();
    apply(&mut parts, &normalizations, recorded).await?;
    let applied = merged.elapsed();
    let times =
        PhaseTimes { local: gathered - started, synchronize: merged - gathered, apply: applied };
    let mut found = Vec::with_capacity(parts.len());
    for ((part, normalization), call) in parts.into_iter().zip(normalizations).zip(communicating) {
        let subject = call.as_deref().and_then(|layer| layer.call.as_ref()).map_or(0, Call::step);
        let local = Local::new(part.layer.config().num_features, part.local);
        let report = ForwardReport { local, times };
        let grids = part.how.grids;
        let of = OnHost { subject, normalization, global: part.global, grids, report };
        found.push((ForwardRank::kept(part.ranks), of));
    }
    let done = checked.into_iter().zip(found);
    Ok(done.map(|(checked, (kept, of))| finish(checked, kept, of)).collect())
}

/// The results, once the outputs are submitted.
pub(super) fn finish(checked: CheckedForward, kept: Kept, of: OnHost) -> Done {
    let CheckedForward { outputs, mut call, .. } = checked;
    call.kept = kept;
    Done { outputs, saved: Saved::of_host(call, of) }
}

impl<'r> ForwardCall<'r> {
    /// Refuses a recomputation by running statistics that are not those of the call.
    fn check_recomputation(&self, mode: Mode) -> Result<(), Error> {
        if mode == Mode::Train && self.parts.untracked && self.layer.config().renorm.is_some() {
            let reason = "the layer renormalizes by running statistics that have moved since: give \
                          `normalize` the statistics of the saved call";
            return Err(ArgumentError::NotWanted { argument: "untracked", reason }.into());
        }
        Ok(())
    }

    /// Checks the request, before anything is submitted.
    pub(super) fn check(&self, statistics: Statistics) -> Result<CheckedForward, Error> {
        check_forward_parts(&self.parts)?;
        self.layer.base.check_forward(&self.parts, statistics)
    }

    fn access(&self) -> Access<'_> {
        let Self { layer, parts } = self;
        Access { base: &layer.base, read: parts.read(), written: parts.written() }
    }

    /// The layer with its ranks and their plans.
    fn part(self, checked: &'r mut CheckedForward, mode: Mode) -> Result<Part<'r>, Error> {
        let Self { layer, parts } = self;
        let statistics = layer.config().statistics(mode);
        let sums = statistics != Statistics::Running;
        let tracks = !parts.untracked;
        let ranks = checked.ranks(&layer.base, parts, Steps { sums, apply: true }, None)?;
        let is_exact = layer.config().reproducible;
        Ok(Part { sums, tracks, is_exact, ..Part::new(layer, ranks, statistics.into()) })
    }
}

impl Part<'_> {
    /// Local statistics and outputs in one go, if the statistics of a channel depend only on host
    /// memory of this process and are the same for every rank.
    fn fuse(&mut self) {
        let count: u64 = self.ranks.iter().map(|rank| rank.shape.values_per_channel()).sum();
        let is_shared = self.how.statistics == Statistics::Group || self.ranks.len() == 1;
        // One value has no statistics. That is found before anything is written.
        let renorms = self.layer.config().renorm.is_some();
        if !self.sums || renorms || !is_shared || !self.is_on_this_host() || count < 2 {
            return;
        }
        if self.is_exact {
            return self.fuse_exact();
        }
        let eps = self.layer.config().eps;
        let center =
            |local: &[Vec<Moments>]| Global::new(merge_ranks(local)).normalization(eps).centering();
        let device = &self.layer.devices()[0];
        if let Some(local) = engine::forward_fused(device, &mut self.ranks, center) {
            self.local = local;
            self.is_done = true;
        }
    }

    /// The same with sums of integers.
    fn fuse_exact(&mut self) {
        let eps = self.layer.config().eps;
        let center = |moments: &[Moments]| {
            Global::new(moments.iter().copied()).normalization(eps).centering()
        };
        let device = &self.layer.devices()[0];
        if let Some(found) = engine::forward_exact(device, &mut self.ranks, center) {
            self.how.grids = Some(PerRank::Shared(exact::grids(&found.ranges)));
            self.local = found.local;
            self.global = Some(Global::new(found.global).with_ranges(found.ranges));
            self.is_done = true;
        }
    }

    /// The normalization: one for all ranks, or one for each if each uses its own batch.
    fn normalization(&self) -> PerRank<Normalization> {
        let eps = self.layer.config().eps;
        match (self.how.statistics, &self.global) {
            (Statistics::Group, Some(global)) => PerRank::Shared(global.normalization(eps)),
            (Statistics::Running, _) => {
                // The configuration's check guarantees running statistics here.
                let running = self.layer.running.snapshot();
                let of_running = running.map(|running| running.normalization(eps));
                PerRank::Shared(of_running.unwrap_or_default())
            }
            _ => {
                let own = |rank: &Vec<Moments>| Global::new(rank.iter().copied());
                PerRank::Each(self.local.iter().map(|rank| own(rank).normalization(eps)).collect())
            }
        }
    }
}

/// Local statistics of every layer, and what is recorded of its outputs meanwhile.
pub(super) async fn local_statistics(parts: &mut [Part<'_>]) -> Result<Recorded, Error> {
    let submit = |device: &Device, rank: usize, parts: Vec<&mut Part<'_>>| {
        engine::statistics(device, parts.into_iter().map(|part| &mut part.ranks[rank]).collect())
    };
    let record = |device: &Device, rank: usize, parts: &[Part<'_>]| {
        let undone = parts.iter().filter(|part| !part.is_done);
        engine::record_normalize(device, undone.map(|part| &part.ranks[rank]))
    };
    part::gather(parts, submit, record).await
}

/// Normalizes every rank of every layer.
pub(super) async fn apply(
    parts: &mut [Part<'_>],
    normalizations: &[PerRank<Normalization>],
    recorded: Recorded,
) -> Result<(), Error> {
    let centering = parts.iter().zip(normalizations).map(|(part, normalization)| {
        // Finished outputs need no normalization.
        if part.is_done {
            PerRank::Shared(Vec::new())
        } else {
            normalization.map(Normalization::centering)
        }
    });
    let centering: Vec<PerRank<Vec<Centering>>> = centering.collect();
    part::apply(parts, &centering, recorded, |_| true, engine::normalize).await
}
