//! Gradient sums of every channel: Σg and Σ g·(x − pivot), tile by tile about forward's pivot, in
//! f32 and then f64.
//!
//! g is the gradient before the activation: grad_output, or its part where the activation is
//! active.

use std::ops::Range;
use std::sync::OnceLock;

use pulp::{Arch, Scalar, Simd, WithSimd};

use super::apply::{Affine, Run, Upstream};
use super::block_io::{BLOCK, Block, Gradients, Scratch};
use super::channel_params::ChannelParams;
use super::reduce::Reduction;
use super::simd::{ColumnSums, PatchSums, ROWS, Sums};
use super::statistics::{LAST_CACHE_BYTES, by_column, totals};
use super::threads::Threads;
use super::traversal::{ColumnTile, Columns, PATCH_COLUMNS, PlaneTile, Planes, Traversal};
use crate::dtype::Element;
use crate::shape::Shape;

/// Σg and Σ g·(x − pivot) of every channel, with the pivot of its coefficients.
pub(super) fn sums<G: Element, X: Element>(
    g: Gradients<'_, G>,
    upstream: Upstream<'_, X>,
    shape: &Shape,
    affine: &[Affine],
    threads: &Threads,
) -> Vec<[f64; 2]> {
    if shape.values_per_channel() == 0 {
        return vec![[0.0; 2]; shape.channels()];
    }
    let traversal = Traversal::of(shape);
    let reduction = Reduction {
        traversal,
        channels: shape.channels(),
        bytes: size_of_val(upstream.x),
        empty: [0.0; 2],
        threads,
    };
    // Of all channels: tiles of planes have those of their own.
    let params = OnceLock::new();
    let of_planes = |planes, channels: Range<usize>, tile, part: &mut [[f64; 2]]| {
        let affine = &affine[channels.clone()];
        SumsTile { g, upstream, planes, channels, affine, tile }.sums(part);
    };
    let of_columns = |columns, tile: &ColumnTile| {
        let params = params.get_or_init(|| ChannelParams::new(traversal, affine));
        ColumnTileSums { g, upstream, columns, tile, params, affine }.sums()
    };
    reduction.reduce(of_planes, of_columns, add)
}

/// Adds a tile's sums to those of the tiles before.
pub(super) fn add(sums: &mut [[f64; 2]], tile: &[[f64; 2]]) {
    for ([a, b], [more_a, more_b]) in sums.iter_mut().zip(tile) {
        *a += more_a;
        *b += more_b;
    }
}

/// Takes sums again that are not finite. A finite Σg stays, also in its last bit, whatever x is.
fn replace_not_finite(sums: &mut [f64; 2], again: [f64; 2]) {
    for (sum, again) in sums.iter_mut().zip(again) {
        if !sum.is_finite() {
            *sum = again;
        }
    }
}

/// One tile of neighbouring channels, of planes.
pub(super) struct SumsTile<'a, G, X> {
    pub g: Gradients<'a, G>,
    pub upstream: Upstream<'a, X>,
    pub planes: Planes<'a>,
    pub channels: Range<usize>,
    /// The affine coefficients of these channels.
    pub affine: &'a [Affine],
    pub tile: PlaneTile,
}

impl<G: Element, X: Element> SumsTile<'_, G, X> {
    /// Writes both sums of every channel.
    pub fn sums(&self, to: &mut [[f64; 2]]) {
        Scratch::lend(|scratch| {
            Arch::new().dispatch(PlaneSumsKernel { tile: self, totals: &mut *to, scratch })
        });
        for (channel, to) in self.channels.clone().zip(to) {
            if !(to[0].is_finite() && to[1].is_finite()) {
                let runs = self.tile.samples.clone().map(|sample| self.run(sample, channel));
                let pivot = self.affine[channel - self.channels.start][0];
                let again = in_f64(self.g, self.upstream, runs, &self.params(), pivot);
                replace_not_finite(to, again);
            }
        }
    }

    /// Where a channel's values in a sample lie.
    fn run(&self, sample: usize, channel: usize) -> Range<usize> {
        let start = self.planes.run(sample, channel).start;
        let positions = self.planes.counted(sample, &self.tile.positions);
        start + positions.start..start + positions.end
    }

    fn params(&self) -> ChannelParams<'_, 3> {
        ChannelParams::of_planes(
            self.planes.channels,
            self.planes.len,
            self.channels.start,
            self.affine,
        )
    }
}

