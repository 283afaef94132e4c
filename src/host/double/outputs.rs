//! The gradients with respect to x and to grad_output.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use super::DoubleRank;
use crate::dtype::Element;
use crate::host::apply::{Affine, RUN_VALUES, Run, Upstream};
use crate::host::block_io::{BLOCK, Block, Gradients, Scratch, read};
use crate::host::channel_params::{ChannelParams, LaneParams, Pass};
use crate::host::convert::narrow;
use crate::host::rank::{GradOutput, Layer};
use crate::host::threads::Threads;
use crate::host::traversal::Traversal;
use crate::stats::DoubleCentering;

/// The gradients that double backward writes, of every value of a rank.
pub(crate) struct DoubleOutputs<'a, X> {
    pub input: Option<&'a mut [X]>,
    pub grad_output: Option<&'a mut [X]>,
}

/// Writes the gradients with respect to x and to grad_output, where they are wanted.
pub(crate) fn double_input<X: Element>(
    rank: DoubleRank<'_, X>,
    outputs: DoubleOutputs<'_, X>,
    centering: &[DoubleCentering],
    threads: &Threads,
) {
    let DoubleRank { upstream, g, v, layer } = rank;
    if upstream.x.is_empty() {
        return;
    }
    let coefficients = layer.double_coefficients(centering);
    let traversal = Traversal::of(upstream.shape);
    let params = ChannelParams::new(traversal, &coefficients);
    let affine: Vec<Affine> = coefficients.iter().map(|of| [of[0], of[1], of[2]]).collect();
    let affine = ChannelParams::new(traversal, &affine);
    let g = GradOutput { values: g, shape: upstream.shape }.like(upstream.shape);
    let upstream = upstream.with(layer.epilogue);
    let kernel = |input: bool| Outputs { upstream, g, v, affine: &affine, params: &params, input };
    for (output, input) in [(outputs.input, true), (outputs.grad_output, false)] {
        let Some(output) = output else { continue };
        let bytes = size_of_val(output);
        let runs = output.chunks_mut(RUN_VALUES).enumerate();
        threads.for_each(4 * bytes, runs, |(i, output)| {
            Scratch::lend(|scratch| {
                let outputs = kernel(input);
                Arch::new().dispatch(OutputKernel { outputs, output, at: i * RUN_VALUES, scratch });
            });
        });
    }
}

/// The inputs of one gradient: of the gradient of x with `input`, else of that of grad_output.
struct Outputs<'a, X> {
    upstream: Upstream<'a, X>,
    g: Gradients<'a, X>,
    v: Option<&'a [X]>,
    affine: &'a ChannelParams<'a, 3>,
    params: &'a ChannelParams<'a, COEFFICIENTS>,
    input: bool,
}

/// Coefficients of a channel: those of [`Affine`], then rest and inv_std, and of
/// [`DoubleCentering`] all from mean_v on.
const COEFFICIENTS: usize = 16;

/// ```text
/// for block of 1024 values:
///     x, g, v ← the block as f32;  g gated by the activation
///     output ← the gradient                 formula: `double_gradient`
/// ```
///
/// 1. The blocks stay in the first cache, 4 KB each, so conversion, gate and gradient are loops
///    over the same lines.
/// 2. Each gradient is a pass by itself, so one that is not wanted costs nothing.
/// 3. The 16 coefficients of a channel are constants of a part of a plane. In columns they lie in
///    rows beside the values, laid out once per call.
struct OutputKernel<'k, 'a, X> {
    outputs: Outputs<'a, X>,
    output: &'k mut [X],
    at: usize,
    scratch: &'k mut Scratch,
}

