//! The passes of a layer, and their steps, one at a time.

use std::slice::from_mut;

use futures::FutureExt;
use web_time::Instant;

use super::backward::{self, BackwardCall, backward_of};
use super::forward::{self, ForwardCall, Part, forward_of, normalized};
use super::member::{Exchanging, Member, begin, end, exchange};
use super::{Failure, SyncBatchNorm, check_same_group};
use crate::collective::{ANY_SUBJECT, Phase, Synchronization};
use crate::config::{Mode, Statistics};
use crate::engine::Steps;
use crate::error::{ArgumentError, Error};
use crate::request::{Backward, Forward, Gradients, Normalized};
use crate::saved::{OnHost, Saved};
use crate::stats::{
    ForwardReport, Global, GlobalGradientSums, GlobalStatistics, Local, LocalGradientSums,
    LocalStatistics, Mergeable, PerRank, PhaseTimes, check_statistics,
};
use crate::tensor::Output;

/// The one result of a call of one layer.
fn only<T>(results: Result<Vec<T>, Failure>) -> Result<T, Error> {
    results.map_err(Failure::single)?.pop().ok_or_else(no_output)
}

/// For a request whose output type has no tensor, which no form of a request has.
fn no_output() -> Error {
    ArgumentError::RankCount { argument: "x", found: 0, expected: 1 }.into()
}