/// Both sums of some channels of a tile.
///
/// ```text
/// for piece of at most 1024 values of the tile, sample by sample:
///     x, g ← the piece as f32               where they lie, or widened into blocks
///     gate g by the activation, if there is one: v = (x − pivot)·scale + shift, or the mask
///     for channel in the piece:
///         prefetch the channel's x and g in the next sample, if runs are short
///         sums[channel] += Σg, Σ g·(x − pivot)                see `Sums`
/// totals ← sums over their lanes, in f64
/// ```
///
/// The reasons are those of the statistics (`PlaneStatsKernel`). Memory-bound all the more: two
/// tensors are read for as many sums. The gate costs a pass over two blocks in the first cache, and
/// where there is no activation nothing is copied.
struct PlaneSumsKernel<'t, 'a, G, X> {
    tile: &'t SumsTile<'a, G, X>,
    totals: &'t mut [[f64; 2]],
    scratch: &'t mut Scratch,
}

impl<G: Element, X: Element> WithSimd for PlaneSumsKernel<'_, '_, G, X> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let SumsTile { g: gradients, upstream, planes, channels, affine, tile } = self.tile;
        let params = self.tile.params();
        let mut sums = vec![Sums::ZERO; self.totals.len()];
        let Scratch { x: x_to, g: g_to, v, residual, .. } = self.scratch;
        for piece in planes.pieces(tile, channels) {
            let run = Run { at: piece.at, n: piece.values() };
            let to = [&mut x_to.0[..], &mut g_to.0[..]];
            let [x, g] = upstream.read(simd, *gradients, run, &params, [v, residual], to);
            for (k, channel) in piece.channels.enumerate() {
                let [pivot, ..] = affine[channel - channels.start];
                let sums = &mut sums[channel - channels.start];
                if let Some(next) = piece.prefetch {
                    upstream.prefetch(*gradients, next + k * piece.len, piece.len);
                }
                sums.add_products(simd, &g[k * piece.len..], &x[k * piece.len..], piece.len, pivot);
            }
        }
        for (totals, sums) in self.totals.iter_mut().zip(sums) {
            *totals = sums.totals();
        }
    }
}

/// One tile of columns.
struct ColumnTileSums<'t, 'a, G, X> {
    g: Gradients<'a, G>,
    upstream: Upstream<'a, X>,
    columns: Columns<'a>,
    tile: &'t ColumnTile,
    /// Of all channels of the activation.
    params: &'t ChannelParams<'t, 3>,
    affine: &'t [Affine],
}

impl<G: Element, X: Element> ColumnTileSums<'_, '_, G, X> {
    /// Both sums of the tile's channels.
    fn sums(&self) -> Vec<[f64; 2]> {
        let affine = &self.affine[self.columns.channels(&self.tile.columns)];
        let pivots: Vec<f32> = affine.iter().map(|[pivot, ..]| *pivot).collect();
        let mut sums = ColumnSums::new(by_column(&pivots, self.columns, self.tile.fold));
        Arch::new().dispatch(ColumnSumsKernel { tile: self, sums: &mut sums });
        let mut totals = totals(&sums, self.columns, affine.len());
        for (channel, total) in totals.iter_mut().enumerate() {
            if !(total[0].is_finite() && total[1].is_finite()) {
                let runs = self.addresses(channel).map(|at| at..at + 1);
                let again = in_f64(self.g, self.upstream, runs, self.params, affine[channel][0]);
                replace_not_finite(total, again);
            }
        }
        totals
    }

    /// Where the values of one of the tile's channels lie, row by row.
    fn addresses(&self, channel: usize) -> impl Iterator<Item = usize> {
        let period = self.tile.columns.len();
        let repeat = self.columns.repeat;
        let rows = self.columns.rows(self.tile, self.upstream.x);
        rows.flat_map(move |(start, row)| {
            (0..row.len())
                .filter(move |column| column % period / repeat == channel)
                .map(move |column| start + column)
        })
    }
}

