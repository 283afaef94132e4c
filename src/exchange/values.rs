//! Exchanges of a program's own values and messages, besides a layer's statistics.

use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt};

use super::merge::merge_payloads;
use super::merge_parts;
use crate::checksum::Checksum;
use crate::collective::{
    Again, Header, NodePayload, Operation, Payload, Phase, ProcessGroup, Said, Settings, Values,
};
use crate::error::{Error, ExchangeError, GroupError};
use crate::stats::GradientSums;

impl ProcessGroup {
    /// Adds up every value over all ranks, in place. Examples are the gradients of a model's other
    /// layers, and a loss. Several slices share one message. All ranks give slices of the same
    /// lengths, in the same order.
    ///
    /// Sums are taken in f64 along one tree over ranks and rounded once. Every rank gets the same
    /// bits with every transport.
    ///
    /// Every rank must call it, in the same order among its other calls in the group, those of
    /// layers included. A group of one rank changes nothing.
    ///
    /// ```
    /// use syncbn::{ProcessGroup, collective::LocalGroup};
    ///
    /// let threads = LocalGroup::ranks(3).into_iter().map(|rank| {
    ///     std::thread::spawn(move || {
    ///         let group = ProcessGroup::new(rank);
    ///         let mut gradients = [vec![1.0, group.rank() as f32], vec![0.5]];
    ///         pollster::block_on(group.all_reduce_sum(&mut gradients))?;
    ///         Ok::<_, syncbn::Error>(gradients)
    ///     })
    /// });
    /// for thread in threads.collect::<Vec<_>>() {
    ///     assert_eq!(thread.join().unwrap()?, [vec![3.0, 3.0], vec![1.5]]);
    /// }
    /// # Ok::<(), syncbn::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ExchangeError`] when a rank does not take part, does something else, or gives slices of
    /// other lengths. All values are unchanged then.
    ///
    /// # Cancel safety
    /// As [`partition`](Self::partition); the values are unchanged.
    pub fn all_reduce_sum<'a, V: AsMut<[f32]> + ?Sized + 'a>(
        &self,
        values: impl IntoIterator<Item = &'a mut V>,
    ) -> impl Future<Output = Result<(), Error>> + Send {
        self.sum_for(Phase::AllReduce, values)
    }

    /// [`all_reduce_sum`](Self::all_reduce_sum), for another purpose.
    pub(crate) fn sum_for<'a, V: AsMut<[f32]> + ?Sized + 'a>(
        &self,
        phase: Phase,
        values: impl IntoIterator<Item = &'a mut V>,
    ) -> impl Future<Output = Result<(), Error>> + Send {
        let slices: Vec<&'a mut [f32]> = values.into_iter().map(AsMut::as_mut).collect();
        async move { self.sum_slices(phase, slices).await }
    }

