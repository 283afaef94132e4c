//! The steps of a pass, one at a time: local statistics or sums, the exchange, outputs.

use std::slice::from_mut;

use futures::future::{BoxFuture, FutureExt};
use web_time::Instant;

use super::backward::{self, BackwardCall};
use super::forward::{self, Done, ForwardCall, Part, normalized};
use super::part::check_forward_parts;
use super::synchronize::synchronize;
use super::{Failure, SyncBatchNorm};
use crate::base::CheckedBackward;
use crate::collective::{ANY_SUBJECT, Synchronization};
use crate::config::{BatchNormConfig, Statistics};
use crate::engine::{ForwardRank, Steps};
use crate::error::{ArgumentError, Error};
use crate::request::{Backward, BackwardParts, Forward, ForwardParts, Gradients, Normalized};
use crate::saved::{OnHost, Saved};
use crate::stats::{
    ForwardReport, Global, GlobalGradientSums, GlobalStatistics, Local, LocalGradientSums,
    LocalStatistics, Mergeable, PerRank, PhaseTimes, check_statistics,
};
use crate::tensor::Output;

impl SyncBatchNorm {
    /// The first step of forward: the statistics of x on each of this caller's ranks. It does not
    /// communicate and changes nothing. Only the x of a request counts, so one request serves all
    /// steps.
    ///
    /// For micro-batches that do not fit in memory at once, call it for each and
    /// [merge](Local::merge) the results. That equals one batch of all of them, up to rounding. If
    /// they are loaded again for backward, set [`recomputed`](Backward::recomputed).
    ///
    /// # Errors
    /// [`ArgumentError`], [`LimitError`](crate::error::LimitError) or
    /// [`GpuError`](crate::error::GpuError) as [`forward_train`](Self::forward_train).
    ///
    /// # Cancel safety
    /// A dropped future has no effect.
    pub async fn local_statistics<'a, O: Output>(
        &self,
        request: impl Into<Forward<'a, O>>,
    ) -> Result<LocalStatistics, Error> {
        self.local_statistics_of(request.into().parts).await
    }

    /// Boxed, and so compiled once, not by each application that awaits it.
    fn local_statistics_of<'r>(
        &'r self,
        parts: ForwardParts<'r>,
    ) -> BoxFuture<'r, Result<LocalStatistics, Error>> {
        async move {
            check_forward_parts(&parts)?;
            self.check_one_round()?;
            let ranks = self.base.statistics_ranks(&parts)?;
            let mut part = Part::new(self, ranks, Statistics::Group.into());
            forward::local_statistics(from_mut(&mut part)).await?;
            Ok(Local::new(self.config().num_features, part.local))
        }
        .boxed()
    }

    /// The second step of forward and of backward: merges over all ranks. Statistics update the
    /// running ones, unless the exchange is [`untracked`](Synchronization::untracked). It borrows
    /// nothing and may be [started](Synchronization::start) now and awaited later.
    ///
    /// It is matched with [`forward_train`](Self::forward_train) of other ranks, or with their
    /// [`backward`](Self::backward). A rank without further batches goes on with [`Local::empty`]
    /// until all ranks have run out. Then the [count](GlobalStatistics::count) is 0. Several layers
    /// share one exchange with [`joint::synchronize`](crate::joint::synchronize). Exchanges of
    /// several layers must begin in the same order on every rank, not in the order in which devices
    /// finish the first step.
    ///
    /// # Errors
    /// As [`forward_train`](Self::forward_train).
    ///
    /// # Cancel safety
    /// A [`Synchronization`] that is dropped before it began has done nothing. If it is dropped
    /// between its beginning and its end, this rank has failed. The others are notified, and the
    /// process group refuses further work.
    pub fn synchronize<T: Mergeable>(&self, local: Local<T>) -> Synchronization<Global<T>> {
        let layers = vec![(self.member(), local)];
        let is_allowed = self.check_one_round();
        Synchronization::new(move |tracks| {
            let run = async move {
                is_allowed?;
                Failure::single(synchronize(layers, tracks).await)
            };
            run.boxed()
        })
    }

    /// The third step of forward: normalizes with given statistics, usually those of
    /// [`synchronize`](Self::synchronize). It does not communicate. The running statistics stay.
    ///
    /// Differentiate its saved context with [`backward`](Self::backward) or with the steps of
    /// backward. There the statistics depend on x, as in a training step.
    ///
    /// # Errors
    /// As [`forward_train`](Self::forward_train); [`ArgumentError::Length`] for statistics of other
    /// channels, and [`ArgumentError::Statistics`] for statistics that no batch can have.
    ///
    /// # Cancel safety
    /// A dropped future may leave its targets partly written.
    pub async fn normalize<'a, O: Output>(
        &self,
        request: impl Into<Forward<'a, O>>,
        global: &GlobalStatistics,
    ) -> Result<Normalized<O>, Error> {
        normalized(self.normalize_by(request.into().parts, global).await?)
    }

    /// Boxed, as [`local_statistics_of`](Self::local_statistics_of) is.
    fn normalize_by<'r>(
        &'r self,
        parts: ForwardParts<'r>,
        global: &'r GlobalStatistics,
    ) -> BoxFuture<'r, Result<Done, Error>> {
        async move {
            let call = ForwardCall { layer: self, parts };
            self.base.check_length("global", global.channels().len())?;
            let mut channels = global.channels().to_vec();
            check_statistics("global", None, &mut channels)?;
            let global = &global.with_channels(channels);
            if self.config().reproducible && global.ranges().is_none() {
                let reason =
                    "the layer is reproducible, and they are not of `statistics_in_rounds`";
                return Err(ArgumentError::NotWanted { argument: "global", reason }.into());
            }
            let BatchNormConfig { eps, renorm, .. } = *self.config();
            if let Some(by) = global.renormalized() {
                self.base
                    .check_length("global.renormalized.running.mean", by.running.mean.len())?;
                self.base.check_length("global.renormalized.running.var", by.running.var.len())?;
            } else if renorm.is_some() {
                let reason =
                    "the layer renormalizes, and they are not of an exchange of such a layer";
                return Err(ArgumentError::NotWanted { argument: "global", reason }.into());
            }
            if let Some(ranges) = global.ranges() {
                self.base.check_length("global.ranges", ranges.len())?;
            }
            let grids = global.grids().map(PerRank::Shared);
            let mut checked = call.check(Statistics::Group)?;
            let steps = Steps { sums: false, apply: true };
            let started = Instant::now();
            let ranks = checked.ranks(&self.base, call.parts, steps, None)?;
            let mut part = Part::new(self, ranks, Statistics::Group.into());
            let normalization = PerRank::Shared(global.normalization(eps));
            forward::apply(from_mut(&mut part), std::slice::from_ref(&normalization), Vec::new())
                .await?;
            let kept = ForwardRank::kept(part.ranks);
            let times = PhaseTimes { apply: started.elapsed(), ..PhaseTimes::default() };
            let report = ForwardReport { local: Local::empty(self.config().num_features), times };
            let subject = ANY_SUBJECT;
            let of = OnHost { subject, normalization, global: Some(global.clone()), grids, report };
            Ok(forward::finish(checked, kept, of))
        }
        .boxed()
    }

    /// The first step of backward: the gradient sums of each of this caller's ranks. It does not
    /// communicate. If the request has targets for the gradients of weight and bias, it writes the
    /// rank's own sums, for every [`AffineGradient`](crate::config::AffineGradient). So
    /// micro-batches add up with [`accumulate`](Backward::accumulate).
    ///
    /// # Errors
    /// As [`backward`](Self::backward); [`ArgumentError::NotWanted`] for other targets, and
    /// [`ArgumentError::NotSaved`] for a call in which each rank used its own batch.
    ///
    /// # Cancel safety
    /// A dropped future may leave its targets partly written.
    pub async fn local_gradient_sums<O: Output>(
        &self,
        saved: &Saved,
        request: Backward<'_, O>,
    ) -> Result<LocalGradientSums, Error> {
        self.local_gradient_sums_of(saved, request.parts).await
    }

    /// Boxed, as [`local_statistics_of`](Self::local_statistics_of) is.
    fn local_gradient_sums_of<'r>(
        &'r self,
        saved: &'r Saved,
        parts: BackwardParts<'r>,
    ) -> BoxFuture<'r, Result<LocalGradientSums, Error>> {
        async move {
            let mut call = BackwardCall { layer: self, saved, parts };
            check_steps(saved)?;
            self.check_one_round()?;
            call.parts.targets.get_or_insert_default();
            let steps = Steps { sums: true, apply: false };
            let mut checked = call.check(steps)?;
            let mut part = call.part(&mut checked, steps)?;
            backward::gradient_sums(from_mut(&mut part)).await?;
            part.write_parameters().await?;
            Ok(Local::new(self.config().num_features, part.local))
        }
        .boxed()
    }

    /// The third step of backward: the gradients of x and of the residual, from the sums of all
    /// ranks. It does not communicate.
    ///
    /// # Errors
    /// As [`backward`](Self::backward); [`ArgumentError::NotWanted`] for targets of weight and
    /// bias, which [`local_gradient_sums`](Self::local_gradient_sums) writes,
    /// [`ArgumentError::Length`] for sums of other channels, and [`ArgumentError::NotSaved`] for a
    /// call in which each rank used its own batch.
    ///
    /// # Cancel safety
    /// A dropped future may leave its targets partly written.
    pub async fn input_gradients<O: Output>(
        &self,
        saved: &Saved,
        request: Backward<'_, O>,
        global: &GlobalGradientSums,
    ) -> Result<Gradients<O>, Error> {
        self.input_gradients_by(saved, request.parts, global).await?.made.into_output(None)
    }

    /// Boxed, as [`local_statistics_of`](Self::local_statistics_of) is.
    fn input_gradients_by<'r>(
        &'r self,
        saved: &'r Saved,
        parts: BackwardParts<'r>,
        global: &'r GlobalGradientSums,
    ) -> BoxFuture<'r, Result<CheckedBackward, Error>> {
        async move {
            let call = BackwardCall { layer: self, saved, parts };
            check_steps(saved)?;
            self.base.check_length("global", global.channels().len())?;
            let steps = Steps { sums: false, apply: true };
            let mut checked = call.check(steps)?;
            let mut part = call.part(&mut checked, steps)?;
            part.global = Some(global.clone());
            backward::apply(from_mut(&mut part), Vec::new()).await?;
            drop(part);
            Ok(checked)
        }
        .boxed()
    }
}

/// Refuses contexts without statistics of all ranks.
pub(super) fn check_steps(saved: &Saved) -> Result<(), ArgumentError> {
    if saved.call().statistics == Statistics::Local {
        let argument = "saved".to_owned();
        let reason = "each rank used its own batch, which only `backward` differentiates";
        return Err(ArgumentError::NotSaved { argument, reason });
    }
    Ok(())
}
