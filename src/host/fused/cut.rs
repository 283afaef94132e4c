//! How the channels of all ranks are cut into tasks, and which memory a task writes.

use std::ops::Range;

use crate::host::threads::Threads;
use crate::host::traversal::{Planes, Traversal};
use crate::shape::Shape;

/// Bytes that a thread reads twice, between its first and its second look at them: within its share
/// of the last cache.
const MOST_BYTES: usize = 4 << 20;
/// Bytes of a task where a channel has fewer: long runs of memory, within a core's own cache.
const TASK_BYTES: usize = 1 << 20;
/// Bytes of all ranks up to which there is one task: the caller's thread has done it before another
/// wakes up.
const ONE_TASK_BYTES: usize = 512 << 10;
/// Tasks per thread, so that threads end at about the same time.
const TASKS_PER_THREAD: usize = 4;
/// Channels that are summed side by side: their sums stay in a core's first cache.
pub(in crate::host) const CHANNELS_AT_ONCE: usize = 32;

/// Values whose bits are a word of a mask.
pub(super) const WORD: usize = 32;

/// The tensors that a pass reads twice.
pub(super) struct Reads {
    /// Tensors of every rank.
    pub tensors: usize,
    /// Bytes of a value of any of them.
    pub value_bytes: usize,
    /// Whether there is a mask, of which every task writes whole words.
    pub has_mask: bool,
}

/// The channels of all ranks, cut into tasks of neighbouring channels.
pub(super) struct Cut<'a> {
    /// Of every rank.
    pub planes: Vec<Planes<'a>>,
    pub channels: usize,
    per_task: usize,
}

/// The runs of memory that every task writes of every rank, `[task][rank][sample]`. A rank without
/// such an output has none.
pub(super) type Outputs<'a, T> = Vec<Vec<Vec<&'a mut [T]>>>;

impl<'s> Cut<'s> {
    /// `None` where the ranks' activations cannot be taken channel by channel: whole runs of a
    /// channel in all of them, few enough bytes that a cache holds what is read, enough channels
    /// for all threads.
    pub fn new(shapes: &[&'s Shape], reads: &Reads, threads: &Threads) -> Option<Self> {
        let planes: Vec<Planes<'s>> =
            shapes.iter().map(|shape| planes(shape)).collect::<Option<_>>()?;
        let channels = planes.first()?.channels;
        let values_per_channel: usize =
            planes.iter().map(|planes| planes.samples * planes.len).sum();
        let of_channel = values_per_channel * reads.value_bytes * reads.tensors;
        let cuts_words = |planes: &Planes<'_>| !(channels * planes.len).is_multiple_of(WORD);
        if reads.has_mask && planes.iter().any(cuts_words) {
            return None;
        }
        if of_channel * channels <= ONE_TASK_BYTES {
            return Some(Self { planes, channels, per_task: channels });
        }
        let tasks = TASKS_PER_THREAD * threads.count();
        if of_channel > MOST_BYTES || channels < tasks {
            return None;
        }
        let per_task = (TASK_BYTES / of_channel).clamp(1, channels / tasks);
        // As many for every thread.
        let tasks = channels.div_ceil(per_task).next_multiple_of(threads.count());
        let per_task = channels.div_ceil(tasks);
        let unit = if reads.has_mask { channels_of_whole_words(&planes) } else { 1 };
        let per_task = per_task.next_multiple_of(unit).min(channels);
        Some(Self { planes, channels, per_task })
    }

    fn tasks(&self) -> usize {
        self.channels.div_ceil(self.per_task)
    }

    /// The channels of every task.
    pub fn channel_ranges(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let channels = self.channels;
        let per_task = self.per_task;
        (0..channels).step_by(per_task).map(move |first| first..channels.min(first + per_task))
    }

    /// The runs of the ranks' outputs that every task writes. A `T` holds `per_item` values of a
    /// channel.
    pub fn outputs<'a, T>(
        &self,
        of_ranks: impl Iterator<Item = Option<&'a mut [T]>>,
        per_item: usize,
    ) -> Outputs<'a, T> {
        let of_ranks = of_ranks.zip(&self.planes);
        let runs = of_ranks.map(|(values, planes)| match values {
            Some(values) => self.runs(values, planes, per_item),
            None => Vec::new(),
        });
        by_task(runs.collect(), self.tasks())
    }

    /// The runs of one rank that every task writes, sample by sample.
    fn runs<'a, T>(
        &self,
        values: &'a mut [T],
        planes: &Planes<'_>,
        per_item: usize,
    ) -> Vec<Vec<&'a mut [T]>> {
        let mut runs: Vec<Vec<&mut [T]>> =
            (0..self.tasks()).map(|_| Vec::with_capacity(planes.samples)).collect();
        let sample_items = planes.channels * planes.len / per_item;
        let task_items = self.per_task * planes.len / per_item;
        for sample in values.chunks_mut(sample_items.max(1)) {
            for (runs, run) in runs.iter_mut().zip(sample.chunks_mut(task_items)) {
                runs.push(run);
            }
        }
        runs
    }
}

/// The planes of a rank; `None` for columns.
fn planes(shape: &Shape) -> Option<Planes<'_>> {
    match Traversal::of(shape) {
        Traversal::Planes(planes) => Some(planes),
        // A rank without samples has nothing to be taken in any order.
        Traversal::Columns(_) if shape.elements() == 0 => {
            let channels = shape.channels();
            Some(Planes { samples: 0, channels, len: shape.spatial_len(), valid: None })
        }
        Traversal::Columns(_) => None,
    }
}

/// The fewest channels whose values are whole words of every rank's mask: the largest power of two
/// that divides every length decides.
fn channels_of_whole_words(planes: &[Planes<'_>]) -> usize {
    let of_rank = |planes: &Planes<'_>| WORD >> planes.len.trailing_zeros().min(WORD.ilog2());
    planes.iter().map(of_rank).max().unwrap_or(1)
}

/// Transposes lists by `[rank][task]` to `[task][rank]`; a rank without a list gets empty ones.
fn by_task<T>(ranks: Vec<Vec<Vec<T>>>, tasks: usize) -> Vec<Vec<Vec<T>>> {
    let mut ranks: Vec<_> = ranks.into_iter().map(Vec::into_iter).collect();
    (0..tasks)
        .map(|_| ranks.iter_mut().map(|runs| runs.next().unwrap_or_default()).collect())
        .collect()
}

/// Joins the results of tasks, `parts[task][rank]`, to lists of all channels by rank.
pub(super) fn joined<T: Clone>(ranks: usize, parts: Vec<Vec<Vec<T>>>) -> Vec<Vec<T>> {
    let of_rank = |rank: usize| parts.iter().flat_map(|part| part[rank].iter().cloned()).collect();
    (0..ranks).map(of_rank).collect()
}

/// Some channels, in parts that are summed side by side: [`CHANNELS_AT_ONCE`] but for the last.
pub(in crate::host) fn at_once(
    channels: &Range<usize>,
) -> impl Iterator<Item = Range<usize>> + use<> {
    let end = channels.end;
    channels
        .clone()
        .step_by(CHANNELS_AT_ONCE)
        .map(move |first| first..end.min(first + CHANNELS_AT_ONCE))
}
