//! Where the values come from that are summed: x by itself, or gradients beside x.

use pulp::Simd;

use crate::dtype::Element;
use crate::host::apply::{Run, Upstream};
use crate::host::block_io::{Block, Gradients, read};
use crate::host::channel_params::ChannelParams;
use crate::host::intrinsics::prefetch;

/// Values of an activation, two by two: x and g, or the same twice where there is one.
pub(super) trait Source: Copy + Sync {
    /// Those of a run, at most a block, where they lie or in `to`; what follows has no meaning.
    fn read<'s, S: Simd>(
        &'s self,
        simd: S,
        run: Run,
        params: &ChannelParams<'_, 3>,
        scratch: [&mut Block; 2],
        to: [&'s mut [f32]; 2],
    ) -> [&'s [f32]; 2];

    /// Prefetches what will be read.
    fn prefetch(&self, at: usize, n: usize);

    /// Bytes that are read, by which threads are asked for help.
    fn bytes(&self) -> usize;
}

/// x alone.
#[derive(Clone, Copy)]
pub(super) struct Values<'a, X>(pub &'a [X]);

impl<X: Element> Source for Values<'_, X> {
    #[inline(always)]
    fn read<'s, S: Simd>(
        &'s self,
        _: S,
        Run { at, n }: Run,
        _: &ChannelParams<'_, 3>,
        _: [&mut Block; 2],
        [to, _]: [&'s mut [f32]; 2],
    ) -> [&'s [f32]; 2] {
        [read(&self.0[at..], n, to); 2]
    }

    #[inline(always)]
    fn prefetch(&self, at: usize, n: usize) {
        prefetch(&self.0[at..at + n]);
    }

    fn bytes(&self) -> usize {
        size_of_val(self.0)
    }
}

/// x, and g before the activation.
#[derive(Clone, Copy)]
pub(super) struct Products<'a, G, X> {
    pub g: Gradients<'a, G>,
    pub upstream: Upstream<'a, X>,
}

impl<G: Element, X: Element> Source for Products<'_, G, X> {
    #[inline(always)]
    fn read<'s, S: Simd>(
        &'s self,
        simd: S,
        run: Run,
        params: &ChannelParams<'_, 3>,
        scratch: [&mut Block; 2],
        to: [&'s mut [f32]; 2],
    ) -> [&'s [f32]; 2] {
        self.upstream.read(simd, self.g, run, params, scratch, to)
    }

    #[inline(always)]
    fn prefetch(&self, at: usize, n: usize) {
        self.upstream.prefetch(self.g, at, n);
    }

    fn bytes(&self) -> usize {
        size_of_val(self.upstream.x)
    }
}

/// Gradients that no activation changes: x is not read.
#[derive(Clone, Copy)]
pub(super) struct Alone<'a, G> {
    pub g: Gradients<'a, G>,
    pub bytes: usize,
}

impl<G: Element> Source for Alone<'_, G> {
    #[inline(always)]
    fn read<'s, S: Simd>(
        &'s self,
        _: S,
        Run { at, n }: Run,
        _: &ChannelParams<'_, 3>,
        _: [&mut Block; 2],
        [to, _]: [&'s mut [f32]; 2],
    ) -> [&'s [f32]; 2] {
        [self.g.read(at, n, to); 2]
    }

    #[inline(always)]
    fn prefetch(&self, at: usize, n: usize) {
        self.g.prefetch(at, n);
    }

    fn bytes(&self) -> usize {
        self.bytes
    }
}
