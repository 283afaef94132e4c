//! Double backward: the sums Σv, Σ v·(x − pivot) and Σ v·p of every channel. v is the cotangent of
//! grad_input. `outputs` writes the gradients.
//!
//! All that is summed is summed in f64, value by value: no product leaves its range. v and g lie as
//! x does.

mod outputs;

pub(crate) use outputs::{DoubleOutputs, double_input};

use std::ops::Range;
use std::sync::OnceLock;

use pulp::{Arch, Simd, WithSimd};

use super::apply::{Affine, Run, Upstream};
use super::block_io::{Gradients, Scratch, read};
use super::channel_params::ChannelParams;
use super::rank::{self, GradOutput, Layer};
use super::reduce::Reduction;
use super::threads::Threads;
use super::traversal::{Columns, PATCH_COLUMNS, PlaneTile, Planes, Traversal};
use crate::dtype::Element;
use crate::stats::GradCentering;

/// The inputs of one rank in double backward.
#[derive(Clone, Copy)]
pub(crate) struct DoubleRank<'a, X> {
    pub upstream: rank::Upstream<'a, X>,
    /// grad_output, which lies as x does.
    pub g: &'a [X],
    /// The cotangent of grad_input; `None` for zeros.
    pub v: Option<&'a [X]>,
    pub layer: Layer<'a>,
}

/// Σv, Σ v·(x − pivot) and Σ v·(g − mean_dy − (x − mean)·projection) of every channel.
pub(crate) fn local_double_sums<X: Element>(
    rank: DoubleRank<'_, X>,
    centering: &[GradCentering],
    threads: &Threads,
) -> Vec<[f64; 3]> {
    let DoubleRank { upstream, g, v, layer } = rank;
    let shape = upstream.shape;
    let Some(v) = v.filter(|v| !v.is_empty()) else { return vec![[0.0; 3]; shape.channels()] };
    let coefficients = layer.grad_coefficients(0, centering);
    let affine: Vec<Affine> = coefficients.iter().map(|of| [of[0], of[1], of[2]]).collect();
    let traversal = Traversal::of(shape);
    let reduction = Reduction {
        traversal,
        channels: shape.channels(),
        bytes: size_of_val(v),
        empty: [0.0; 3],
        threads,
    };
    let sources = Sources {
        g: GradOutput { values: g, shape }.like(shape),
        upstream: upstream.with(layer.epilogue),
        v,
        coefficients: &coefficients,
    };
    let params = OnceLock::new();
    let of_planes = |planes: Planes, channels: Range<usize>, tile: PlaneTile, part: &mut [_]| {
        let affine = &affine[channels.clone()];
        let params = ChannelParams::of_planes(planes.channels, planes.len, channels.start, affine);
        let pieces = planes.pieces(&tile, &channels);
        let runs = pieces.map(|piece| {
            let first = piece.channels.start;
            let len = piece.len;
            let values = piece.values();
            (Run { at: piece.at, n: values }, move |i: usize| first + i / len)
        });
        sources.sum(runs, &params, channels.start, part);
    };
    let of_columns = |columns: Columns, tile: &super::traversal::ColumnTile| {
        let params = params.get_or_init(|| ChannelParams::new(traversal, &affine));
        let channels = columns.channels(&tile.columns);
        let mut part = vec![[0.0; 3]; channels.len()];
        let period = tile.columns.len();
        let first = channels.start;
        let runs = columns.patches(tile).flat_map(|patch| {
            let column = patch.column;
            let starts: Vec<usize> = patch.starts().to_vec();
            starts.into_iter().map(move |at| {
                let channel = move |i: usize| first + (column + i) % period / columns.repeat;
                (Run { at, n: patch.len.min(PATCH_COLUMNS) }, channel)
            })
        });
        sources.sum(runs, params, channels.start, &mut part);
        part
    };
    reduction.reduce(of_planes, of_columns, |to, tile| {
        for (to, tile) in to.iter_mut().flatten().zip(tile.iter().flatten()) {
            *to += tile;
        }
    })
}

/// The values to sum, and the coefficients of every channel.
#[derive(Clone, Copy)]
struct Sources<'a, X> {
    g: Gradients<'a, X>,
    upstream: Upstream<'a, X>,
    v: &'a [X],
    coefficients: &'a [[f32; 6]],
}

impl<X: Element> Sources<'_, X> {
    /// Adds the values of runs, at most a block each, to the sums of their channels, of which `to`
    /// begins with `first`.
    fn sum<C: Fn(usize) -> usize>(
        &self,
        runs: impl Iterator<Item = (Run, C)>,
        params: &ChannelParams<'_, 3>,
        first: usize,
        to: &mut [[f64; 3]],
    ) {
        Scratch::lend(|scratch| {
            Arch::new().dispatch(SumsKernel { sources: self, runs, params, first, to, scratch })
        });
    }
}

/// ```text
/// for run of at most 1024 values:
///     x, v ← the run as f32;  g likewise, gated by the activation
///     for value:  sums[channel] += v, v·(x − pivot), v·(g − mean_dy − (x − mean)·projection)
/// ```
///
/// 1. The blocks of x, g and v stay in the first cache, 4 KB each.
/// 2. The sums are f64 from the first addition on. So no pivot is guessed and nothing is summed
///    again.
/// 3. One loop serves planes and columns, because it looks the channel up for every value. It adds
///    value by value, not by registers: double backward is rare beside backward.
struct SumsKernel<'k, 'a, X, R> {
    sources: &'k Sources<'a, X>,
    runs: R,
    params: &'k ChannelParams<'k, 3>,
    first: usize,
    to: &'k mut [[f64; 3]],
    scratch: &'k mut Scratch,
}

impl<X, R, C> WithSimd for SumsKernel<'_, '_, X, R>
where
    X: Element,
    R: Iterator<Item = (Run, C)>,
    C: Fn(usize) -> usize,
{
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { sources, runs, params, first, to, scratch } = self;
        let Scratch { x: x_to, g: g_to, v: signs, residual, to: v_to } = scratch;
        for (run, channel_of) in runs {
            let blocks = [&mut x_to.0[..], &mut g_to.0[..]];
            let [x, g] =
                sources.upstream.read(simd, sources.g, run, params, [signs, residual], blocks);
            let v = read(&sources.v[run.at..], run.n, &mut v_to.0);
            for i in 0..run.n {
                let channel = channel_of(i);
                let [pivot, _, _, rest, mean_dy, projection] =
                    sources.coefficients[channel].map(f64::from);
                let [x, g, v] = [x[i], g[i], v[i]].map(f64::from);
                let deviation = x - pivot;
                let sums = &mut to[channel - first];
                sums[0] += v;
                sums[1] += v * deviation;
                sums[2] += v * (g - mean_dy - (deviation - rest) * projection);
            }
        }
    }
}
