//! From tiles to channels: which tiles are summed side by side, and in which order they merge.

use std::ops::Range;

use super::threads::Threads;
use super::traversal::{ColumnTile, Columns, Planes, Traversal};

/// Some samples and some positions of them.
pub(super) type PlanePart = (Range<usize>, Range<usize>);

/// Reduces every channel, each with a value of no tile before: `planes` writes what a tile of some
/// neighbouring channels has, `columns` gives it for the channels of a tile of columns. Tiles merge
/// in their order, on one thread, so that the bits depend on no number of threads.
pub(super) fn reduce<T: Copy + Send>(
    (traversal, channels, bytes): (Traversal, usize, usize),
    empty: T,
    threads: &Threads,
    planes: impl Fn(Planes, Range<usize>, PlanePart, &mut [T]) + Sync,
    columns: impl Fn(Columns, &ColumnTile) -> Vec<T> + Sync,
    merge: impl Fn(&mut [T], &[T]),
) -> Vec<T> {
    let mut reduced = vec![empty; channels];
    match traversal {
        Traversal::Planes(of) => {
            let (tiles, per_tile) = (of.tiles().count(), of.channels_per_tile());
            let mut parts = vec![empty; tiles * channels];
            let mut rest = parts.as_mut_slice();
            let tasks = (0..channels).step_by(per_tile).flat_map(|first| {
                let channels = first..channels.min(first + per_tile);
                of.tiles().map(move |tile| (channels.clone(), tile))
            });
            let tasks = tasks.map(|(channels, tile)| {
                let (part, after) = std::mem::take(&mut rest).split_at_mut(channels.len());
                rest = after;
                (channels, tile, part)
            });
            threads
                .for_each(bytes, tasks, |(channels, tile, part)| planes(of, channels, tile, part));
            // A task after the other, all tiles of some channels before the next channels.
            let mut parts = parts.as_slice();
            for reduced in reduced.chunks_mut(per_tile) {
                let (of_channels, after) = parts.split_at(tiles * reduced.len());
                parts = after;
                of_channels.chunks(reduced.len()).for_each(|tile| merge(reduced, tile));
            }
        }
        Traversal::Columns(of) => {
            let tasks = of.column_groups().flat_map(|group| of.tiles(group));
            let mut parts: Vec<Vec<T>> = tasks.clone().map(|_| Vec::new()).collect();
            threads
                .for_each(bytes, tasks.zip(&mut parts), |(tile, part)| *part = columns(of, &tile));
            for (group, parts) in of.column_groups().zip(parts.chunks(of.tiles_per_group())) {
                let reduced = &mut reduced[of.channels(&group)];
                parts.iter().for_each(|part| merge(reduced, part));
            }
        }
    }
    reduced
}