    /// Boxed, and so compiled once, not by each application that awaits it.
    fn sum_slices<'s>(
        &'s self,
        phase: Phase,
        mut slices: Vec<&'s mut [f32]>,
    ) -> BoxFuture<'s, Result<(), Error>> {
        async move {
            if self.world_size() == 1 {
                return Ok(());
            }
            let lengths: Vec<u64> = slices.iter().map(|slice| slice.len() as u64).collect();
            let mut checksum = Checksum::new();
            lengths.iter().for_each(|&length| checksum.add_u64(length));
            let count: usize = slices.iter().map(|slice| slice.len()).sum();
            let header =
                Header { channels: count as u64, config: checksum.finish(), ..self.header(phase) };
            let operation = self.begin(header, Settings::Slices(lengths))?;
            let mut pairs = vec![[0.0; 2]; count.div_ceil(2)];
            for (pair, value) in pairs
                .as_flattened_mut()
                .iter_mut()
                .zip(slices.iter().flat_map(|slice| slice.iter()))
            {
                *pair = f64::from(*value);
            }
            let result = sum(&operation, pairs).await.map_err(Error::from);
            operation.end(&result);
            let sums = result?;
            for (value, sum) in
                slices.iter_mut().flat_map(|slice| slice.iter_mut()).zip(sums.as_flattened())
            {
                *value = *sum as f32;
            }
            Ok(())
        }
        .boxed()
    }

    /// Gives a message to every rank and gets everyone's, in rank order, of any length each.
    ///
    /// ```
    /// use syncbn::{ProcessGroup, collective::LocalGroup};
    ///
    /// let threads = LocalGroup::ranks(2).into_iter().map(|rank| {
    ///     std::thread::spawn(move || {
    ///         let group = ProcessGroup::new(rank);
    ///         pollster::block_on(group.all_gather(format!("rank {}", group.rank()).as_bytes()))
    ///     })
    /// });
    /// for thread in threads.collect::<Vec<_>>() {
    ///     let messages = thread.join().unwrap()?;
    ///     assert_eq!((&*messages[0], &*messages[1]), (&b"rank 0"[..], &b"rank 1"[..]));
    /// }
    /// # Ok::<(), syncbn::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ExchangeError`] when a rank does not take part or does something else, on every rank.
    ///
    /// # Cancel safety
    /// As [`partition`](Self::partition).
    pub async fn all_gather(&self, message: &[u8]) -> Result<Vec<Arc<[u8]>>, Error> {
        if self.world_size() == 1 {
            return Ok(vec![message.into()]);
        }
        let read = |_, payload| match payload {
            Payload::Bytes(bytes) => Ok(bytes.into()),
            _ => Err("it carries no bytes".to_owned()),
        };
        self.gather(self.header(Phase::AllGather), Payload::Bytes(message.to_vec()), read).await
    }

    /// Copies the values of rank `from` to all ranks, bit by bit. Only that rank sends them. All
    /// ranks give slices of one length.
    ///
    /// ```
    /// use syncbn::{ProcessGroup, collective::LocalGroup};
    ///
    /// let threads = LocalGroup::ranks(2).into_iter().map(|rank| {
    ///     std::thread::spawn(move || {
    ///         let group = ProcessGroup::new(rank);
    ///         let mut parameters = [10.0 + group.rank() as f32];
    ///         pollster::block_on(group.broadcast(1, &mut parameters))?;
    ///         Ok::<_, syncbn::Error>(parameters)
    ///     })
    /// });
    /// for thread in threads.collect::<Vec<_>>() {
    ///     assert_eq!(thread.join().unwrap()?, [11.0]);
    /// }
    /// # Ok::<(), syncbn::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`GroupError::OutOfRange`] on all ranks for a rank that does not exist. The group stays
    /// usable. [`ExchangeError`] when a rank does not take part, does something else, asks for
    /// another rank, or gives another length. All values are unchanged then.
    ///
    /// # Cancel safety
    /// As [`partition`](Self::partition); the values are unchanged.
    pub async fn broadcast(&self, from: usize, values: &mut [f32]) -> Result<(), Error> {
        let world_size = self.world_size();
        let length = values.len();
        if world_size > 1 {
            let sent = if self.rank() == from { &*values } else { &[] };
            let own = Payload::Bytes(sent.iter().flat_map(|value| value.to_le_bytes()).collect());
            let header = Header {
                subject: from as u64,
                channels: length as u64,
                ..self.header(Phase::Broadcast)
            };
            let read = move |rank, payload| match payload {
                Payload::Bytes(bytes) if rank != from || bytes.len() == 4 * length => Ok(bytes),
                _ => Err(format!("it does not carry {length} value(s)")),
            };
            // Exchanged even if rank `from` does not exist, because only then all know that all
            // asked for it.
            let gathered = self.gather(header, own, read).await?;
            if let Some(bytes) = gathered.get(from).filter(|_| self.rank() != from) {
                for (value, bytes) in values.iter_mut().zip(bytes.as_chunks().0) {
                    *value = f32::from_le_bytes(*bytes);
                }
            }
        }
        if from < world_size {
            Ok(())
        } else {
            let call = "broadcast";
            Err(GroupError::OutOfRange { call, list: None, rank: from, world_size }.into())
        }
    }

    /// Waits until all ranks have come.
    ///
    /// ```
    /// pollster::block_on(syncbn::ProcessGroup::single().barrier())?;
    /// # Ok::<(), syncbn::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ExchangeError`] when a rank does not come or does something else.
    ///
    /// # Cancel safety
    /// As [`partition`](Self::partition).
    pub async fn barrier(&self) -> Result<(), Error> {
        if self.world_size() > 1 {
            self.gather(self.header(Phase::Barrier), Payload::Bytes(Vec::new()), |_, _| Ok(()))
                .await?;
        }
        Ok(())
    }
}

/// Sums the values of all ranks along the tree.
async fn sum(operation: &Operation, pairs: Vec<[f64; 2]>) -> Result<Vec<[f64; 2]>, ExchangeError> {
    let length = pairs.len() as u64;
    let group = operation.group();
    let values = Values::Floats(pairs);
    let node = NodePayload { level: 0, index: group.rank() as u64, count: 0, values };
    let say = || {
        let header = operation.header().clone();
        let payload = Payload::Nodes(vec![node]);
        vec![Said { header, payload, state: None }]
    };
    let answers = Operation::exchange(&[operation], say, Some(merge_parts::<GradientSums>)).await;
    let mut payloads = Vec::new();
    for answer in answers.map_err(|failure| failure.error)? {
        operation.judge(&answer, Again::default())?;
        payloads = answer.payloads;
    }
    // Pairs of values travel and merge as gradient sums do.
    let merged: Vec<GradientSums> =
        merge_payloads(operation, payloads, length, group.world_size() as u64)?;
    Ok(merged.iter().map(|pair| [pair.sum_dy, pair.sum_dy_xmu]).collect())
}
