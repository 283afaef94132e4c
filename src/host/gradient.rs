//! Gradient sums of every channel: Σg and Σ g·(x − mean), tile by tile about the pivot that forward
//! sent.

use std::ops::Range;
use std::sync::OnceLock;

use pulp::{Arch, Scalar, Simd, WithSimd};

use super::apply::{Affine, Upstream};
use super::block_io::{BLOCK, Block, Gradients, Scratch};
use super::channel_params::ChannelParams;
use super::reduce::{PlanePart, reduce};
use super::simd::{ColumnSums, PatchSums, Sums};
use super::statistics::{by_column, totals};
use super::threads::Threads;
use super::traversal::{ColumnTile, Columns, PATCH_COLUMNS, Planes, Traversal};
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
    if upstream.x.is_empty() {
        return vec![[0.0; 2]; shape.channels()];
    }
    let traversal = Traversal::of(shape);
    // Of all channels: tiles of planes have those of their own.
    let params = OnceLock::new();
    let of_planes = |planes, channels: Range<usize>, tile, part: &mut [[f64; 2]]| {
        PlaneTile { g, upstream, planes, affine: &affine[channels.clone()], channels, tile }
            .sums(part);
    };
    let of_columns = |columns, tile: &ColumnTile| {
        column_sums(
            (g, upstream),
            columns,
            tile,
            params.get_or_init(|| ChannelParams::new(traversal, affine)),
            affine,
        )
    };
    let all = (traversal, shape.channels(), size_of_val(upstream.x));
    reduce(all, [0.0; 2], threads, of_planes, of_columns, add)
}

pub(super) fn add(sums: &mut [[f64; 2]], tile: &[[f64; 2]]) {
    for ([a, b], [more_a, more_b]) in sums.iter_mut().zip(tile) {
        *a += more_a;
        *b += more_b;
    }
}

/// One tile of neighbouring channels.
pub(super) struct PlaneTile<'a, G, X> {
    pub g: Gradients<'a, G>,
    pub upstream: Upstream<'a, X>,
    pub planes: Planes,
    pub channels: Range<usize>,
    /// The affine coefficients of these channels.
    pub affine: &'a [Affine],
    pub tile: PlanePart,
}

impl<G: Element, X: Element> PlaneTile<'_, G, X> {
    /// Writes both sums of every channel.
    pub fn sums(&self, to: &mut [[f64; 2]]) {
        Scratch::lend(|scratch| {
            Arch::new().dispatch(AddAll { tile: self, totals: &mut *to, scratch })
        });
        for (channel, to) in self.channels.clone().zip(to) {
            if !(to[0].is_finite() && to[1].is_finite()) {
                let runs = self.tile.0.clone().map(|sample| self.run(sample, channel));
                let pivot = self.affine[channel - self.channels.start][0];
                *to = in_f64(self.g, self.upstream, runs, &self.params(), pivot);
            }
        }
    }

    /// Where a channel's values in a sample lie.
    fn run(&self, sample: usize, channel: usize) -> Range<usize> {
        let run = self.planes.run(sample, channel);
        run.start + self.tile.1.start..run.start + self.tile.1.end
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

struct AddAll<'t, 'a, G, X> {
    tile: &'t PlaneTile<'a, G, X>,
    totals: &'t mut [[f64; 2]],
    scratch: &'t mut Scratch,
}

impl<G: Element, X: Element> WithSimd for AddAll<'_, '_, G, X> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let PlaneTile { g: gradients, upstream, planes, channels, affine, tile } = self.tile;
        let params = self.tile.params();
        let mut sums = vec![Sums::ZERO; self.totals.len()];
        let Scratch { x: x_to, g: g_to, v, residual, .. } = self.scratch;
        for piece in planes.pieces(tile, channels) {
            let (at, to) = ((piece.at, piece.values()), [&mut x_to.0[..], &mut g_to.0[..]]);
            let [x, g] = upstream.read(simd, *gradients, at, &params, [v, residual], to);
            for (k, channel) in piece.channels.enumerate() {
                let ([pivot, ..], sums) =
                    (affine[channel - channels.start], &mut sums[channel - channels.start]);
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

/// Both sums of the channels of a tile of columns.
fn column_sums<G: Element, X: Element>(
    (g, upstream): (Gradients<'_, G>, Upstream<'_, X>),
    columns: Columns,
    tile: &ColumnTile,
    params: &ChannelParams<'_, 3>,
    affine: &[Affine],
) -> Vec<[f64; 2]> {
    let period = tile.columns.len();
    let channel_of = |column: usize| column % period / columns.repeat;
    let channels = columns.channels(&tile.columns);
    let affine = &affine[channels];
    let pivots: Vec<f32> = affine.iter().map(|[pivot, ..]| *pivot).collect();
    let mut sums = ColumnSums::new(by_column(&pivots, columns, tile.fold));
    Arch::new().dispatch(AddRows { g, upstream, columns, tile, params, sums: &mut sums });
    let mut totals = totals(&sums, columns, affine.len());
    for (channel, total) in totals.iter_mut().enumerate() {
        if !(total[0].is_finite() && total[1].is_finite()) {
            let of_channel = |start: usize, n: usize| {
                (0..n)
                    .filter(move |column| channel_of(*column) == channel)
                    .map(move |column| start + column)
            };
            let rows = columns.rows(tile, upstream.x).map(|(start, row)| (start, row.len()));
            let runs = rows.flat_map(|(start, n)| of_channel(start, n)).map(|at| at..at + 1);
            *total = in_f64(g, upstream, runs, params, affine[channel][0]);
        }
    }
    totals
}

struct AddRows<'t, 'a, G, X> {
    g: Gradients<'a, G>,
    upstream: Upstream<'a, X>,
    columns: Columns,
    tile: &'t ColumnTile,
    params: &'t ChannelParams<'t, 3>,
    sums: &'t mut ColumnSums,
}

impl<G: Element, X: Element> WithSimd for AddRows<'_, '_, G, X> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { g, upstream, columns, tile, params, sums } = self;
        let (mut v, mut residual) = (Block::ZERO, Block::ZERO);
        let [mut x_to, mut g_to] = [[0.0; PATCH_COLUMNS]; 2];
        let patches = columns.patches(tile);
        for (patch, next) in patches.clone().zip(patches.skip(1).map(Some).chain([None])) {
            let mut of_patch = PatchSums::new(patch.column, patch.len);
            // One run of memory goes on as the processor expects.
            let next = next.filter(|_| tile.fold == 1);
            let mut prefetched =
                next.iter().flat_map(|next| next.starts().iter().map(|start| (*start, next.len)));
            // Two tensors are as many runs of memory as a processor follows: one row at a time.
            for start in patch.starts() {
                if let Some((start, len)) = prefetched.next() {
                    upstream.prefetch(g, start, len);
                }
                let at = (*start, patch.len);
                let [x, g] = upstream.read(
                    simd,
                    g,
                    at,
                    params,
                    [&mut v, &mut residual],
                    [&mut x_to, &mut g_to],
                );
                sums.add_products(simd, &mut of_patch, &[g], &[x]);
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
            let to = [&mut x_to.0[..], &mut g_to.0[..]];
            let [x, g] = upstream.read(Scalar::new(), g, (start, n), params, [v, residual], to);
            for (x, g) in x[..n].iter().zip(&g[..n]) {
                sums[0] += f64::from(*g);
                sums[1] += f64::from(*g) * (f64::from(*x) - f64::from(pivot));
            }
        }
    }
    sums
}
