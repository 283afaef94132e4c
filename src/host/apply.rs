//! The kernels that write: y from x here, the gradients of x and of the residual in `gradient`.
//!
//! Each works on one run of memory, block by block, and knows by a value's address of which channel
//! it is. All are memory-bound: what they are about is that no value moves more often than it must,
//! and that reading, computing and writing overlap.

mod gradient;

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use super::block_io::{Output, Scratch, prefetch_ahead, read, set_bits, write_zeros};
use super::channel_params::{ChannelParams, LaneParams, Pass};
use super::curves;
use super::intrinsics::{NonTemporalStores, fenced};
use super::traversal::Spans;
use crate::dtype::Element;
use crate::epilogue::Epilogue;
pub(super) use gradient::{GradInput, Run, Upstream};

/// Elements of a run that one thread takes at once: 128 KB of f32, so that handing it out costs
/// nothing beside it.
pub(super) const RUN_VALUES: usize = 32 << 10;

/// The affine coefficients of a channel: pivot, scale and shift of v = (x − pivot)·scale + shift.
pub(super) type Affine = [f32; 3];
/// The gradient coefficients of a channel: those of [`Affine`], then rest, A/N and the projection.
pub(super) type GradCoefficients = [f32; 6];

/// v = (x − pivot)·scale + shift, without the residual.
///
/// ```text
/// for a register's width of values:     v ← (x − pivot)·scale + shift
/// ```
///
/// A load, three operations and a store. Coefficients are three registers for all values, or three
/// more loads where each column is of another channel. The last register may reach into the values
/// of the next part, whose turn comes later, so that a part of a block needs no scalar loop; only
/// the end of the memory does. Slices have one length, by which LLVM takes the checks of bounds out
/// of the loop (one or two stay where coefficients are by column) and unrolls it.
struct AffinePass<'p, S> {
    simd: S,
    x: &'p [f32],
    v: &'p mut [f32],
}

impl<S: Simd, const K: usize> Pass<S, K> for AffinePass<'_, S> {
    #[inline(always)]
    fn part(&mut self, values: Range<usize>, params: impl LaneParams<S, K>) {
        let simd = self.simd;
        let n = values.len();
        let x = &self.x[values.start..];
        let v = &mut self.v[values.start..];
        let xs = S::as_simd_f32s(x).0;
        let vs = S::as_mut_simd_f32s(v).0;
        let count = n.div_ceil(S::F32_LANES).min(xs.len()).min(vs.len());
        let xs = &xs[..count];
        let vs = &mut vs[..count];
        let registers = params.cut(count);
        for i in 0..count {
            let affine = registers.register(i);
            let scaled = simd.mul_f32s(simd.sub_f32s(xs[i], affine[0]), affine[1]);
            vs[i] = simd.add_f32s(scaled, affine[2]);
        }
        for i in count * S::F32_LANES..n {
            let affine = params.value(i);
            v[i] = (x[i] - affine[0]) * affine[1] + affine[2];
        }
    }
}

/// v + residual, where v lies.
#[inline(always)]
fn add(v: &mut [f32], residual: &[f32]) {
    for (v, residual) in v.iter_mut().zip(residual) {
        *v += residual;
    }
}

/// Runs a kernel with the best instructions of the processor, with non-temporal stores if they are
/// wanted.
///
/// A kernel is a type and not a closure: only what is inlined into it is compiled for those
/// instructions.
fn with_stores<K: WithSimd<Output = ()>>(
    non_temporal: bool,
    kernel: impl FnOnce(Option<NonTemporalStores>) -> K,
) {
    if non_temporal {
        fenced(|stores| Arch::new().dispatch(kernel(Some(stores))));
    } else {
        Arch::new().dispatch(kernel(None));
    }
}

/// Whether non-temporal stores pay for the fence behind a span of a padded sample.
pub(super) fn is_long(span: &Range<usize>) -> bool {
    span.len() >= 1024
}

/// A run of x, of the residual and of y, from address `at` on.
pub(super) struct Normalize<'a, X, Y> {
    /// `None` in place: y holds it.
    pub x: Option<&'a [X]>,
    pub residual: Option<&'a [X]>,
    pub y: &'a mut [Y],
    /// Bits of 0.
    pub mask: Option<&'a mut [u32]>,
    /// Which of them is the run's first value's.
    pub first_bit: usize,
    pub at: usize,
}

