//! From tiles to channels: which tiles are summed side by side, and in which order they merge.
//!
//! ```text
//! for channels that are summed side by side, for tile of these:     on any thread, in any order
//!     parts[channels, tile] ← sums of the tile
//! for channel, for tile of it in order:                             on the caller's thread
//!     reduced[channel] ← merge(reduced[channel], parts[channel, tile])
//! ```
//!
//! The merge has its order whatever the threads do: the bits depend neither on their number nor on
//! who sums which tile. It is cheap, because a tile of 65,536 values leaves a few numbers. No lock
//! and no atomic is in the loop: every task has a part of memory to itself. The caller defines the
//! sums of a tile and the merge of two: moments by Chan et al. in `statistics`, plain sums in
//! `gradient`.

use std::ops::Range;

use super::threads::Threads;
use super::traversal::{ColumnTile, Columns, PlaneTile, Planes, Traversal};

/// A reduction to one value of `T` for every channel of an activation.
pub(super) struct Reduction<'t, T> {
    pub traversal: Traversal<'t>,
    pub channels: usize,
    /// Bytes of the activation, by which threads are asked for help.
    pub bytes: usize,
    /// Of no tile.
    pub empty: T,
    pub threads: &'t Threads,
}

impl<'t, T: Copy + Send> Reduction<'t, T> {
    /// Reduces every channel: `planes` writes what a tile of some neighbouring channels has,
    /// `columns` gives it for the channels of a tile of columns, `merge` adds it to the tiles
    /// before.
    pub fn reduce(
        self,
        planes: impl Fn(Planes<'t>, Range<usize>, PlaneTile, &mut [T]) + Sync,
        columns: impl Fn(Columns<'t>, &ColumnTile) -> Vec<T> + Sync,
        merge: impl Fn(&mut [T], &[T]),
    ) -> Vec<T> {
        match self.traversal {
            Traversal::Planes(of) => self.reduce_planes(of, planes, merge),
            Traversal::Columns(of) => self.reduce_columns(of, columns, merge),
        }
    }

    fn reduce_planes(
        self,
        of: Planes<'t>,
        planes: impl Fn(Planes<'t>, Range<usize>, PlaneTile, &mut [T]) + Sync,
        merge: impl Fn(&mut [T], &[T]),
    ) -> Vec<T> {
        let all_channels = self.channels;
        let tiles = of.tiles().count();
        let per_tile = of.channels_per_tile();
        let mut parts = vec![self.empty; tiles * all_channels];
        let mut rest = parts.as_mut_slice();
        let tasks = (0..all_channels).step_by(per_tile).flat_map(|first| {
            let channels = first..all_channels.min(first + per_tile);
            of.tiles().map(move |tile| (channels.clone(), tile))
        });
        let tasks = tasks.map(|(channels, tile)| {
            let (part, after) = std::mem::take(&mut rest).split_at_mut(channels.len());
            rest = after;
            (channels, tile, part)
        });
        self.threads
            .for_each(self.bytes, tasks, |(channels, tile, part)| planes(of, channels, tile, part));
        // A task after the other, all tiles of some channels before the next channels.
        let mut reduced = vec![self.empty; all_channels];
        let mut parts = parts.as_slice();
        if tiles == 0 {
            return reduced;
        }
        for reduced in reduced.chunks_mut(per_tile) {
            let (of_channels, after) = parts.split_at(tiles * reduced.len());
            parts = after;
            of_channels.chunks(reduced.len()).for_each(|tile| merge(reduced, tile));
        }
        reduced
    }

    fn reduce_columns(
        self,
        of: Columns<'t>,
        columns: impl Fn(Columns<'t>, &ColumnTile) -> Vec<T> + Sync,
        merge: impl Fn(&mut [T], &[T]),
    ) -> Vec<T> {
        let tasks = of.column_groups().flat_map(|group| of.tiles(group));
        let mut parts: Vec<Vec<T>> = tasks.clone().map(|_| Vec::new()).collect();
        self.threads
            .for_each(self.bytes, tasks.zip(&mut parts), |(tile, part)| *part = columns(of, &tile));
        let mut reduced = vec![self.empty; self.channels];
        let per_group = of.tiles_per_group().max(1);
        for (group, parts) in of.column_groups().zip(parts.chunks(per_group)) {
            let reduced = &mut reduced[of.channels(&group)];
            parts.iter().for_each(|part| merge(reduced, part));
        }
        reduced
    }
}
