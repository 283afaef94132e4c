//! Sums that do not depend on order: ranges of values, then sums of integers.
//!
//! Owns the host's side of `stats::exact`. Processors with AVX-512, AVX2 or NEON have kernels of
//! their own. Others take plain arithmetic on arrays, which LLVM makes vector code of. As integers
//! add in any order, nothing has to be fixed for the bits to be the same.
//!
//! | module | owns |
//! |---|---|
//! | `terms` | the integers of a value |
//! | `registers` | the instructions that the kernels share, and which kernel is taken |
//! | `lanes`, `extremes` | sums and ranges of runs of a channel |
//! | `columns` | both of columns |
//! | `source` | where values come from |
//! | `task` | which of both is taken |
//! | `walk` | planes and columns, tile by tile |
#![cfg_attr(
    not(any(target_arch = "x86_64", target_arch = "aarch64")),
    allow(dead_code, reason = "no registers are known there, and no kernel of them is taken")
)]

mod columns;
mod extremes;
mod lanes;
mod registers;
mod source;
mod task;
mod terms;
mod walk;

use std::ops::Range;

use source::{Alone, Products, Source, Values};
use task::{Ends, Summed};
use terms::{MOMENTS, PRODUCTS, RESTS, scale_and_offset};
use walk::Walk;

use super::apply::Affine;
use super::rank::{GradOutput, Layer, Upstream};
use super::threads::Threads;
use super::traversal::{ColumnTile, Columns, Planes};
use crate::dtype::Element;
use crate::shape::Shape;
use crate::stats::{GridParams, Normalization, ValueRange};

/// The grids of an activation, by channel; none where no integers are wanted.
#[derive(Clone, Copy)]
struct Grids<'a> {
    x: &'a [GridParams],
    g: &'a [GridParams],
}

impl Grids<'_> {
    const NONE: Self = Self { x: &[], g: &[] };

    /// Whether there are some, and all integers of these channels are 0.
    fn are_zero(&self, channels: &Range<usize>) -> bool {
        let zero = |grids: &[GridParams]| {
            grids.get(channels.clone()).is_some_and(|of| of.iter().all(|of| of.scale == 0.0))
        };
        if self.g.is_empty() { zero(self.x) } else { zero(self.g) }
    }

    /// Clears the sums of channels whose grid is 0, because their integers are all 0.
    fn without_zero(&self, mut sums: Vec<[i128; 2]>) -> Vec<[i128; 2]> {
        let is_zero = |of: Option<&GridParams>| of.is_some_and(|of| of.scale == 0.0);
        for (channel, [first, second]) in sums.iter_mut().enumerate() {
            let [x, g] = [self.x, self.g].map(|of| is_zero(of.get(channel)));
            *first = if g || (x && self.g.is_empty()) { 0 } else { *first };
            *second = if g || x { 0 } else { *second };
        }
        sums
    }

    /// Units of a channel, and scale and offset in them.
    #[inline(always)]
    fn of(&self, channel: usize) -> ([f32; 2], [[f32; 2]; 2]) {
        let [x, g] =
            [self.x, self.g].map(|of| of.get(channel).copied().unwrap_or(GridParams::ZERO));
        ([x.unit, g.unit], [scale_and_offset(&x), scale_and_offset(&g)])
    }

    /// Whether the unit of a channel is not 1.
    fn has_units(&self) -> bool {
        self.x.iter().chain(self.g).any(|grid| grid.unit != 1.0)
    }

    /// Units of x and g by column of a patch.
    fn units_of(
        &self,
        columns: Columns<'_>,
        tile: &ColumnTile,
        first: usize,
        len: usize,
    ) -> Vec<[f32; 2]> {
        let start = columns.channels(&tile.columns).start;
        let width = tile.columns.len();
        let channel = |column| start + column % width / columns.repeat;
        (first..first + len).map(|column| self.of(channel(column)).0).collect()
    }
}

/// Which channels are taken of an activation.
#[derive(Clone, Copy)]
pub(crate) enum ChannelRange<'t> {
    /// All of them, on the threads of a pool.
    All(&'t Threads),
    /// Some, on this thread. Lists by channel begin with the first of them.
    Some(Channels<'t>),
}

/// Some neighbouring channels of planes.
#[derive(Clone, Copy)]
pub(crate) struct Channels<'t> {
    pub(super) planes: Planes<'t>,
    pub(super) channels: &'t Range<usize>,
}