impl SyncBatchNorm {
    /// Normalizes with the statistics of all ranks together, and lets the running statistics follow
    /// them.
    ///
    /// y = act(weight·(x − mean)/√(var + eps) + bias + residual) with the mean and biased variance
    /// over all ranks (Ioffe and Szegedy, 2015, algorithm 1). With
    /// `use_batch_statistics = Some(false)` the running statistics normalize instead.
    ///
    /// # Errors
    /// [`ArgumentError`] for tensors that do not fit the layer,
    /// [`BatchError`](crate::error::BatchError) for one value per channel on all ranks together,
    /// [`LimitError`](crate::error::LimitError) for a tensor that its device cannot bind,
    /// [`GpuError`](crate::error::GpuError) when a device fails, and in a process group
    /// [`ExchangeError`](crate::error::ExchangeError) when a rank is late, gone, or somewhere else:
    /// every rank gets one within the deadline, and the group refuses further work. An error of one
    /// rank fails the others too. The running statistics are unchanged unless the exchange has
    /// succeeded, and then have followed on every rank.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, a call in a process group notifies the other ranks, and the
    /// group refuses further work: do not put a timeout around it, but give the group a
    /// [deadline](crate::ProcessGroup::with_deadline). Targets may be partly written.
    pub async fn forward_train<'a, O: Output>(
        &self,
        request: impl Into<Forward<'a, O>>,
    ) -> Result<Normalized<O>, Error> {
        self.forward(request.into(), Mode::Train).await
    }

    /// Normalizes with the running statistics, each rank for itself.
    ///
    /// Two settings change that, as in the frameworks they come from: without `track_running_stats`
    /// each rank uses its own batch (PyTorch); with `use_batch_statistics = Some(true)` the batch
    /// of all ranks is used and the running statistics follow it, as in training (MindSpore).
    ///
    /// # Errors
    /// As [`forward_train`](Self::forward_train).
    ///
    /// # Cancel safety
    /// As [`forward_train`](Self::forward_train) where it communicates; otherwise only its targets
    /// are affected.
    pub async fn forward_eval<'a, O: Output>(
        &self,
        request: impl Into<Forward<'a, O>>,
    ) -> Result<Normalized<O>, Error> {
        self.forward(request.into(), Mode::Eval).await
    }

    async fn forward<O: Output>(
        &self,
        request: Forward<'_, O>,
        mode: Mode,
    ) -> Result<Normalized<O>, Error> {
        only(forward_of(vec![ForwardCall { layer: self, parts: request.parts }], mode).await)
    }

    /// The gradients of a forward call, from the gradients of its outputs.
    ///
    /// With g = grad_output·act'(v), A = Σg, B = Σ g·(x − mean), N values per channel over all
    /// ranks (Ioffe and Szegedy, 2015, section 3, with the sums over all ranks):
    ///
    /// ```text
    /// input  = weight·inv_std·(g − A/N − (x − mean)·inv_std²·B/N)
    /// weight = inv_std·Σ g·(x − mean)      bias = Σg      residual = g
    /// ```
    ///
    /// The last two sums are over the rank, or as [`AffineGradient`](crate::config::AffineGradient)
    /// says where the forward call communicated. Where running statistics normalized, they are
    /// constants: input = g·weight·inv_std. x is that of forward, unchanged, with the residual
    /// where [`Saved::needs_residual`] says so.
    ///
    /// # Errors
    /// As [`forward_train`](Self::forward_train); [`ArgumentError::NotSaved`] for tensors or
    /// parameters that are not those of the saved call, or were written since. The layer itself is
    /// never changed.
    ///
    /// # Cancel safety
    /// As [`forward_train`](Self::forward_train).
    pub async fn backward<O: Output>(
        &self,
        saved: &Saved,
        request: Backward<'_, O>,
    ) -> Result<Gradients<O>, Error> {
        only(backward_of(vec![BackwardCall { layer: self, saved, parts: request.parts }]).await)
    }

    /// The first step of forward: the statistics of x on each of this caller's ranks. Communicates
    /// with nobody, and changes nothing. Of a request only x counts, so that one request serves all
    /// steps.
    ///
    /// Micro-batches that are never in memory together are measured one by one and
    /// [merged](Local::merge); the result is that of all of them as one batch, up to rounding.
    /// Loaded again for backward, they are said to be [`recomputed`](Backward::recomputed).
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
        let Forward { parts, .. } = request.into();
        forward::check_encode(&parts)?;
        let ranks = self.base.statistics_ranks(&parts)?;
        let mut part = Part::new(self, Statistics::Group, ranks);
        forward::local_statistics(from_mut(&mut part), false).await.map_err(Failure::single)?;
        Ok(Local::new(self.config().num_features, part.into_local()))
    }

    /// The second step of forward and of backward: what all ranks have together. The running
    /// statistics follow statistics, unless the exchange is
    /// [`untracked`](Synchronization::untracked). It borrows nothing and may be
    /// [started](Synchronization::start) now and awaited later.
    ///
    /// It is matched with [`forward_train`](Self::forward_train) of other ranks, or with their
    /// [`backward`](Self::backward): a rank that has run out of batches goes on with
    /// [`Local::empty`] until all have, which a [count](GlobalStatistics::count) of 0 tells.
    /// Several layers share one exchange with [`joint::synchronize`](crate::joint::synchronize).
    /// Exchanges of several layers begin in the same order on every rank: not as their devices
    /// happen to be done with the first step.
    ///
    /// # Errors
    /// As [`forward_train`](Self::forward_train).
    pub fn synchronize<T: Mergeable>(&self, local: Local<T>) -> Synchronization<Global<T>> {
        let layers = vec![(self.member(), self.devices().len(), local)];
        Synchronization::new(move |tracks| {
            async move { only(synchronize(layers, tracks).await) }.boxed()
        })
    }

    /// The third step of forward: normalizes with given statistics, usually those of
    /// [`synchronize`](Self::synchronize). Communicates with nobody; the running statistics stay.
    ///
    /// What it saves is differentiated with [`backward`](Self::backward) or with the steps of
    /// backward, where the statistics depend on x as those of a training step do.
    ///
    /// # Errors
    /// As [`forward_train`](Self::forward_train); [`ArgumentError::Length`] for statistics of other
    /// channels, and [`ArgumentError::Statistics`] for such as no batch has.
    ///
    /// # Cancel safety
    /// A dropped future may leave its targets partly written.
    pub async fn normalize<'a, O: Output>(
        &self,
        request: impl Into<Forward<'a, O>>,
        global: &GlobalStatistics,
    ) -> Result<Normalized<O>, Error> {
        let call = ForwardCall { layer: self, parts: request.into().parts };
        self.base.check_length("global", global.channels().len())?;
        let mut channels = global.channels().to_vec();
        check_statistics("global", 0, &mut channels)?;
        let global = &Global::new(channels);
        let mut checked = call.check(Statistics::Group)?;
        let steps = Steps { sums: false, apply: true };
        let started = Instant::now();
        let mut part =
            Part::new(self, Statistics::Group, checked.ranks(&self.base, call.parts, steps, None)?);
        let normalization = PerRank::Shared(global.normalization(self.config().eps));
        forward::apply(from_mut(&mut part), std::slice::from_ref(&normalization)).await?;
        let masks = part.into_masks();
        let times = PhaseTimes { apply: started.elapsed(), ..PhaseTimes::default() };
        let report = ForwardReport { local: Local::empty(self.config().num_features), times };
        let of =
            OnHost { subject: ANY_SUBJECT, normalization, global: Some(global.clone()), report };
        normalized(forward::finish(checked, masks, of)).ok_or_else(no_output)
    }

    /// The first step of backward: the gradient sums of each of this caller's ranks. Communicates
    /// with nobody. It writes the gradients of weight and bias where the request has targets for
    /// them: the rank's own sums, whatever [`AffineGradient`](crate::config::AffineGradient) says,
    /// so that micro-batches add up with [`accumulate`](Backward::accumulate).
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
        let mut call = BackwardCall { layer: self, saved, parts: request.parts };
        check_steps(saved)?;
        call.parts.targets.get_or_insert_default();
        let steps = Steps { sums: true, apply: false };
        let mut checked = call.check(steps)?;
        let mut part = call.part(&mut checked, steps)?;
        backward::gradient_sums(from_mut(&mut part), false).await.map_err(Failure::single)?;
        part.write_parameters().await?;
        Ok(Local::new(self.config().num_features, part.local))
    }

    /// The third step of backward: the gradients of x and of the residual, from the sums of all
    /// ranks. Communicates with nobody.
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
        let call = BackwardCall { layer: self, saved, parts: request.parts };
        check_steps(saved)?;
        self.base.check_length("global", global.channels().len())?;
        let steps = Steps { sums: false, apply: true };
        let mut checked = call.check(steps)?;
        let mut part = call.part(&mut checked, steps)?;
        part.global = Some(global.clone());
        backward::apply(from_mut(&mut part)).await?;
        checked.made.into_output(None).ok_or_else(no_output)
    }
}

