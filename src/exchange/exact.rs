//! Exact sums of a program's values over all ranks.

use crate::collective::{Header, Payload, Phase, ProcessGroup};
use crate::error::Error;
use crate::stats::ExactSums;

impl ProcessGroup {
    /// Adds up exact sums over all ranks, in place. For example the gradients of a model's other
    /// layers, sample by sample, whichever rank has the sample.
    ///
    /// The result is rounded once. So its bits depend neither on the spread of samples over ranks
    /// nor on the order in which a rank added its own. [`all_reduce_sum`](Self::all_reduce_sum)
    /// costs less, but its bits depend on the ranks.
    ///
    /// Every rank sends its sums to all, about 12 bytes for each element.
    ///
    /// ```
    /// use syncbn::{ProcessGroup, collective::LocalGroup, stats::ExactSums};
    ///
    /// let threads = LocalGroup::ranks(2).into_iter().map(|rank| {
    ///     std::thread::spawn(move || {
    ///         let group = ProcessGroup::new(rank);
    ///         let mut sums = ExactSums::new(1);
    ///         for value in [[1e30f32], [1.0 + group.rank() as f32], [-1e30]] {
    ///             sums.add(&value)?;
    ///         }
    ///         pollster::block_on(group.all_reduce_exact(&mut sums))?;
    ///         Ok::<_, syncbn::Error>(sums.to_f32())
    ///     })
    /// });
    /// for thread in threads.collect::<Vec<_>>() {
    ///     assert_eq!(thread.join().unwrap()?, [3.0]);
    /// }
    /// # Ok::<(), syncbn::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ExchangeError`](crate::error::ExchangeError) when a rank does not take part, does
    /// something else, or has sums of another length. The sums are unchanged then.
    ///
    /// # Cancel safety
    /// As [`partition`](Self::partition); the sums are unchanged.
    pub async fn all_reduce_exact(&self, sums: &mut ExactSums) -> Result<(), Error> {
        if self.world_size() == 1 {
            return Ok(());
        }
        let len = sums.len();
        let header = Header { channels: len as u64, ..self.header(Phase::AllGather) };
        let read = move |_, payload| match payload {
            Payload::Bytes(bytes) => ExactSums::decode(len, &bytes),
            _ => Err("it carries no bytes".to_owned()),
        };
        let mut total = ExactSums::new(len);
        for of_rank in self.gather(header, Payload::Bytes(sums.encode()), read).await? {
            total.merge(&of_rank)?;
        }
        *sums = total;
        Ok(())
    }
}