impl ChannelRange<'_> {
    fn first(&self) -> usize {
        match self {
            Self::All(_) => 0,
            Self::Some(of) => of.channels.start,
        }
    }

    fn count(&self, shape: &Shape) -> usize {
        match self {
            Self::All(_) => shape.channels(),
            Self::Some(of) => of.channels.len(),
        }
    }
}

/// Both ends of two ranges; NaN where one is.
fn join_ends(a: [f32; 2], b: [f32; 2]) -> [f32; 2] {
    if a[0].is_nan() || b[0].is_nan() { [f32::NAN; 2] } else { [a[0].min(b[0]), a[1].max(b[1])] }
}

/// Ranges of channels of as many values each as the shape says.
fn ranges(ends: Vec<[f32; 2]>, shape: &Shape) -> Vec<ValueRange> {
    let count = shape.values_per_channel();
    let range = |[low, high]: [f32; 2]| {
        // Merged, so that zero has its one sign.
        ValueRange::EMPTY.merge(ValueRange { count, low, high })
    };
    ends.into_iter().map(range).collect()
}

/// The range of every channel of x.
pub(crate) fn local_ranges<X: Element>(
    x: &[X],
    shape: &Shape,
    channels: ChannelRange<'_>,
) -> Vec<ValueRange> {
    if shape.values_per_channel() == 0 {
        return vec![ValueRange::EMPTY; channels.count(shape)];
    }
    let walk = Walk { source: Values(x), shape, affine: &[], grids: Grids::NONE, channels };
    ranges(walk.take::<Ends<false>>(), shape)
}

/// Σq and Σq² of every channel of x; with `rests` Σr and Σ(2²⁵·q·r + r²) of the rounding errors r.
pub(crate) fn local_integers<X: Element>(
    x: &[X],
    shape: &Shape,
    grids: &[GridParams],
    rests: bool,
    channels: ChannelRange<'_>,
) -> Vec<[i128; 2]> {
    if shape.values_per_channel() == 0 {
        return vec![[0; 2]; channels.count(shape)];
    }
    let grids = Grids { x: grids, g: &[] };
    let walk = Walk { source: Values(x), shape, affine: &[], grids, channels };
    let sums = if rests { walk.take::<Summed<RESTS>>() } else { walk.take::<Summed<MOMENTS>>() };
    walk.grids.without_zero(sums)
}

/// The inputs of the gradient sums of a rank.
pub(crate) struct GradientRank<'a, G, X> {
    pub g: GradOutput<'a, G>,
    pub upstream: Upstream<'a, X>,
    pub layer: Layer<'a>,
}

impl<G: Element, X: Element> GradientRank<'_, G, X> {
    /// The range of every channel's gradients before the activation: −a to a.
    pub fn ranges(
        &self,
        normalization: &Normalization,
        channels: ChannelRange<'_>,
    ) -> Vec<ValueRange> {
        let Self { g, upstream, layer } = self;
        let shape = upstream.shape;
        if shape.values_per_channel() == 0 {
            return vec![ValueRange::EMPTY; channels.count(shape)];
        }
        let g = g.like(shape);
        let ends = if layer.epilogue.activates() {
            let affine = layer.affines(channels.first(), &normalization.centering());
            let source = Products { g, upstream: upstream.with(layer.epilogue) };
            self.ends(source, &affine, channels)
        } else {
            self.ends(Alone { g, bytes: size_of_val(self.g.values) }, &[], channels)
        };
        ranges(ends, shape)
    }

    fn ends(
        &self,
        source: impl Source,
        affine: &[Affine],
        channels: ChannelRange<'_>,
    ) -> Vec<[f32; 2]> {
        let shape = self.upstream.shape;
        Walk { source, shape, affine, grids: Grids::NONE, channels }.take::<Ends<true>>()
    }

    /// Σw and Σq·w of every channel, with the grids of x and of the gradients.
    pub fn integers(
        &self,
        normalization: &Normalization,
        [x, g]: [&[GridParams]; 2],
        channels: ChannelRange<'_>,
    ) -> Vec<[i128; 2]> {
        let shape = self.upstream.shape;
        if shape.values_per_channel() == 0 {
            return vec![[0; 2]; channels.count(shape)];
        }
        let affine = self.layer.affines(channels.first(), &normalization.centering());
        let upstream = self.upstream.with(self.layer.epilogue);
        let source = Products { g: self.g.like(shape), upstream };
        let walk = Walk { source, shape, affine: &affine, grids: Grids { x, g }, channels };
        walk.grids.without_zero(walk.take::<Summed<PRODUCTS>>())
    }
}

#[cfg(test)]
mod tests;
