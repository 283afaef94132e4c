//! Both halves of a pass over some channels before the next ones, where every rank of the group is
//! in this memory: what the sums have read is still in the caches when the outputs are computed
//! from it.
//!
//! The results have the same bits as those of the separate phases.

use std::ops::Range;

use super::apply::{GradInput, Normalize};
use super::block_io::Scratch;
use super::channel_params::ChannelParams;
use super::gradient;
use super::statistics::PlaneTile;
use super::threads::Threads;
use super::traversal::{Planes, Traversal};
use super::{GradOutput, LARGE_BYTES, Layer, Upstream, grad_coefficients};
use crate::dtype::Element;
use crate::shape::Shape;
use crate::stats::{Centering, GradCentering, GradientSums, Moments, Normalization};

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
const CHANNELS_AT_ONCE: usize = 32;

/// Values whose bits are a word of a mask.
const WORD: usize = 32;

/// How the channels are cut, if the ranks' activations can be taken channel by channel: whole runs
/// of a channel in all of them, few enough bytes that a cache holds what is read. `reads` tensors
/// of values of `bytes` each; with a `mask` every task has whole words of it.
fn channels_per_task(
    shapes: &[&Shape],
    (reads, bytes): (usize, usize),
    mask: bool,
    threads: &Threads,
) -> Option<(Vec<Planes>, usize)> {
    let planes = |shape: &&Shape| match Traversal::of(shape) {
        Traversal::Planes(planes) => Some(planes),
        // A rank without samples has nothing to be taken in any order.
        Traversal::Columns(_) if shape.elements() == 0 => {
            Some(Planes { samples: 0, channels: shape.channels(), len: shape.spatial_len() })
        }
        Traversal::Columns(_) => None,
    };
    let planes: Vec<Planes> = shapes.iter().map(planes).collect::<Option<_>>()?;
    let channels = planes.first()?.channels;
    let of_channel =
        planes.iter().map(|planes| planes.samples * planes.len * bytes * reads).sum::<usize>();
    let tasks = TASKS_PER_THREAD * threads.count();
    if mask && planes.iter().any(|planes| channels * planes.len % WORD != 0) {
        return None;
    }
    if of_channel * channels <= ONE_TASK_BYTES {
        return Some((planes, channels));
    }
    if of_channel > MOST_BYTES || channels < tasks {
        return None;
    }
    let per_task = (TASK_BYTES / of_channel).clamp(1, channels / tasks);
    // As many for every thread.
    let per_task = channels.div_ceil(channels.div_ceil(per_task).next_multiple_of(threads.count()));
    // The largest power of two that divides every length makes whole words of the fewest channels.
    let together =
        planes.iter().map(|planes| WORD >> planes.len.trailing_zeros().min(WORD.ilog2())).max();
    let unit = together.filter(|_| mask).unwrap_or(1);
    Some((planes, per_task.next_multiple_of(unit).min(channels)))
}

/// A rank of forward.
pub(crate) struct ForwardRank<'a, X, Y> {
    /// `None` where y is written over it.
    pub x: Option<&'a [X]>,
    pub shape: &'a Shape,
    pub residual: Option<&'a [X]>,
    pub layer: Layer<'a>,
    pub y: &'a mut [Y],
    /// Zeros, a bit for each value of x.
    pub mask: Option<&'a mut [u32]>,
}

