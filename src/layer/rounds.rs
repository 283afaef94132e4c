//! The steps of a pass whose sums are of integers, for micro-batches that do not fit in memory at
//! once. Each round goes over all of them.

mod gradient;

use std::slice::from_mut;

use futures::future::{BoxFuture, FutureExt};

pub use gradient::GradientRounds;

use super::exact::{self, Local, grids, moments, params, wide_params};
use super::member::{Begin, Calls, Communicating, begin, end};
use super::merging::{Exchanging, merge, settle};
use super::part::{Part, check_encode};
use super::{SyncBatchNorm, forward};
use crate::collective::{ANY_SUBJECT, Phase};
use crate::config::Statistics;
use crate::error::{ArgumentError, Error};
use crate::request::{Forward, ForwardParts};
use crate::stats::{
    Global, GlobalStatistics, Grid, GridParams, IntegerSums, Mergeable, PerRank, ValueRange,
};
use crate::tensor::Output;

/// Results of all finished rounds over all ranks, and this caller's sums of the current round.
#[derive(Debug)]
struct Rounds<'l, const STATISTICS: bool> {
    layer: &'l SyncBatchNorm,
    phase: Phase,
    /// Calls of the layer, from the first exchange on.
    calls: Option<Calls>,
    ranges: Local<ValueRange>,
    sums: Local<IntegerSums<STATISTICS>>,
    /// Ranges, once all ranks have exchanged them.
    all_ranges: Option<Vec<ValueRange>>,
    /// Sums, once all ranks have exchanged them.
    all_sums: Option<Vec<IntegerSums<STATISTICS>>>,
}

impl<'l, const STATISTICS: bool> Rounds<'l, STATISTICS> {
    fn new(layer: &'l SyncBatchNorm, phase: Phase) -> Result<Self, ArgumentError> {
        if !layer.config().reproducible {
            let reason = "the layer is not reproducible: its steps have one round";
            return Err(ArgumentError::NotWanted { argument: "rounds", reason });
        }
        Ok(Self {
            layer,
            phase,
            calls: None,
            ranges: layer.ranks_of(ValueRange::EMPTY),
            sums: layer.ranks_of(IntegerSums::EMPTY),
            all_ranges: None,
            all_sums: None,
        })
    }

    fn grids(&self) -> Vec<Grid> {
        self.all_ranges.as_deref().map(grids).unwrap_or_default()
    }

    /// Merges over all ranks. If that fails, the call has failed.
    async fn merge<T: Mergeable>(&mut self, local: &Local<T>) -> Result<Vec<T>, Error> {
        let calls = match self.calls.take() {
            Some(calls) => calls,
            None => {
                let subject = if STATISTICS { 0 } else { ANY_SUBJECT };
                let member = self.layer.member();
                let (calls, begun) = begin([Some(Begin { member, phase: self.phase, subject })]);
                if let Err(failure) = begun {
                    return end(calls, Err(failure)).map_err(|failure| failure.error);
                }
                calls
            }
        };
        match merge(&exchanging(&calls, local, false)).await {
            Ok(merged) => {
                self.calls = Some(calls);
                Ok(merged.into_iter().next().unwrap_or_default())
            }
            Err(failure) => end(calls, Err(failure)).map_err(|failure| failure.error),
        }
    }

    /// Ends the round if it is the first, and says whether it was: ranges merge over all ranks.
    async fn end_first(&mut self) -> Result<bool, Error> {
        if self.all_ranges.is_some() {
            return Ok(false);
        }
        let local = std::mem::take(&mut self.ranges);
        self.all_ranges = Some(self.merge(&local).await?);
        Ok(true)
    }

