//! Reading and writing block by block: whatever the storage type, kernels see blocks of f32.

use std::ops::Range;

use bytemuck::Zeroable;

use super::convert::{as_f32, narrow, widen};
use super::intrinsics::{LINE_BYTES, Line, Stores};
use super::table::BLOCK;
use crate::dtype::{DType, Element};
use crate::shape::Shape;

pub(super) type Block = [f32; BLOCK];

/// A block that starts a cache line, as results are stored.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(super) struct Aligned(pub Block);

impl Aligned {
    pub const ZERO: Self = Self([0.0; BLOCK]);
}

/// Up to a block of values: themselves where they are f32 and as many, else in `scratch`, and what is beyond them is of no
/// meaning.
#[inline(always)]
pub(super) fn read<'a, T: Element>(values: &'a [T], scratch: &'a mut Block) -> &'a Block {
    match values.first_chunk::<BLOCK>() {
        Some(values) if T::DTYPE == DType::F32 => bytemuck::cast_slice(values).first_chunk().unwrap_or(scratch),
        Some(values) => {
            widen(values, scratch);
            scratch
        }
        None => {
            part(values, scratch);
            scratch
        }
    }
}

/// The end of a run.
#[inline(never)]
fn part<T: Element>(values: &[T], scratch: &mut Block) {
    widen(values, &mut scratch[..values.len()]);
}

/// The blocks of a run of `len` values, of which the first holds `head` values if that is not 0.
#[inline(always)]
pub(super) fn cut(len: usize, head: usize) -> impl Iterator<Item = Range<usize>> {
    let head = head.min(len);
    let first = (head > 0).then_some(0..head);
    first.into_iter().chain((head..len).step_by(BLOCK).map(move |start| start..len.min(start + BLOCK)))
}

/// The bits of a block, one for each value above 0.
#[inline(always)]
pub(super) fn bits_above(v: &Block) -> u64 {
    let mut bits = 0;
    for (i, v) in v.iter().enumerate() {
        bits |= u64::from(*v > 0.0) << i;
    }
    bits
}

/// Sets the first `n` of a block's bits from bit `at` of a mask on, which are 0.
#[inline(always)]
pub(super) fn set_bits(mask: &mut [u32], at: usize, n: usize, bits: u64) {
    let bits = if n < BLOCK { bits & ((1 << n) - 1) } else { bits };
    let shifted = u128::from(bits) << (at % 32);
    for (i, word) in mask[at / 32..].iter_mut().take(3).enumerate() {
        *word |= (shifted >> (32 * i)) as u32;
    }
}

/// A block of bits from bit `at` of a mask on; beyond its end they are 0.
#[inline(always)]
pub(super) fn bits_at(mask: &[u32], at: usize) -> u64 {
    let words = (0..3).map(|i| u128::from(mask.get(at / 32 + i).copied().unwrap_or(0)) << (32 * i));
    (words.fold(0, |all, word| all | word) >> (at % 32)) as u64
}

/// Where a run of results goes.
pub(super) struct Output<'a, Y> {
    values: &'a mut [Y],
    stores: Option<Stores>,
}

impl<'a, Y: Element> Output<'a, Y> {
    /// Past the caches where `stores` are given.
    pub fn new(values: &'a mut [Y], stores: Option<Stores>) -> Self {
        Self { values, stores }
    }

    /// Values before the first whole line, where lines matter.
    pub fn head(&self) -> usize {
        if self.stores.is_none() {
            return 0;
        }
        let beyond = self.values.as_ptr().addr() % LINE_BYTES;
        (LINE_BYTES - beyond) % LINE_BYTES / size_of::<Y>()
    }

    /// Up to a block of what lies there before it is written.
    #[inline(always)]
    pub fn read<'s>(&'s self, at: Range<usize>, scratch: &'s mut Block) -> &'s Block {
        read(&self.values[at], scratch)
    }

    /// Writes a block, or its beginning where the range is shorter.
    #[inline(always)]
    pub fn write(&mut self, at: Range<usize>, block: &Aligned) {
        let n = at.len();
        let values = &mut self.values[at];
        if n < BLOCK {
            return end(block, values);
        }
        if let Some(stores) = self.stores
            && let Ok(lines) = bytemuck::try_cast_slice_mut::<Y, Line>(values)
        {
            if Y::DTYPE == DType::F32 {
                return stores.copy(bytemuck::cast_slice(&block.0), lines);
            }
            // As many lines as a block has of the larger of the other types.
            let mut rounded = [Line::zeroed(); BLOCK * 2 / LINE_BYTES];
            narrow(&block.0, bytemuck::cast_slice_mut::<Line, Y>(&mut rounded));
            return stores.copy(&rounded, lines);
        }
        narrow(&block.0, values);
    }
}

/// The end of a run.
#[inline(never)]
fn end<Y: Element>(block: &Aligned, values: &mut [Y]) {
    narrow(&block.0[..values.len()], values);
}

/// Upstream gradients in the order of x, whichever order they lie in.
#[derive(Clone, Copy)]
pub(super) struct Gradients<'a, G> {
    values: &'a [G],
    transposed: Option<Transposed>,
}

/// Sizes of the two axes after the samples, as x has them; the gradients have them the other way round.
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

    /// The gradients of the values of x from address `at` on: as they lie, or into `scratch`.
    #[inline(always)]
    pub fn read<'s>(&self, at: usize, n: usize, scratch: &'s mut [f32]) -> &'s [f32]
    where
        'a: 's,
    {
        match self.transposed {
            None => as_f32(&self.values[at..at + n], scratch),
            Some(transposed) => {
                transposed.gather(self.values, at, &mut scratch[..n]);
                &scratch[..n]
            }
        }
    }

    /// Up to a block of them.
    #[inline(always)]
    pub fn block<'s>(&self, at: usize, n: usize, scratch: &'s mut Block) -> &'s Block
    where
        'a: 's,
    {
        match self.transposed {
            None => read(&self.values[at..at + n], scratch),
            Some(transposed) => {
                transposed.gather(self.values, at, &mut scratch[..n]);
                scratch
            }
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