/// Both sums of every column of a tile.
///
/// ```text
/// for patch of at most 512 columns and 16 rows:
///     partial ← 0                           4 KB: two f32 for each column
///     for 1 row or 4 rows of the patch:
///         prefetch x and g of as many rows of the next patch
///         x, g ← these rows as f32;  gate g by the activation, if there is one
///         partial += g, g·(x − pivot)       see `simd::columns`
///     sums += partial                       f32 to f64, 16 rows deep
/// ```
///
/// As `ColumnStatsKernel`, but from memory one row at a time, of any type: x and g are as many
/// streams as a core keeps up with. Folded rows are one run of memory, which the hardware
/// prefetcher follows, so that nothing is prefetched by software.
struct ColumnSumsKernel<'k, 't, 'a, G, X> {
    tile: &'k ColumnTileSums<'t, 'a, G, X>,
    sums: &'k mut ColumnSums,
}

impl<G: Element, X: Element> WithSimd for ColumnSumsKernel<'_, '_, '_, G, X> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let ColumnTileSums { g, upstream, columns, tile, params, .. } = *self.tile;
        let sums = self.sums;
        let mut v = Block::ZERO;
        let mut residual = Block::ZERO;
        let bytes = upstream.x.len() * (size_of::<X>() + size_of::<G>());
        let at_once = if bytes > LAST_CACHE_BYTES { 1 } else { ROWS };
        let mut x_to = [[0.0; PATCH_COLUMNS]; ROWS];
        let mut g_to = [[0.0; PATCH_COLUMNS]; ROWS];
        let patches = columns.patches(tile);
        for (patch, next) in patches.clone().zip(patches.skip(1).map(Some).chain([None])) {
            let mut of_patch = PatchSums::new(patch.column, patch.len);
            let next = next.filter(|_| tile.fold == 1);
            let mut prefetched =
                next.iter().flat_map(|next| next.starts().iter().map(|start| (*start, next.len)));
            for starts in patch.starts().chunks(at_once) {
                for (start, len) in prefetched.by_ref().take(at_once) {
                    upstream.prefetch(g, start, len);
                }
                let mut xs: [&[f32]; ROWS] = [&[]; ROWS];
                let mut gs: [&[f32]; ROWS] = [&[]; ROWS];
                let rows = xs.iter_mut().zip(&mut gs).zip(&mut x_to).zip(&mut g_to).zip(starts);
                for ((((x_row, g_row), x_to), g_to), start) in rows {
                    let row = Run { at: *start, n: patch.len };
                    let scratch = [&mut v, &mut residual];
                    let to = [&mut x_to[..], &mut g_to[..]];
                    [*x_row, *g_row] = upstream.read(simd, g, row, params, scratch, to);
                }
                let rows = starts.len();
                sums.add_products(simd, &mut of_patch, &gs[..rows], &xs[..rows]);
            }
            sums.take(&of_patch);
        }
    }
}

/// Both sums in f64, for products that f32 does not hold.
fn in_f64<G: Element, X: Element>(
    g: Gradients<'_, G>,
    upstream: Upstream<'_, X>,
    runs: impl Iterator<Item = Range<usize>>,
    params: &ChannelParams<'_, 3>,
    pivot: f32,
) -> [f64; 2] {
    let mut scratch = Scratch::new();
    let Scratch { x: x_to, g: g_to, v, residual, .. } = &mut scratch;
    let mut sums = [0.0; 2];
    for run in runs {
        for start in run.clone().step_by(BLOCK) {
            let n = BLOCK.min(run.end - start);
            let block = Run { at: start, n };
            let to = [&mut x_to.0[..], &mut g_to.0[..]];
            let [x, g] = upstream.read(Scalar::new(), g, block, params, [v, residual], to);
            for (x, g) in x[..n].iter().zip(&g[..n]) {
                sums[0] += f64::from(*g);
                sums[1] += f64::from(*g) * (f64::from(*x) - f64::from(pivot));
            }
        }
    }
    sums
}
