//! Fused forward: statistics and y of some channels before the next ones.

use std::ops::Range;

use super::cut::{CHANNELS_AT_ONCE, Cut, Reads, WORD, at_once, joined};
use crate::dtype::Element;
use crate::host::apply::Normalize;
use crate::host::block_io::Scratch;
use crate::host::channel_params::ChannelParams;
use crate::host::rank::{ForwardRank, LARGE_BYTES};
use crate::host::statistics::StatsTile;
use crate::host::threads::Threads;
use crate::host::traversal::{Planes, Spans};
use crate::shape::Shape;
use crate::stats::{Centering, Moments};

/// Statistics and y of all ranks of a group, `local[rank][channel]`; `None` where separate phases
/// are better, with nothing written. `center` merges the statistics of some channels,
/// `local[rank][channel]`.
pub(crate) fn forward<X: Element, Y: Element>(
    ranks: &mut [ForwardRank<'_, X, Y>],
    center: impl Fn(&[Vec<Moments>]) -> Vec<Centering> + Sync,
    threads: &Threads,
) -> Option<Vec<Vec<Moments>>> {
    let count = ranks.len();
    let find = |ranks: &[Rank<'_, X>], channels: &Range<usize>| {
        let local: Vec<_> = ranks.iter().map(|rank| stats(rank.x, rank.planes, channels)).collect();
        (center(&local), local)
    };
    Some(joined(count, by_task(ranks, find, threads)?))
}

/// The inputs of the statistics of a rank.
pub(super) struct Rank<'a, X> {
    pub x: &'a [X],
    pub shape: &'a Shape,
    pub planes: Planes<'a>,
}

/// Of every task, in the order of the channels, what `find` has of all ranks; it gives the
/// parameters by which y is written, too.
pub(super) fn by_task<X: Element, Y: Element, P: Send>(
    ranks: &mut [ForwardRank<'_, X, Y>],
    find: impl Fn(&[Rank<'_, X>], &Range<usize>) -> (Vec<Centering>, P) + Sync,
    threads: &Threads,
) -> Option<Vec<P>> {
    let shapes: Vec<&Shape> = ranks.iter().map(|rank| rank.shape).collect();
    let xs: Vec<&[X]> = ranks.iter().map(|rank| rank.x).collect::<Option<_>>()?;
    let has_mask = ranks.iter().any(|rank| rank.mask.is_some());
    let reads = Reads { tensors: 1, value_bytes: size_of::<X>(), has_mask };
    let cut = Cut::new(&shapes, &reads, threads)?;
    let outputs = cut.outputs(ranks.iter_mut().map(|rank| Some(std::mem::take(&mut rank.y))), 1);
    let masks = cut.outputs(ranks.iter_mut().map(|rank| rank.mask.take()), WORD);
    let ranks: &[ForwardRank<'_, X, Y>] = ranks;
    let bytes = xs.iter().map(|x| size_of_val(*x)).sum::<usize>();
    let is_large = bytes / size_of::<X>() * size_of::<Y>() >= LARGE_BYTES;
    let of_ranks = xs.iter().zip(shapes).zip(&cut.planes);
    let found_of: Vec<Rank<'_, X>> =
        of_ranks.map(|((x, shape), planes)| Rank { x, shape, planes: *planes }).collect();
    let mut parts: Vec<Option<P>> = outputs.iter().map(|_| None).collect();
    let tasks = cut.channel_ranges().zip(outputs).zip(masks).zip(&mut parts);
    threads.for_each(2 * bytes, tasks, |(((channels, outputs), masks), part)| {
        let (centering, found) = find(&found_of, &channels);
        let task = Task { ranks, found_of: &found_of, cut: &cut, first: channels.start };
        task.normalize(&centering, outputs, masks, is_large);
        *part = Some(found);
    });
    Some(parts.into_iter().flatten().collect())
}

/// Some channels of all ranks, from the `first` one on.
struct Task<'t, 'a, X, Y> {
    ranks: &'t [ForwardRank<'a, X, Y>],
    found_of: &'t [Rank<'t, X>],
    cut: &'t Cut<'t>,
    first: usize,
}

impl<X: Element, Y: Element> Task<'_, '_, X, Y> {
    /// Writes y, and the mask.
    fn normalize(
        &self,
        centering: &[Centering],
        outputs: Vec<Vec<&mut [Y]>>,
        masks: Vec<Vec<&mut [u32]>>,
        is_large: bool,
    ) {
        Scratch::lend(|scratch| {
            let of_ranks = self.ranks.iter().zip(self.found_of).zip(outputs).zip(masks);
            for (((rank, Rank { x, planes, .. }), outputs), masks) in of_ranks.rev() {
                let first = self.first;
                let affine = rank.layer.affines(first, centering);
                let params =
                    ChannelParams::of_planes(self.cut.channels, planes.len, first, &affine);
                let mut masks = masks.into_iter().rev();
                let spans = Spans::of(rank.shape);
                for (sample, y) in outputs.into_iter().enumerate().rev() {
                    let at = planes.run(sample, first).start;
                    let x = Some(&x[at..]);
                    let residual = rank.residual.map(|residual| &residual[at..]);
                    let task = Normalize { x, residual, y, mask: masks.next(), first_bit: 0, at };
                    task.run_spans(spans, &params, rank.layer.epilogue, is_large, scratch);
                }
            }
        });
    }
}

/// The statistics of some channels of a rank, tile by tile as in a phase of its own.
fn stats<X: Element>(x: &[X], planes: Planes<'_>, channels: &Range<usize>) -> Vec<Moments> {
    let mut stats = vec![Moments::EMPTY; channels.len()];
    let mut of_tile = stats.clone();
    for tile in planes.tiles() {
        for (channels, of_tile) in at_once(channels).zip(of_tile.chunks_mut(CHANNELS_AT_ONCE)) {
            StatsTile { x, planes, channels, tile: tile.clone() }.stats(of_tile);
        }
        for (stats, of_tile) in stats.iter_mut().zip(&of_tile) {
            *stats = stats.merge(*of_tile);
        }
    }
    stats
}