    /// Ends the call with the merged values.
    fn finish<S: Mergeable>(&mut self, global: Global<S>) -> Result<Global<S>, Error> {
        let calls = self.calls.take().unwrap_or_default();
        let mut global = [global];
        let tracks = self.phase == Phase::Forward;
        let layers = exchanging::<IntegerSums<STATISTICS>>(&calls, &[], tracks);
        let settled = settle(&layers, &mut global);
        drop(layers);
        end(calls, settled).map_err(|failure| failure.error)?;
        let [global] = global;
        Ok(global)
    }
}

/// The layer's part of the exchange, if it communicates.
fn exchanging<'a, T>(
    calls: &'a Calls,
    local: &'a [Vec<T>],
    tracks: bool,
) -> Vec<Exchanging<'a, T>> {
    let layers = calls.iter().flatten().map(|layer| {
        let Communicating { member, call } = &**layer;
        Exchanging { index: 0, member, call: call.as_ref(), local, tracks }
    });
    layers.collect()
}

/// Adds the sums of a micro-batch, rank by rank.
fn add<T: Mergeable>(to: &mut Local<T>, of_batch: Vec<Local<T>>) {
    let of_batch = of_batch.into_iter().flatten().flatten();
    to.iter_mut().flatten().zip(of_batch).for_each(|(to, of)| *to = to.merge(of));
}

/// Batch statistics of a [reproducible](crate::BatchNormConfig::with_reproducible) layer from
/// micro-batches, of [`SyncBatchNorm::statistics_in_rounds`].
///
/// Each round goes over all micro-batches. The first takes the range of every channel, the second
/// the sums of integers. A third follows if a channel has far outliers. The result
/// has the bits of one batch of all of them. Other ranks may take part with
/// [`forward_train`](SyncBatchNorm::forward_train), which has the same exchanges. If the value is
/// dropped between its first exchange and its last, it notifies the other ranks, and the process
/// group refuses further work.
#[derive(Debug)]
#[must_use = "the other ranks wait for all rounds"]
pub struct StatisticsRounds<'l> {
    rounds: Rounds<'l, true>,
    /// Grids of the channels of the third round.
    wide: Option<Vec<GridParams>>,
}

impl StatisticsRounds<'_> {
    /// Leaves the running statistics and their counter as they are. All ranks must call it.
    pub fn untracked(mut self) -> Self {
        self.rounds.phase = Phase::Recompute;
        self
    }

    /// Takes in a micro-batch, one tensor for each rank of the caller. Every round needs the same
    /// micro-batches, in any order. Only the x of a request counts.
    ///
    /// # Errors
    /// As [`SyncBatchNorm::local_statistics`].
    ///
    /// # Cancel safety
    /// A dropped future has no effect.
    pub async fn add<'a, O: Output>(
        &mut self,
        request: impl Into<Forward<'a, O>>,
    ) -> Result<(), Error> {
        self.add_parts(request.into().parts).await
    }

    /// Boxed, and so compiled once, not by each application that awaits it.
    fn add_parts<'r>(&'r mut self, parts: ForwardParts<'r>) -> BoxFuture<'r, Result<(), Error>> {
        async move {
            check_encode(&parts.encode)?;
            let layer = self.rounds.layer;
            let ranks = layer.base.statistics_ranks(&parts)?;
            let by = Statistics::Group.into();
            let mut part = Part { is_exact: true, ..forward::Part::new(layer, ranks, by) };
            let part = from_mut(&mut part);
            if self.rounds.all_ranges.is_none() {
                add(&mut self.rounds.ranges, exact::local_ranges(part).await?);
                return Ok(());
            }
            let (by, rests) = match &self.wide {
                Some(wide) => (wide.clone(), true),
                None => (params(&self.rounds.grids()), false),
            };
            let sums = exact::integers(part, &[PerRank::Shared(by)], rests).await?;
            add(&mut self.rounds.sums, sums);
            Ok(())
        }
        .boxed()
    }

    /// Ends the round. Returns the statistics of all ranks, or `None` if another round must follow.
    /// The last round updates running statistics.
    ///
    /// # Errors
    /// As [`SyncBatchNorm::forward_train`].
    ///
    /// # Cancel safety
    /// As [`SyncBatchNorm::forward_train`].
    pub async fn synchronize(&mut self) -> Result<Option<GlobalStatistics>, Error> {
        self.end_round().await
    }

    /// Boxed, as [`add_parts`](Self::add_parts) is.
    fn end_round(&mut self) -> BoxFuture<'_, Result<Option<GlobalStatistics>, Error>> {
        async move {
            let rounds = &mut self.rounds;
            if rounds.end_first().await? {
                return Ok(None);
            }
            let grids = rounds.grids();
            let local =
                std::mem::replace(&mut rounds.sums, rounds.layer.ranks_of(IntegerSums::EMPTY));
            let merged = rounds.merge(&local).await?;
            let rests = match rounds.all_sums.take() {
                Some(sums) => {
                    rounds.all_sums = Some(sums);
                    merged
                }
                None => {
                    let wide = wide_params(&grids, &merged);
                    rounds.all_sums = Some(merged);
                    if wide.iter().any(|of| *of != GridParams::ZERO) {
                        self.wide = Some(wide);
                        return Ok(None);
                    }
                    Vec::new()
                }
            };
            let channels = moments(&grids, rounds.all_sums.as_deref().unwrap_or_default(), &rests);
            let ranges = rounds.all_ranges.clone().unwrap_or_default();
            rounds.finish(Global::new(channels).with_ranges(ranges)).map(Some)
        }
        .boxed()
    }
}

