//! Reading and writing block by block: whatever the storage type, kernels see blocks of f32.

use std::cell::Cell;
use std::ops::Range;

use bytemuck::Zeroable;

use super::convert::{narrow, widen};
use super::intrinsics::{CACHE_LINE_BYTES, CacheLine, NonTemporalStores, prefetch};
use crate::dtype::{DType, Element};
use crate::shape::Shape;

/// Values that go through a kernel together: 4 KB, so that all that a kernel works on stays in a
/// core's first cache, and what a block costs by itself is little beside it. A multiple of a cache
/// line of any storage type and of a mask's word.
pub(super) const BLOCK: usize = 1024;
/// Values behind the end of a block that kernels may touch: those of the widest register.
pub(super) const SLACK: usize = 16;

/// A block of a kernel's own, which starts a cache line.
#[derive(Clone)]
#[repr(align(64))]
pub(super) struct Block(pub [f32; BLOCK + SLACK]);

impl Block {
    pub const ZERO: Self = Self([0.0; BLOCK + SLACK]);
}

/// What a task computes in; nothing in it is kept from one block to the next.
#[derive(Clone)]
pub(super) struct Scratch {
    pub x: Block,
    pub residual: Block,
    pub g: Block,
    pub v: Block,
    pub to: Block,
}

impl Scratch {
    pub fn new() -> Self {
        Self {
            x: Block::ZERO,
            residual: Block::ZERO,
            g: Block::ZERO,
            v: Block::ZERO,
            to: Block::ZERO,
        }
    }

    /// Lends what this thread's task before has left: filling it with zeros takes as long as a
    /// small task.
    pub fn lend<T>(work: impl FnOnce(&mut Self) -> T) -> T {
        thread_local! {
            static KEPT: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
        }
        let mut scratch = KEPT.take().unwrap_or_else(|| Box::new(Self::new()));
        let result = work(&mut scratch);
        KEPT.set(Some(scratch));
        result
    }
}

/// The first `n` values, at most a block: themselves where they are f32, and all that follow, else
/// in `scratch`, where what follows is of no meaning.
#[inline(always)]
pub(super) fn read<'a, T: Element>(values: &'a [T], n: usize, scratch: &'a mut [f32]) -> &'a [f32] {
    if T::DTYPE == DType::F32 {
        return bytemuck::cast_slice(values);
    }
    widen(&values[..n], &mut scratch[..n]);
    scratch
}

/// Bytes from what is computed with to what is prefetched.
const PREFETCH_DISTANCE_BYTES: usize = 4 << 10;

/// Prefetches the values that lie [`PREFETCH_DISTANCE_BYTES`] behind those at `at`: they come while
/// these are computed with.
#[inline(always)]
pub(super) fn prefetch_ahead<T>(values: &[T], at: &Range<usize>) {
    let distance = PREFETCH_DISTANCE_BYTES / size_of::<T>();
    if let Some(next) = values.get(at.start + distance..at.end + distance) {
        prefetch(next);
    }
}

/// Values whose bits are taken together.
const WORD: usize = 64;

/// Sets the bits of the values above 0, from bit `at` of a mask on, where they are 0.
#[inline(always)]
pub(super) fn set_bits(mask: &mut [u32], at: usize, v: &[f32]) {
    for (v, at) in v.chunks(WORD).zip((at..).step_by(WORD)) {
        let mut bits = 0u64;
        for (i, v) in v.iter().enumerate() {
            bits |= u64::from(*v > 0.0) << i;
        }
        let shifted = u128::from(bits) << (at % 32);
        for (i, word) in mask[at / 32..].iter_mut().take(3).enumerate() {
            *word |= (shifted >> (32 * i)) as u32;
        }
    }
}

/// The bits from bit `at` of a mask on as 1.0 or 0.0.
#[inline(always)]
pub(super) fn spread_bits(mask: &[u32], at: usize, to: &mut [f32]) {
    // Beyond the end of the mask no bit is needed.
    let word = |i: usize| u64::from(mask.get(i).copied().unwrap_or(0));
    let bits = |at: usize| ((word(at / 32 + 1) << 32 | word(at / 32)) >> (at % 32)) as u32;
    let (whole, rest) = to.as_chunks_mut::<32>();
    let rest_at = at + whole.len() * 32;
    for (to, at) in whole.iter_mut().zip((at..).step_by(32)) {
        spread(bits(at), to);
    }
    spread(bits(rest_at), rest);
}

#[inline(always)]
fn spread(bits: u32, to: &mut [f32]) {
    /// The bit of every place.
    const BITS: [u32; 32] = {
        let mut bits = [0; 32];
        let mut i = 0;
        while i < 32 {
            bits[i] = 1 << i;
            i += 1;
        }
        bits
    };
    for (to, bit) in to.iter_mut().zip(BITS) {
        *to = if bits & bit != 0 { 1.0 } else { 0.0 };
    }
}

