//! Training loops of ranks with different numbers of batches.

use super::{Phase, ProcessGroup};
use crate::error::Error;

/// The steps of a loop in which ranks have different numbers of batches, of
/// [`ProcessGroup::uneven_steps`].
#[derive(Debug)]
#[must_use = "a loop has to ask for its steps"]
pub struct UnevenSteps<I: Iterator> {
    group: ProcessGroup,
    batches: I,
    /// The batch of a step that the ranks have not agreed on yet.
    drawn: Option<I::Item>,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// This rank has batches, as far as it knows.
    Own,
    /// This rank has run out, others have not.
    Others,
    /// All ranks have run out.
    Over,
}

impl ProcessGroup {
    /// The steps of a training loop in which ranks have different numbers of batches, known or not.
    /// A rank that has run out goes on until all have: its layers must take part in the exchanges
    /// of the others, or those wait until their deadline.
    ///
    /// ```
    /// use syncbn::collective::LocalGroup;
    /// use syncbn::{BatchNormConfig, Device, ProcessGroup, SyncBatchNorm};
    ///
    /// async fn train(group: &ProcessGroup) -> Result<u64, syncbn::Error> {
    ///     let host = Device::host();
    ///     let config = BatchNormConfig::torch(1);
    ///     let bn = SyncBatchNorm::new(config, [host.clone()])?.in_group(group)?;
    ///     // One batch on rank 0, two on rank 1.
    ///     let batches = vec![[1.0f32, 2.0]; 1 + group.rank()];
    ///     let mut steps = group.uneven_steps(batches);
    ///     while let Some(batch) = steps.next().await? {
    ///         let x = match batch {
    ///             Some(batch) => host.upload(&[2, 1], &batch)?,
    ///             None => host.zeros(&[0, 1])?,
    ///         };
    ///         bn.forward_train(&x).await?;
    ///     }
    ///     Ok(bn.running_stats().map_or(0, |running| running.num_batches_tracked))
    /// }
    ///
    /// let threads = LocalGroup::ranks(2).into_iter().map(|rank| {
    ///     std::thread::spawn(|| pollster::block_on(train(&ProcessGroup::new(rank))))
    /// });
    /// for thread in threads.collect::<Vec<_>>() {
    ///     assert_eq!(thread.join().unwrap()?, 2);
    /// }
    /// # Ok::<(), syncbn::Error>(())
    /// ```
    pub fn uneven_steps<B: IntoIterator>(&self, batches: B) -> UnevenSteps<B::IntoIter> {
        UnevenSteps {
            group: self.clone(),
            batches: batches.into_iter(),
            drawn: None,
            stage: Stage::Own,
        }
    }
}

impl<I: Iterator> UnevenSteps<I> {
    /// The batch of the next step. `Some(None)` where this rank has none and others have: go
    /// through the same calls with tensors without samples. `None` once all ranks have run out.
    ///
    /// Every step is an exchange of one number, so all ranks must call it, once per step. A group
    /// of one rank exchanges nothing.
    ///
    /// # Errors
    /// [`ExchangeError`](crate::error::ExchangeError) when a rank does not take part or does
    /// something else.
    ///
    /// # Cancel safety
    /// As [`ProcessGroup::all_reduce_sum`]. The batch that was drawn comes with the next call.
    pub async fn next(&mut self) -> Result<Option<Option<I::Item>>, Error> {
        if self.stage == Stage::Own && self.drawn.is_none() {
            self.drawn = self.batches.next();
            if self.drawn.is_none() {
                self.stage = Stage::Others;
            }
        }
        if self.stage == Stage::Over {
            return Ok(None);
        }
        let mut with_batch = [if self.drawn.is_some() { 1.0 } else { 0.0 }];
        self.group.sum_for(Phase::Steps, [&mut with_batch]).await?;
        if with_batch == [0.0] {
            self.stage = Stage::Over;
            return Ok(None);
        }
        Ok(Some(self.drawn.take()))
    }
}