impl<X: Element> WithSimd for OutputKernel<'_, '_, X> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Outputs { upstream, g: gradients, v, affine, params, input } = self.outputs;
        let Scratch { x: x_to, g: g_to, v: signs, residual, to } = self.scratch;
        let mut v_to = Block::ZERO;
        for (i, output) in self.output.chunks_mut(BLOCK).enumerate() {
            let run = Run { at: self.at + i * BLOCK, n: output.len() };
            let x = read(&upstream.x[run.at..], run.n, &mut x_to.0);
            let v = match v {
                Some(v) => read(&v[run.at..], run.n, &mut v_to.0),
                None => &v_to.0,
            };
            if input {
                let g = &mut g_to.0[..run.n];
                gradients.copy(run.at, g);
                if upstream.epilogue.activates() {
                    upstream.gate(simd, run.at, x, affine, [signs, residual], g);
                }
                let mut pass = InputPass { x, g, v, to: &mut to.0 };
                params.each(simd, run.at, run.n, &mut pass);
            } else {
                let mut pass = GradOutputPass { x, v, to: &mut to.0 };
                params.each(simd, run.at, run.n, &mut pass);
                if upstream.epilogue.activates() {
                    let gated = &mut to.0[..run.n];
                    upstream.gate(simd, run.at, x, affine, [signs, residual], gated);
                }
            }
            narrow(&to.0[..run.n], output);
        }
    }
}

/// The gradient of x: us·(g − mean_dy) + shift − h·k1
/// − scale·(g_factor·(g − mean_dy) + v_factor·(v − mean_v) + h·k2).
struct InputPass<'p> {
    x: &'p [f32],
    g: &'p [f32],
    v: &'p [f32],
    to: &'p mut [f32],
}

impl<S: Simd> Pass<S, COEFFICIENTS> for InputPass<'_> {
    #[inline(always)]
    fn part(&mut self, values: Range<usize>, params: impl LaneParams<S, COEFFICIENTS>) {
        for (k, i) in values.enumerate() {
            let of = params.value(k);
            let [pivot, scale, _, rest, inv_std, mean_v, _, _, _, mean_dy, ..] = of;
            let [.., us, shift, k1, k2, g_factor, v_factor] = of;
            let h = ((self.x[i] - pivot) - rest) * inv_std;
            let g = self.g[i] - mean_dy;
            let v = self.v[i] - mean_v;
            let through_weight = scale * (g_factor * g + v_factor * v + h * k2);
            self.to[i] = (us * g + shift - h * k1) - through_weight;
        }
    }
}

/// The gradient of grad_output before the activation's slope: scale·(v − mean_v − h·mean_vh)
/// + u·h + q.
struct GradOutputPass<'p> {
    x: &'p [f32],
    v: &'p [f32],
    to: &'p mut [f32],
}

impl<S: Simd> Pass<S, COEFFICIENTS> for GradOutputPass<'_> {
    #[inline(always)]
    fn part(&mut self, values: Range<usize>, params: impl LaneParams<S, COEFFICIENTS>) {
        for (k, i) in values.enumerate() {
            let of = params.value(k);
            let [pivot, scale, _, rest, inv_std, mean_v, mean_vh, u, q, ..] = of;
            let h = ((self.x[i] - pivot) - rest) * inv_std;
            let v = (self.v[i] - mean_v) - h * mean_vh;
            self.to[i] = scale * v + (u * h + q);
        }
    }
}

impl Layer<'_> {
    /// The coefficients of both gradients of every channel.
    fn double_coefficients(self, centering: &[DoubleCentering]) -> Vec<[f32; COEFFICIENTS]> {
        let of = |(channel, of): (usize, &DoubleCentering)| {
            let center = of.center();
            let [pivot, scale, shift] = self.affine(channel, &center);
            let inv_std = center.inv_std * center.unit;
            let rest = center.rest / center.unit;
            [
                pivot,
                scale,
                shift,
                rest,
                inv_std,
                of.mean_v,
                of.mean_vh,
                of.u,
                of.q,
                of.mean_dy,
                of.us,
                of.shift,
                of.k1,
                of.k2,
                of.g_factor,
                of.v_factor,
            ]
        };
        centering.iter().enumerate().map(of).collect()
    }
}