/// Where a run of results goes.
pub(super) struct Output<'a, Y> {
    values: &'a mut [Y],
    stores: Option<NonTemporalStores>,
    /// Whether kernels may write here what they compute.
    is_direct: bool,
}

/// Values of a block of non-temporal stores: a few cache lines, so that reading goes on beside
/// them. A narrower type takes a whole block, as what a block costs by itself is more beside fewer
/// bytes.
const fn non_temporal_block<Y>() -> usize {
    if size_of::<Y>() < size_of::<f32>() { BLOCK } else { 256 }
}

impl<'a, Y: Element> Output<'a, Y> {
    /// With non-temporal stores where `stores` are given. `copied` tells that only finished values
    /// may be written, which is so where they replace what is still to be read.
    pub fn new(values: &'a mut [Y], stores: Option<NonTemporalStores>, copied: bool) -> Self {
        let is_direct = Y::DTYPE == DType::F32 && stores.is_none() && !copied;
        Self { values, stores, is_direct }
    }

    /// The blocks of the run, of `len` values. With non-temporal stores all but the first begin at
    /// a cache line.
    pub fn blocks(&self, len: usize) -> impl Iterator<Item = Range<usize>> + use<Y> {
        let (head, step) = if self.stores.is_some() {
            let beyond = self.values.as_ptr().addr() % CACHE_LINE_BYTES;
            let to_next_line = (CACHE_LINE_BYTES - beyond) % CACHE_LINE_BYTES;
            (to_next_line / size_of::<Y>(), non_temporal_block::<Y>())
        } else {
            (0, BLOCK)
        };
        let head = head.min(len);
        let first = (head > 0).then_some(0..head);
        first
            .into_iter()
            .chain((head..len).step_by(step).map(move |start| start..len.min(start + step)))
    }

    /// As [`prefetch_ahead`], for what lies there before it is written.
    #[inline(always)]
    pub fn prefetch_ahead(&self, at: &Range<usize>) {
        prefetch_ahead(self.values, at);
    }

    /// Copies what lies there before it is written.
    #[inline(always)]
    pub fn copy(&self, at: &Range<usize>, to: &mut Block) {
        widen(&self.values[at.clone()], &mut to.0[..at.len()]);
    }

    /// Where a kernel writes results, with all that follows: where they go or in `block`.
    #[inline(always)]
    pub fn target<'s>(&'s mut self, at: &Range<usize>, block: &'s mut Block) -> &'s mut [f32] {
        if self.is_direct {
            bytemuck::cast_slice_mut(&mut self.values[at.start..])
        } else {
            &mut block.0
        }
    }

    /// Writes the beginning of a block, unless a kernel has.
    #[inline(always)]
    pub fn write(&mut self, at: Range<usize>, block: &Block) {
        if self.is_direct {
            return;
        }
        let n = at.len();
        let values = &mut self.values[at];
        let mut done = 0;
        if let Some(stores) = self.stores {
            let whole = n - n % (CACHE_LINE_BYTES / size_of::<Y>());
            if let Ok(lines) = bytemuck::try_cast_slice_mut::<Y, CacheLine>(&mut values[..whole]) {
                if Y::DTYPE == DType::F32 {
                    stores.copy(bytemuck::cast_slice(&block.0[..whole]), lines);
                } else {
                    // As many cache lines as a block has of the 16-bit types.
                    let mut rounded = [CacheLine::zeroed(); BLOCK * 2 / CACHE_LINE_BYTES];
                    let rounded = &mut rounded[..lines.len()];
                    narrow(&block.0[..whole], bytemuck::cast_slice_mut::<CacheLine, Y>(rounded));
                    stores.copy(rounded, lines);
                }
                done = whole;
            }
        }
        narrow(&block.0[done..n], &mut values[done..]);
    }
}

/// Upstream gradients in the order of x, whichever order they lie in.
#[derive(Clone, Copy)]
pub(super) struct Gradients<'a, G> {
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
        let (channels, len, strides) = (x.channels(), x.spatial_len(), x.strides());
        let (outer, inner) = if strides.inner == 1 { (channels, len) } else { (len, channels) };
        let transposed = (strides != shape.strides()).then_some(Transposed { outer, inner });
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
    #[inline(never)]
    fn gather<G: Element>(self, values: &[G], mut at: usize, to: &mut [f32]) {
        let Self { outer, inner } = self;
        let mut to = to.iter_mut();
        while to.len() > 0 {
            let (row, i) = (at / inner, at % inner);
            let start = row / outer * outer * inner + row % outer;
            let run = to.len().min(inner - i);
            for (to, i) in to.by_ref().take(run).zip(i..) {
                *to = values[start + i * outer].to_f32();
            }
            at += run;
        }
    }
}