impl<X: Element, Y: Element> Normalize<'_, X, Y> {
    /// As [`run`](Self::run), span by span where samples are padded: what does not count is not
    /// read and becomes 0.
    pub fn run_spans(
        mut self,
        spans: Option<Spans<'_>>,
        params: &ChannelParams<'_, 3>,
        epilogue: Epilogue,
        is_large: bool,
        scratch: &mut Scratch,
    ) {
        let Some(spans) = spans else { return self.run(params, epilogue, is_large, scratch) };
        let at = self.at;
        for (span, counts) in spans.each(at..at + self.y.len()) {
            let start = span.start - at;
            let y = &mut self.y[start..span.end - at];
            if !counts {
                write_zeros(y, is_large && is_long(&span) && self.x.is_some());
                continue;
            }
            let task = Normalize {
                x: self.x.map(|x| &x[start..]),
                residual: self.residual.map(|residual| &residual[start..]),
                y,
                mask: self.mask.as_deref_mut(),
                first_bit: self.first_bit + start,
                at: span.start,
            };
            task.run(params, epilogue, is_large && is_long(&span), scratch);
        }
    }

    /// y = act(v). Of a large tensor y is written with non-temporal stores, unless it is x, whose
    /// cache lines are in the caches.
    pub fn run(
        self,
        params: &ChannelParams<'_, 3>,
        epilogue: Epilogue,
        is_large: bool,
        scratch: &mut Scratch,
    ) {
        let non_temporal = is_large && self.x.is_some();
        with_stores(non_temporal, |stores| NormalizeKernel {
            run: self,
            params,
            epilogue,
            is_large,
            stores,
            scratch,
        });
    }
}

/// The loop that writes y.
///
/// ```text
/// for block of 1024 values, or 256 with non-temporal stores of f32:
///     prefetch x and residual 4 KB ahead, if the tensor is large
///     x ← the block as f32                  where it lies, or widened
///     v ← (x − pivot)·scale + shift         in y itself, or in a block of our own
///     v ← v + residual;   mask ← v > 0;   v ← act(v)
///     y ← v                                 nothing left to do, or rounded, or non-temporal
/// ```
///
/// 1. Memory-bound: x is read and y written once, about 0.4 ns per value from memory against 0.1
///    from a cache. A block, 4 KB, stays in the first cache through all of its little loops.
/// 2. f32 is read where it lies and written where it goes. Only 16-bit types, non-temporal stores
///    and passes in place go through a block of our own.
/// 3. The prefetch covers what the hardware prefetcher loses at the end of each page. It asks for a
///    page further, so that the TLB entry is there when the loop comes.
/// 4. Non-temporal stores pay for results that no cache would keep until they are read, 4 MB and
///    more: memory is not read only to be overwritten, a third of the traffic. In place they do
///    not, because the cache line is there already. Blocks of 256 values are 16 cache lines, so
///    that the stores, which go out at the speed of memory, alternate with loads.
struct NormalizeKernel<'k, 'a, X, Y> {
    run: Normalize<'a, X, Y>,
    params: &'k ChannelParams<'k, 3>,
    epilogue: Epilogue,
    is_large: bool,
    stores: Option<NonTemporalStores>,
    scratch: &'k mut Scratch,
}

impl<X: Element, Y: Element> WithSimd for NormalizeKernel<'_, '_, X, Y> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Normalize { x, residual, y, mut mask, first_bit, at } = self.run;
        let Scratch { x: x_scratch, residual: residual_scratch, to: staged, .. } = self.scratch;
        let len = y.len();
        let mut y = Output::new(y, self.stores, x.is_none());
        for block in y.blocks(len) {
            let n = block.len();
            if self.is_large {
                match x {
                    Some(x) => prefetch_ahead(&x[..len], &block),
                    None => y.prefetch_ahead(&block),
                }
                if let Some(residual) = residual {
                    prefetch_ahead(&residual[..len], &block);
                }
            }
            let values = match x {
                Some(x) => read(&x[block.start..], n, &mut x_scratch.0),
                None => {
                    y.copy(&block, x_scratch);
                    &x_scratch.0
                }
            };
            let v = y.target(&block, staged);
            self.params.each(simd, at + block.start, n, &mut AffinePass { simd, x: values, v });
            let all = &mut v[..n];
            if let Some(residual) = residual {
                add(all, read(&residual[block.start..], n, &mut residual_scratch.0));
            }
            if let Some(mask) = &mut mask {
                set_bits(mask, first_bit + block.start, all);
            }
            activate(all, self.epilogue);
            y.write(block, staged);
        }
    }
}

/// act(v): a curve, or v above 0, slope·v elsewhere, and 0 for a slope of 0 also where v is
/// infinite. The comparison is so that a NaN stays.
#[inline(always)]
fn activate(v: &mut [f32], epilogue: Epilogue) {
    let slope = epilogue.slope();
    if !epilogue.activates() {
        return;
    }
    if epilogue.curve().is_some() {
        return curves::activate(v, epilogue.activation);
    }
    if slope == 0.0 {
        for v in v {
            *v = if *v <= 0.0 { 0.0 } else { *v };
        }
    } else {
        for v in v {
            *v = if *v <= 0.0 { slope * *v } else { *v };
        }
    }
}
