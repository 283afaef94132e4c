//! grad_output as kernels read it: in the order of x, whichever order it lies in.

use std::ops::Range;

use super::{prefetch_ahead, read};
use crate::dtype::Element;
use crate::host::convert::widen;
use crate::host::intrinsics::prefetch;
use crate::shape::Shape;

/// Upstream gradients in the order of x, whichever order they lie in.
#[derive(Clone, Copy)]
pub(in crate::host) struct Gradients<'a, G> {
    values: &'a [G],
    transposed: Option<Transposed>,
}

/// Sizes of the two axes after the samples, as x has them; the gradients have them the other way
/// round.
#[derive(Clone, Copy)]
struct Transposed {
    outer: usize,
    inner: usize,
}

impl<'a, G: Element> Gradients<'a, G> {
    pub fn new(values: &'a [G], shape: &Shape, x: &Shape) -> Self {
        let channels = x.channels();
        let len = x.spatial_len();
        let strides = x.strides();
        let axes = if strides.inner == 1 {
            Transposed { outer: channels, inner: len }
        } else {
            Transposed { outer: len, inner: channels }
        };
        let transposed = (strides != shape.strides()).then_some(axes);
        Self { values, transposed }
    }

    /// The gradients of the `n` values of x from address `at` on, at most a block, as by [`read`].
    #[inline(always)]
    pub fn read<'s>(&self, at: usize, n: usize, scratch: &'s mut [f32]) -> &'s [f32]
    where
        'a: 's,
    {
        match self.transposed {
            None => read(&self.values[at..], n, scratch),
            Some(transposed) => {
                transposed.gather(self.values, at, &mut scratch[..n]);
                scratch
            }
        }
    }

    /// Prefetches what will be read, if that is a run of memory.
    #[inline(always)]
    pub fn prefetch(&self, at: usize, n: usize) {
        if self.transposed.is_none() {
            prefetch(&self.values[at..at + n]);
        }
    }

    /// As [`prefetch_ahead`], within the run that is read.
    #[inline(always)]
    pub fn prefetch_ahead(&self, run: Range<usize>, at: &Range<usize>) {
        if self.transposed.is_none() {
            prefetch_ahead(&self.values[run], at);
        }
    }

    /// As [`read`](Self::read), always copied.
    #[inline(always)]
    pub fn copy(&self, at: usize, to: &mut [f32]) {
        match self.transposed {
            None => widen(&self.values[at..at + to.len()], to),
            Some(transposed) => transposed.gather(self.values, at, to),
        }
    }
}

impl Transposed {
    /// Reads what lies at x's addresses from `at` on in the other order.
    ///
    /// ```text
    /// for run of x's addresses with one outer index:
    ///     to ← values at a stride of `outer` elements
    /// ```
    ///
    /// A gather: every value is in a cache line of its own. Neighbouring rows read the same lines
    /// again, from a cache if the tensor has few outer indices. Not inlined, because it is no
    /// vector code, and copies of it in every kernel would only make them longer.
    #[inline(never)]
    fn gather<G: Element>(self, values: &[G], mut at: usize, to: &mut [f32]) {
        let Self { outer, inner } = self;
        let mut to = to.iter_mut();
        while to.len() > 0 {
            let row = at / inner;
            let i = at % inner;
            let start = row / outer * outer * inner + row % outer;
            let run = to.len().min(inner - i);
            for (to, i) in to.by_ref().take(run).zip(i..) {
                *to = values[start + i * outer].to_f32();
            }
            at += run;
        }
    }
}
