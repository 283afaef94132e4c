//! The gradients of x and of the residual: grad_input and grad_residual.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::{AffinePass, add, is_long, with_stores};
use crate::dtype::Element;
use crate::epilogue::Epilogue;
use crate::host::block_io::{
    Block, Gradients, Output, Scratch, prefetch_ahead, read, spread_bits, write_zeros,
};
use crate::host::channel_params::{ChannelParams, LaneParams, Pass};
use crate::host::curves;
use crate::host::intrinsics::{NonTemporalStores, prefetch};
use crate::host::traversal::Spans;

/// scale·(g − (A/N + ((x − pivot) − rest)·projection)); without the part of x where the statistics
/// are constants, so that a value that is not finite keeps to itself.
///
/// Two loads, six operations and a store for a register's width of values; five coefficients in
/// registers, or five more loads. The end of a part is as in [`AffinePass`]. `batch_statistics` is
/// the same for a whole call, so that LLVM may take it out of the loop.
struct GradientPass<'p, S> {
    simd: S,
    batch_statistics: bool,
    g: &'p [f32],
    x: &'p [f32],
    to: &'p mut [f32],
}

impl<S: Simd> Pass<S, 6> for GradientPass<'_, S> {
    #[inline(always)]
    fn part(&mut self, values: Range<usize>, params: impl LaneParams<S, 6>) {
        let simd = self.simd;
        let n = values.len();
        let g = &self.g[values.start..];
        let x = &self.x[values.start..];
        let to = &mut self.to[values.start..];
        let gs = S::as_simd_f32s(g).0;
        let xs = S::as_simd_f32s(x).0;
        let tos = S::as_mut_simd_f32s(to).0;
        let count = n.div_ceil(S::F32_LANES).min(gs.len()).min(xs.len()).min(tos.len());
        let gs = &gs[..count];
        let xs = &xs[..count];
        let tos = &mut tos[..count];
        let registers = params.cut(count);
        for i in 0..count {
            let [pivot, scale, _, rest, mean_dy, projection] = registers.register(i);
            let from_mean = simd.sub_f32s(simd.sub_f32s(xs[i], pivot), rest);
            let of_batch = simd.add_f32s(mean_dy, simd.mul_f32s(from_mean, projection));
            tos[i] = simd.mul_f32s(
                scale,
                simd.sub_f32s(gs[i], if self.batch_statistics { of_batch } else { mean_dy }),
            );
        }
        for i in count * S::F32_LANES..n {
            let [pivot, scale, _, rest, mean_dy, projection] = params.value(i);
            let of_batch = mean_dy + ((x[i] - pivot) - rest) * projection;
            to[i] = scale * (g[i] - if self.batch_statistics { of_batch } else { mean_dy });
        }
    }
}

/// g·act'(v): with two slopes g·(v > 0 ? 1 : slope), and 0 for a slope of 0 also where g is
/// infinite.
#[inline(always)]
fn gate(g: &mut [f32], v: &[f32], epilogue: Epilogue) {
    let slope = epilogue.slope();
    if epilogue.curve().is_some() {
        return curves::gate(g, v, epilogue.activation);
    }
    if slope == 0.0 {
        for (g, v) in g.iter_mut().zip(v) {
            *g = if *v > 0.0 { *g } else { 0.0 };
        }
    } else {
        for (g, v) in g.iter_mut().zip(v) {
            *g = if *v > 0.0 { *g } else { slope * *g };
        }
    }
}

/// `n` values from address `at` on, at most a block.
#[derive(Clone, Copy)]
pub(in crate::host) struct Run {
    pub at: usize,
    pub n: usize,
}

/// x, and what decides where the activation is active: its mask, or v formed again.
#[derive(Clone, Copy)]
pub(in crate::host) struct Upstream<'a, X> {
    pub x: &'a [X],
    /// Where it decides on v.
    pub residual: Option<&'a [X]>,
    /// Forward's, which decides where there is one.
    pub mask: Option<&'a [u32]>,
    pub epilogue: Epilogue,
}

impl<X: Element> Upstream<'_, X> {
    /// Multiplies the g of the values from address `at` on, at most a block of them, by the
    /// activation's derivative: 1 where it is active, the slope elsewhere.
    ///
    /// Where there is no mask, v is formed again by the loop of forward, so that its sign has the
    /// same bits: cheaper than a tensor of signs in memory.
    #[inline(always)]
    pub fn gate<S: Simd, const K: usize>(
        &self,
        simd: S,
        at: usize,
        x: &[f32],
        params: &ChannelParams<'_, K>,
        [v, residual_scratch]: [&mut Block; 2],
        g: &mut [f32],
    ) {
        let n = g.len();
        if let Some(mask) = self.mask {
            spread_bits(mask, at, &mut v.0[..n]);
            return gate(g, &v.0[..n], self.epilogue);
        }
        params.each(simd, at, n, &mut AffinePass { simd, x, v: &mut v.0 });
        let v = &mut v.0[..n];
        if let Some(residual) = self.residual {
            add(v, read(&residual[at..], n, &mut residual_scratch.0));
        }
        gate(g, v, self.epilogue);
    }

    /// Prefetches the inputs that [`read`](Self::read) always reads.
    #[inline(always)]
    pub fn prefetch<G: Element>(&self, g: Gradients<'_, G>, at: usize, n: usize) {
        prefetch(&self.x[at..at + n]);
        g.prefetch(at, n);
    }

    /// x, and g before the activation, of a run: where they lie or in `to`.
    #[inline(always)]
    pub fn read<'s, S: Simd, G: Element>(
        &'s self,
        simd: S,
        g: Gradients<'s, G>,
        Run { at, n }: Run,
        params: &ChannelParams<'_, 3>,
        scratch: [&mut Block; 2],
        [x_to, g_to]: [&'s mut [f32]; 2],
    ) -> [&'s [f32]; 2] {
        let x = read(&self.x[at..], n, x_to);
        if !self.epilogue.activates() {
            return [x, g.read(at, n, g_to)];
        }
        g.copy(at, &mut g_to[..n]);
        self.gate(simd, at, x, params, scratch, &mut g_to[..n]);
        [x, g_to]
    }
}