/// Refuses what has no statistics of all ranks to be differentiated.
fn check_steps(saved: &Saved) -> Result<(), ArgumentError> {
    if saved.call().statistics == Statistics::Local {
        let (argument, reason) = (
            "saved".to_owned(),
            "each rank used its own batch, which only `backward` differentiates",
        );
        return Err(ArgumentError::NotSaved { argument, reason });
    }
    Ok(())
}

/// The exchange of several layers as one message.
pub(crate) fn synchronize_layers<'a, T: Mergeable>(
    calls: impl IntoIterator<Item = (&'a SyncBatchNorm, Local<T>)>,
) -> Synchronization<Vec<Global<T>>> {
    let layers = calls
        .into_iter()
        .map(|(layer, local)| (layer.member(), layer.devices().len(), local))
        .collect();
    Synchronization::new(move |tracks| {
        synchronize(layers, tracks).map(|result| result.map_err(Failure::joint)).boxed()
    })
}

/// What all ranks have together, for layers with so many ranks of this caller each.
async fn synchronize<T: Mergeable>(
    layers: Vec<(Member, usize, Local<T>)>,
    tracks: bool,
) -> Result<Vec<Global<T>>, Failure> {
    let (phase, subject) = match (T::IS_STATISTICS, tracks) {
        (true, true) => (Phase::Forward, 0),
        (true, false) => (Phase::Recompute, 0),
        (false, _) => (Phase::Backward, ANY_SUBJECT),
    };
    let (members, locals): (Vec<_>, Vec<_>) =
        layers.into_iter().map(|(member, ranks, local)| (member, (ranks, local))).unzip();
    let (calls, begun) = begin(members.into_iter().map(|member| Some((member, phase, subject))));
    let run = async {
        begun?;
        let members: Vec<_> = calls.iter().filter_map(Option::as_deref).collect();
        let mut ranks_of = Vec::with_capacity(members.len());
        for (index, ((member, _), (ranks, local))) in members.iter().zip(locals).enumerate() {
            check_same_group(&members[0].0.exchange, &member.exchange)
                .map_err(Failure::of(index))?;
            ranks_of.push(local.into_ranks(member.channels, ranks).map_err(Failure::of(index))?);
        }
        let exchanging = members.iter().zip(&ranks_of).enumerate();
        let exchanging = exchanging.map(|(index, ((member, call), local))| Exchanging {
            index,
            member,
            call: call.as_ref(),
            local,
            tracks,
        });
        exchange(&exchanging.collect::<Vec<_>>()).await
    };
    let result = run.await;
    end(calls, result)
}