/// Statistics and y of all ranks of a group, `local[rank][channel]`; `None` where they are better
/// taken one after the other, with nothing written. `center` merges the statistics of some
/// channels, `local[rank][channel]`.
pub(crate) fn forward<X: Element, Y: Element>(
    ranks: &mut [ForwardRank<'_, X, Y>],
    center: impl Fn(&[Vec<Moments>]) -> Vec<Centering> + Sync,
    threads: &Threads,
) -> Option<Vec<Vec<Moments>>> {
    let shapes: Vec<&Shape> = ranks.iter().map(|rank| rank.shape).collect();
    let xs: Vec<&[X]> = ranks.iter().map(|rank| rank.x).collect::<Option<_>>()?;
    let has_mask = ranks.iter().any(|rank| rank.mask.is_some());
    let (planes, per_task) = channels_per_task(&shapes, (1, size_of::<X>()), has_mask, threads)?;
    let channels = shapes.first()?.channels();
    let tasks = channels.div_ceil(per_task);
    let outputs = ranks
        .iter_mut()
        .zip(&planes)
        .map(|(rank, planes)| runs(std::mem::take(&mut rank.y), planes, per_task, 1));
    let outputs = by_task(outputs.collect(), tasks);
    let masks = ranks.iter_mut().zip(&planes).map(|(rank, planes)| match rank.mask.take() {
        Some(words) => runs(words, planes, per_task, WORD),
        None => Vec::new(),
    });
    let masks = by_task(masks.collect(), tasks);
    let ranks: &[ForwardRank<'_, X, Y>] = ranks;
    let bytes = xs.iter().map(|x| size_of_val(*x)).sum::<usize>();
    let is_large = bytes / size_of::<X>() * size_of::<Y>() >= LARGE_BYTES;
    let mut parts: Vec<Vec<Vec<Moments>>> = outputs.iter().map(|_| Vec::new()).collect();
    let tasks = (0..channels).step_by(per_task).zip(outputs).zip(masks).zip(&mut parts);
    threads.for_each(2 * bytes, tasks, |(((first, outputs), masks), part)| {
        let range = first..channels.min(first + per_task);
        let local =
            xs.iter().zip(&planes).map(|(x, planes)| stats(x, *planes, &range)).collect::<Vec<_>>();
        let centering = center(&local);
        Scratch::lend(|scratch| {
            let of_ranks = ranks.iter().zip(&xs).zip(&planes).zip(outputs).zip(masks);
            for ((((rank, x), planes), outputs), masks) in of_ranks.rev() {
                let affine: Vec<_> = range
                    .clone()
                    .zip(&centering)
                    .map(|(channel, center)| rank.layer.affine(center, channel))
                    .collect();
                let params = ChannelParams::of_planes(channels, planes.len, first, &affine);
                let mut masks = masks.into_iter().rev();
                for (sample, y) in outputs.into_iter().enumerate().rev() {
                    let at = planes.run(sample, first).start;
                    let (x, residual) = (&x[at..], rank.residual.map(|residual| &residual[at..]));
                    let task = Normalize { x: Some(x), residual, y, mask: masks.next(), at };
                    task.run(&params, rank.layer.epilogue, is_large, scratch);
                }
            }
        });
        *part = local;
    });
    Some(joined(ranks.len(), parts))
}

/// The statistics of some channels of a rank, tile by tile as by themselves.
fn stats<X: Element>(x: &[X], planes: Planes, channels: &Range<usize>) -> Vec<Moments> {
    let mut stats = vec![Moments::EMPTY; channels.len()];
    let mut of_tile = stats.clone();
    for tile in planes.tiles() {
        for (channels, of_tile) in at_once(channels).zip(of_tile.chunks_mut(CHANNELS_AT_ONCE)) {
            PlaneTile { x, planes, channels, tile: tile.clone() }.stats(of_tile);
        }
        for (stats, of_tile) in stats.iter_mut().zip(&of_tile) {
            *stats = stats.merge(*of_tile);
        }
    }
    stats
}

/// Some channels, in parts that are summed side by side.
fn at_once(channels: &Range<usize>) -> impl Iterator<Item = Range<usize>> + use<> {
    let end = channels.end;
    channels
        .clone()
        .step_by(CHANNELS_AT_ONCE)
        .map(move |first| first..end.min(first + CHANNELS_AT_ONCE))
}

/// A rank of backward.
pub(crate) struct BackwardRank<'a, G, X> {
    /// `None` where the gradient of x is written over it.
    pub g: Option<GradOutput<'a, G>>,
    pub upstream: Upstream<'a, X>,
    pub layer: Layer<'a>,
    /// Whether the statistics depend on x.
    pub batch_statistics: bool,
    pub dx: Option<&'a mut [X]>,
    pub grad_residual: Option<&'a mut [X]>,
}

/// Gradient sums and gradients of all ranks of a group, as [`forward`]. `finish` merges the sums of
/// some channels.
pub(crate) fn backward<G: Element, X: Element>(
    ranks: &mut [BackwardRank<'_, G, X>],
    normalization: &Normalization,
    finish: impl Fn(&Normalization, &[Vec<GradientSums>]) -> Vec<GradCentering> + Sync,
    threads: &Threads,
) -> Option<Vec<Vec<GradientSums>>> {
    let shapes: Vec<&Shape> = ranks.iter().map(|rank| rank.upstream.shape).collect();
    let gs: Vec<GradOutput<'_, G>> = ranks.iter().map(|rank| rank.g).collect::<Option<_>>()?;
    // Where the gradients lie in another order, one channel of them is not a run of memory.
    if gs.iter().zip(&shapes).any(|(g, shape)| g.shape.strides() != shape.strides()) {
        return None;
    }
    let (planes, per_task) =
        channels_per_task(&shapes, (2, size_of::<X>().max(size_of::<G>())), false, threads)?;
    let channels = shapes.first()?.channels();
    let tasks = channels.div_ceil(per_task);
    let outputs = ranks
        .iter_mut()
        .zip(&planes)
        .map(|(rank, planes)| runs(rank.dx.take().unwrap_or_default(), planes, per_task, 1));
    let outputs = by_task(outputs.collect(), tasks);
    let residuals =
        ranks.iter_mut().zip(&planes).map(|(rank, planes)| match rank.grad_residual.take() {
            Some(values) => runs(values, planes, per_task, 1),
            None => Vec::new(),
        });
    let residuals = by_task(residuals.collect(), tasks);
    let ranks: &[BackwardRank<'_, G, X>] = ranks;
    let bytes = ranks.iter().map(|rank| size_of_val(rank.upstream.x)).sum::<usize>();
    let mut parts: Vec<Vec<Vec<GradientSums>>> = outputs.iter().map(|_| Vec::new()).collect();
    let tasks = (0..channels).step_by(per_task).zip(outputs).zip(residuals).zip(&mut parts);
    threads.for_each(3 * bytes, tasks, |(((first, outputs), residuals), part)| {
        let range = first..channels.min(first + per_task);
        let of_range = Normalization {
            mean: normalization.mean[range.clone()].to_vec(),
            inv_std: normalization.inv_std[range.clone()].to_vec(),
            batch_count: normalization.batch_count,
        };
        let local = ranks.iter().zip(&gs).zip(&planes);
        let local = local.map(|((rank, g), planes)| sums(rank, *g, *planes, &range, &of_range));
        let local: Vec<Vec<GradientSums>> = local.collect();
        let centering = finish(&of_range, &local);
        Scratch::lend(|scratch| {
            let of_ranks = ranks.iter().zip(&gs).zip(&planes).zip(outputs).zip(residuals);
            for ((((rank, g), planes), outputs), residuals) in of_ranks.rev() {
                let coefficients = grad_coefficients(rank.layer, first, &centering);
                let params = ChannelParams::of_planes(channels, planes.len, first, &coefficients);
                let (g, upstream) =
                    (g.like(rank.upstream.shape), rank.upstream.with(rank.layer.epilogue));
                let mut residuals = residuals.into_iter().rev();
                for (sample, dx) in outputs.into_iter().enumerate().rev() {
                    let task = GradInput {
                        g: Some(g),
                        upstream,
                        dx,
                        grad_residual: residuals.next(),
                        at: planes.run(sample, first).start,
                    };
                    task.run(
                        &params,
                        normalization.batch_count.is_some(),
                        bytes >= LARGE_BYTES,
                        scratch,
                    );
                }
            }
        });
        *part = local;
    });
    Some(joined(ranks.len(), parts))
}

/// The gradient sums of some channels of a rank, about their means.
fn sums<G: Element, X: Element>(
    rank: &BackwardRank<'_, G, X>,
    g: GradOutput<'_, G>,
    planes: Planes,
    channels: &Range<usize>,
    normalization: &Normalization,
) -> Vec<GradientSums> {
    if rank.upstream.x.is_empty() {
        return vec![GradientSums::EMPTY; channels.len()];
    }
    let (g, upstream) = (g.like(rank.upstream.shape), rank.upstream.with(rank.layer.epilogue));
    let centering = normalization.centering();
    let affine: Vec<_> = channels
        .clone()
        .zip(&centering)
        .map(|(channel, center)| rank.layer.affine(center, channel))
        .collect();
    let mut sums = vec![[0.0; 2]; channels.len()];
    let mut of_tile = sums.clone();
    for tile in planes.tiles() {
        let parts = at_once(channels)
            .zip(affine.chunks(CHANNELS_AT_ONCE))
            .zip(of_tile.chunks_mut(CHANNELS_AT_ONCE));
        for ((channels, affine), of_tile) in parts {
            gradient::PlaneTile { g, upstream, planes, affine, channels, tile: tile.clone() }
                .sums(of_tile);
        }
        gradient::add(&mut sums, &of_tile);
    }
    let about_mean = |([sum_dy, sum_dy_x], rest): ([f64; 2], f64)| {
        GradientSums::from_pivot(sum_dy, sum_dy_x, rest)
    };
    sums.into_iter().zip(normalization.rest()).map(about_mean).collect()
}

/// The runs of memory that every task writes of a rank, sample by sample; of each channel's values,
/// `each` are one `T`.
fn runs<'a, T>(
    values: &'a mut [T],
    planes: &Planes,
    per_task: usize,
    each: usize,
) -> Vec<Vec<&'a mut [T]>> {
    let tasks = planes.channels.div_ceil(per_task);
    let mut runs: Vec<Vec<&mut [T]>> =
        (0..tasks).map(|_| Vec::with_capacity(planes.samples)).collect();
    for sample in values.chunks_mut((planes.channels * planes.len / each).max(1)) {
        for (runs, run) in runs.iter_mut().zip(sample.chunks_mut(per_task * planes.len / each)) {
            runs.push(run);
        }
    }
    runs
}

/// What is listed by rank and task, by task and rank; where a rank has no list, an empty one.
fn by_task<T>(ranks: Vec<Vec<Vec<T>>>, tasks: usize) -> Vec<Vec<Vec<T>>> {
    let mut ranks: Vec<_> = ranks.into_iter().map(Vec::into_iter).collect();
    (0..tasks)
        .map(|_| ranks.iter_mut().map(|runs| runs.next().unwrap_or_default()).collect())
        .collect()
}

/// What tasks found, `parts[task][rank]`, as lists of all channels.
fn joined<T: Clone>(ranks: usize, parts: Vec<Vec<Vec<T>>>) -> Vec<Vec<T>> {
    let of_rank = |rank: usize| parts.iter().flat_map(|part| part[rank].iter().cloned()).collect();
    (0..ranks).map(of_rank).collect()
}
