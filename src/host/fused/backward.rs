//! Fused backward: gradient sums and gradients of some channels before the next ones.

use std::ops::Range;

use super::cut::{CHANNELS_AT_ONCE, Cut, Reads, at_once, joined};
use crate::dtype::Element;
use crate::host::about_means;
use crate::host::apply::GradInput;
use crate::host::block_io::Scratch;
use crate::host::channel_params::ChannelParams;
use crate::host::gradient::{SumsTile, add};
use crate::host::rank::{BackwardRank, GradOutput, LARGE_BYTES, Layer, Upstream};
use crate::host::threads::Threads;
use crate::host::traversal::{Planes, Spans};
use crate::shape::Shape;
use crate::stats::{GradCentering, GradientSums, Normalization};

/// Gradient sums and gradients of all ranks of a group, as [`forward`](super::forward()). `finish`
/// merges the sums of some channels.
pub(crate) fn backward<G: Element, X: Element>(
    ranks: &mut [BackwardRank<'_, G, X>],
    normalization: &Normalization,
    finish: impl Fn(&Normalization, &[Vec<GradientSums>]) -> Vec<GradCentering> + Sync,
    threads: &Threads,
) -> Option<Vec<Vec<GradientSums>>> {
    let count = ranks.len();
    let find = |ranks: &[Rank<'_, G, X>], channels: &Range<usize>, of: &Normalization| {
        let local: Vec<_> = ranks.iter().map(|rank| sums(rank, channels, of)).collect();
        (finish(of, &local), local)
    };
    Some(joined(count, by_task(ranks, normalization, find, threads)?))
}

/// The result of a task, after the coefficients of the gradients that it writes.
type Found<P> = (Vec<GradCentering>, P);

/// The inputs of the gradient sums of a rank.
pub(super) struct Rank<'a, G, X> {
    pub g: GradOutput<'a, G>,
    pub upstream: Upstream<'a, X>,
    pub layer: Layer<'a>,
    pub planes: Planes<'a>,
}

/// Of every task, in the order of the channels, what `find` has of all ranks with the normalization
/// of the task's channels; it gives the parameters by which gradients are written, too.
pub(super) fn by_task<G: Element, X: Element, P: Send>(
    ranks: &mut [BackwardRank<'_, G, X>],
    normalization: &Normalization,
    find: impl Fn(&[Rank<'_, G, X>], &Range<usize>, &Normalization) -> Found<P> + Sync,
    threads: &Threads,
) -> Option<Vec<P>> {
    let shapes: Vec<&Shape> = ranks.iter().map(|rank| rank.upstream.shape).collect();
    let gs: Vec<GradOutput<'_, G>> = ranks.iter().map(|rank| rank.g).collect::<Option<_>>()?;
    // Where the gradients lie in another order, one channel of them is not a run of memory.
    if gs.iter().zip(&shapes).any(|(g, shape)| g.shape.strides() != shape.strides()) {
        return None;
    }
    let value_bytes = size_of::<X>().max(size_of::<G>());
    let reads = Reads { tensors: 2, value_bytes, has_mask: false };
    let cut = Cut::new(&shapes, &reads, threads)?;
    let outputs = cut.outputs(ranks.iter_mut().map(|rank| rank.dx.take()), 1);
    let residuals = cut.outputs(ranks.iter_mut().map(|rank| rank.grad_residual.take()), 1);
    let ranks: &[BackwardRank<'_, G, X>] = ranks;
    let bytes = ranks.iter().map(|rank| size_of_val(rank.upstream.x)).sum::<usize>();
    let is_large = bytes >= LARGE_BYTES;
    let batch_statistics = normalization.batch_count.is_some();
    let of_ranks = ranks.iter().zip(gs).zip(&cut.planes);
    let found_of = of_ranks.map(|((rank, g), planes)| {
        let BackwardRank { upstream, layer, .. } = rank;
        Rank { g, upstream: *upstream, layer: *layer, planes: *planes }
    });
    let found_of: Vec<Rank<'_, G, X>> = found_of.collect();
    let mut parts: Vec<Option<P>> = outputs.iter().map(|_| None).collect();
    let tasks = cut.channel_ranges().zip(outputs).zip(residuals).zip(&mut parts);
    threads.for_each(3 * bytes, tasks, |(((channels, outputs), residuals), part)| {
        let of_channels = Normalization {
            mean: normalization.mean[channels.clone()].to_vec(),
            inv_std: normalization.inv_std[channels.clone()].to_vec(),
            batch_count: normalization.batch_count,
            batch: normalization.batch.get(channels.clone()).unwrap_or_default().to_vec(),
        };
        let (centering, found) = find(&found_of, &channels, &of_channels);
        Scratch::lend(|scratch| {
            let of_ranks = found_of.iter().zip(outputs).zip(residuals);
            for ((rank, outputs), residuals) in of_ranks.rev() {
                let Rank { g, planes, .. } = rank;
                let first = channels.start;
                let coefficients = rank.layer.grad_coefficients(first, &centering);
                let params =
                    ChannelParams::of_planes(cut.channels, planes.len, first, &coefficients);
                let g = g.like(rank.upstream.shape);
                let upstream = rank.upstream.with(rank.layer.epilogue);
                let mut residuals = residuals.into_iter().rev();
                let spans = Spans::of(rank.upstream.shape);
                for (sample, dx) in outputs.into_iter().enumerate().rev() {
                    let task = GradInput {
                        g: Some(g),
                        upstream,
                        dx,
                        grad_residual: residuals.next(),
                        at: planes.run(sample, first).start,
                    };
                    task.run_spans(spans, &params, batch_statistics, is_large, scratch);
                }
            }
        });
        *part = Some(found);
    });
    Some(parts.into_iter().flatten().collect())
}

/// The gradient sums of some channels of a rank, about their means.
fn sums<G: Element, X: Element>(
    rank: &Rank<'_, G, X>,
    channels: &Range<usize>,
    normalization: &Normalization,
) -> Vec<GradientSums> {
    if rank.upstream.shape.values_per_channel() == 0 {
        return vec![GradientSums::EMPTY; channels.len()];
    }
    let planes = rank.planes;
    let g = rank.g.like(rank.upstream.shape);
    let upstream = rank.upstream.with(rank.layer.epilogue);
    let affine = rank.layer.affines(channels.start, &normalization.centering());
    let mut sums = vec![[0.0; 2]; channels.len()];
    let mut of_tile = sums.clone();
    for tile in planes.tiles() {
        let parts = at_once(channels)
            .zip(affine.chunks(CHANNELS_AT_ONCE))
            .zip(of_tile.chunks_mut(CHANNELS_AT_ONCE));
        for ((channels, affine), of_tile) in parts {
            let tile = tile.clone();
            SumsTile { g, upstream, planes, channels, affine, tile }.sums(of_tile);
        }
        add(&mut sums, &of_tile);
    }
    about_means(sums, normalization)
}