/// A run of the gradients of x and of the residual, from address `at` on.
pub(in crate::host) struct GradInput<'a, G, X> {
    /// `None` in place: dx holds them.
    pub g: Option<Gradients<'a, G>>,
    pub upstream: Upstream<'a, X>,
    pub dx: &'a mut [X],
    pub grad_residual: Option<&'a mut [X]>,
    pub at: usize,
}

impl<G: Element, X: Element> GradInput<'_, G, X> {
    /// As [`run`](Self::run), span by span where samples are padded: what does not count is not
    /// read, and its gradients become 0.
    pub fn run_spans(
        mut self,
        spans: Option<Spans<'_>>,
        params: &ChannelParams<'_, 6>,
        batch_statistics: bool,
        is_large: bool,
        scratch: &mut Scratch,
    ) {
        let Some(spans) = spans else {
            return self.run(params, batch_statistics, is_large, scratch);
        };
        let at = self.at;
        for (span, counts) in spans.each(at..at + self.dx.len()) {
            let run = span.start - at..span.end - at;
            let is_large = is_large && is_long(&span);
            let dx = &mut self.dx[run.clone()];
            let mut grad_residual = self.grad_residual.as_deref_mut().map(|to| &mut to[run]);
            if !counts {
                let non_temporal = is_large && self.g.is_some();
                write_zeros(dx, non_temporal);
                grad_residual.iter_mut().for_each(|to| write_zeros(to, non_temporal));
                continue;
            }
            let Self { g, upstream, .. } = self;
            let task = GradInput { g, upstream, dx, grad_residual, at: span.start };
            task.run(params, batch_statistics, is_large, scratch);
        }
    }

    /// dx = scale·(g − (A/N + ((x − pivot) − rest)·projection)), and g itself for the residual. Of
    /// a large tensor dx is written with non-temporal stores, unless it holds g.
    pub fn run(
        self,
        params: &ChannelParams<'_, 6>,
        batch_statistics: bool,
        is_large: bool,
        scratch: &mut Scratch,
    ) {
        let non_temporal = is_large && self.g.is_some();
        with_stores(non_temporal, |stores| GradInputKernel {
            run: self,
            params,
            batch_statistics,
            is_large,
            stores,
            scratch,
        });
    }
}

/// The loop that writes grad_input and grad_residual.
///
/// ```text
/// for block of 1024 values, or 256 with non-temporal stores of f32:
///     prefetch x and g 4 KB ahead, if the tensor is large
///     x, g ← the block as f32               where they lie, or widened, or copied to be gated
///     gate g by the activation, if there is one
///     grad_residual ← g                     if it is wanted
///     dx ← scale·(g − (A/N + ((x − pivot) − rest)·projection))
/// ```
///
/// As `NormalizeKernel`, with two tensors to read for one or two to write: memory-bound, block by
/// block in the first cache, software prefetching and non-temporal stores for large tensors. g is
/// copied into a block only if something changes it or writes it elsewhere.
struct GradInputKernel<'k, 'a, G, X> {
    run: GradInput<'a, G, X>,
    params: &'k ChannelParams<'k, 6>,
    batch_statistics: bool,
    is_large: bool,
    stores: Option<NonTemporalStores>,
    scratch: &'k mut Scratch,
}

impl<G: Element, X: Element> WithSimd for GradInputKernel<'_, '_, G, X> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let GradInput { g: gradients, upstream, dx, grad_residual, at } = self.run;
        let Scratch { x: x_scratch, residual, g: g_scratch, v, to: staged } = self.scratch;
        let len = dx.len();
        let mut dx = Output::new(dx, self.stores, gradients.is_none());
        // Of another alignment than dx it has no whole cache lines at the same places, and is
        // stored as usual.
        let mut grad_residual = grad_residual.map(|values| Output::new(values, self.stores, true));
        for block in dx.blocks(len) {
            let start = at + block.start;
            let n = block.len();
            if self.is_large {
                prefetch_ahead(&upstream.x[at..at + len], &block);
                match gradients {
                    Some(gradients) => gradients.prefetch_ahead(at..at + len, &block),
                    None => dx.prefetch_ahead(&block),
                }
            }
            let x = read(&upstream.x[start..], n, &mut x_scratch.0);
            let activates = upstream.epilogue.activates();
            let g = match gradients {
                Some(gradients) if !activates && grad_residual.is_none() => {
                    gradients.read(start, n, &mut g_scratch.0)
                }
                _ => {
                    match gradients {
                        Some(gradients) => gradients.copy(start, &mut g_scratch.0[..n]),
                        None => dx.copy(&block, g_scratch),
                    }
                    if activates {
                        let scratch = [&mut *v, &mut *residual];
                        let gated = &mut g_scratch.0[..n];
                        upstream.gate(simd, start, x, self.params, scratch, gated);
                    }
                    if let Some(grad_residual) = &mut grad_residual {
                        grad_residual.write(block.clone(), g_scratch);
                    }
                    &g_scratch.0
                }
            };
            let batch_statistics = self.batch_statistics;
            let to = dx.target(&block, staged);
            let mut pass = GradientPass { simd, batch_statistics, g, x, to };
            self.params.each(simd, start, n, &mut pass);
            dx.write(block, staged);
        }
    }
}