impl SyncBatchNorm {
    /// The same value for every rank and channel.
    fn ranks_of<T: Clone>(&self, value: T) -> Local<T> {
        vec![vec![value; self.config().num_features]; self.devices().len()]
    }

    /// Forward of a [reproducible](crate::BatchNormConfig::with_reproducible) layer for
    /// micro-batches, in rounds over all of them. It replaces
    /// [`local_statistics`](Self::local_statistics) and [`synchronize`](Self::synchronize). Then
    /// [`normalize`](Self::normalize) takes each micro-batch with the result.
    ///
    /// ```
    /// use syncbn::{BatchNormConfig, Device, SyncBatchNorm};
    ///
    /// # pollster::block_on(async {
    /// let host = Device::host();
    /// let config = BatchNormConfig::torch(1).with_reproducible(true);
    /// let bn = SyncBatchNorm::new(config, [host.clone()])?;
    /// let first = host.upload(&[3, 1], &[0.0f32, 2.0, 4.0])?;
    /// let batches = [first, host.upload(&[1, 1], &[6.0f32])?];
    /// let mut rounds = bn.statistics_in_rounds()?;
    /// let global = loop {
    ///     for x in &batches {
    ///         rounds.add(x).await?;
    ///     }
    ///     if let Some(global) = rounds.synchronize().await? {
    ///         break global;
    ///     }
    /// };
    /// assert_eq!((global.channels()[0].mean, global.channels()[0].m2), (3.0, 20.0));
    /// for x in &batches {
    ///     bn.normalize(x, &global).await?;
    /// }
    /// # Ok::<(), syncbn::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// [`ArgumentError::NotWanted`] if the layer is not reproducible.
    pub fn statistics_in_rounds(&self) -> Result<StatisticsRounds<'_>, Error> {
        Ok(StatisticsRounds { rounds: Rounds::new(self, Phase::Forward)?, wide: None })
    }

    /// Backward of a reproducible layer for micro-batches, in place of
    /// [`local_gradient_sums`](Self::local_gradient_sums) and [`synchronize`](Self::synchronize).
    /// Then [`input_gradients`](Self::input_gradients) takes each micro-batch with the result.
    ///
    /// # Errors
    /// [`ArgumentError::NotWanted`] if the layer is not reproducible.
    pub fn gradient_sums_in_rounds(&self) -> Result<GradientRounds<'_>, Error> {
        Ok(GradientRounds::new(Rounds::new(self, Phase::Backward)?))
    }
}
