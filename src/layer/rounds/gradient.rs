//! Backward in rounds.

use std::slice::from_mut;

use futures::future::{BoxFuture, FutureExt};

use super::{Rounds, add};
use crate::engine::Steps;
use crate::error::{ArgumentError, Error};
use crate::layer::backward::BackwardCall;
use crate::layer::exact::{self, params};
use crate::layer::steps::check_steps;
use crate::request::{Backward, BackwardParts};
use crate::saved::Saved;
use crate::stats::{Global, GlobalGradientSums, Grid, Normalization, PerRank};
use crate::tensor::Output;

/// Gradient sums of a [reproducible](crate::BatchNormConfig::with_reproducible) layer from
/// micro-batches, in two rounds as in [`StatisticsRounds`](super::StatisticsRounds).
/// [`gradient_sums_in_rounds`](crate::SyncBatchNorm::gradient_sums_in_rounds) makes it.
#[derive(Debug)]
#[must_use = "the other ranks wait for all rounds"]
pub struct GradientRounds<'l> {
    rounds: Rounds<'l, false>,
    /// Normalization and grids of the micro-batches, the same for all.
    by: Option<(Normalization, Vec<Grid>)>,
}

impl<'l> GradientRounds<'l> {
    pub(super) fn new(rounds: Rounds<'l, false>) -> Self {
        Self { rounds, by: None }
    }

    /// Takes in the gradients of a micro-batch, as
    /// [`local_gradient_sums`](crate::SyncBatchNorm::local_gradient_sums) does. Every round needs
    /// the same micro-batches, in any order. The last round writes the rank's own gradients of
    /// weight and bias, if the request has targets for them.
    ///
    /// # Errors
    /// As [`local_gradient_sums`](crate::SyncBatchNorm::local_gradient_sums).
    ///
    /// # Cancel safety
    /// A dropped future may leave its targets partly written.
    pub async fn add<O: Output>(
        &mut self,
        saved: &Saved,
        request: Backward<'_, O>,
    ) -> Result<(), Error> {
        self.add_parts(saved, request.parts).await
    }

    /// Boxed, and so compiled once, not by each application that awaits it.
    fn add_parts<'r>(
        &'r mut self,
        saved: &'r Saved,
        parts: BackwardParts<'r>,
    ) -> BoxFuture<'r, Result<(), Error>> {
        async move {
            let layer = self.rounds.layer;
            let mut call = BackwardCall { layer, saved, parts };
            check_steps(saved)?;
            let on_host = saved.on_host()?;
            let Some(of_x) = &on_host.grids else {
                let reason = "its statistics are not of integers";
                return Err(ArgumentError::NotSaved { argument: "saved".to_owned(), reason }.into());
            };
            let by = (on_host.normalization.of(0).clone(), of_x.of(0).clone());
            if self.by.get_or_insert_with(|| by.clone()) != &by {
                let reason = "it was normalized with other statistics than the first";
                return Err(ArgumentError::NotSaved { argument: "saved".to_owned(), reason }.into());
            }
            call.parts.targets.get_or_insert_default();
            let steps = Steps { sums: true, apply: false };
            let mut checked = call.check(steps)?;
            let mut part = call.part(&mut checked, steps)?;
            if self.rounds.all_ranges.is_none() {
                let ranges = exact::local_gradient_ranges(from_mut(&mut part)).await?;
                add(&mut self.rounds.ranges, ranges);
                return Ok(());
            }
            let of_g = self.rounds.grids();
            let by = [PerRank::Shared(params(&of_g))];
            let sums = exact::gradient_integers(from_mut(&mut part), &by).await?;
            let own = sums.iter().flatten().map(|sums| {
                exact::gradients([of_x.of(0), &of_g], sums, &on_host.normalization.of(0).mean)
            });
            part.local = own.collect();
            part.write_parameters().await?;
            add(&mut self.rounds.sums, sums);
            Ok(())
        }
        .boxed()
    }

    /// Ends the round. Returns the sums of all ranks, or `None` if another round must follow.
    ///
    /// # Errors
    /// As [`backward`](crate::SyncBatchNorm::backward).
    ///
    /// # Cancel safety
    /// As [`backward`](crate::SyncBatchNorm::backward).
    pub async fn synchronize(&mut self) -> Result<Option<GlobalGradientSums>, Error> {
        self.end_round().await
    }

    /// Boxed, as [`add_parts`](Self::add_parts) is.
    fn end_round(&mut self) -> BoxFuture<'_, Result<Option<GlobalGradientSums>, Error>> {
        async move {
            let rounds = &mut self.rounds;
            if rounds.end_first().await? {
                return Ok(None);
            }
            let local = std::mem::take(&mut rounds.sums);
            let sums = rounds.merge(&local).await?;
            let of_g = rounds.grids();
            // A rank without micro-batches has no normalization, and needs none.
            let (means, of_x) = match &self.by {
                Some((normalization, of_x)) => (normalization.mean.clone(), of_x.clone()),
                None => (vec![0.0; sums.len()], vec![Grid::CONSTANT; sums.len()]),
            };
            let channels = exact::gradients([&of_x, &of_g], &sums, &means);
            rounds.finish(Global::new(channels)).map(Some)
        }
        .boxed()
    }
}
