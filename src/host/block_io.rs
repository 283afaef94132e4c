//! Reading and writing block by block: whatever the storage type, kernels see blocks of f32.
//!
//! Owns the blocks of a task, software prefetching of what comes next, and the ways in and out:
//! [`read`], [`Gradients`], [`Output`], and the bits of masks.

mod gradients;
mod mask_bits;
mod output;

pub(super) use gradients::Gradients;
pub(super) use mask_bits::{set_bits, spread_bits};
pub(super) use output::{Output, write_zeros};

use std::cell::Cell;
use std::ops::Range;

use super::convert::widen;
use super::intrinsics::prefetch;
use crate::dtype::{DType, Element};

/// Values of a block: 4 KB of f32, so that all that a kernel works on stays in a core's first
/// cache, and what a block costs by itself is little beside it. A multiple of a cache line of any
/// storage type and of a mask's word.
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

/// The scratch memory of a task. Nothing in it is kept from one block to the next.
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

/// The first `n` values, at most a block, as f32: themselves where they are f32, and all that
/// follow; else widened into `scratch`, where what follows has no meaning.
#[inline(always)]
pub(super) fn read<'a, T: Element>(values: &'a [T], n: usize, scratch: &'a mut [f32]) -> &'a [f32] {
    if T::DTYPE == DType::F32 {
        return bytemuck::cast_slice(values);
    }
    widen(&values[..n], &mut scratch[..n]);
    scratch
}

/// Bytes from what is computed with to what is prefetched: a page, so that the prefetch also covers
/// the walk of the page table that the hardware prefetcher stops at. 4 KB are about 0.4 µs of a
/// core's memory traffic, a few times the latency of memory.
const PREFETCH_DISTANCE_BYTES: usize = 4 << 10;

/// Prefetches the values that lie [`PREFETCH_DISTANCE_BYTES`] behind those at `at`: they come while
/// these are computed with. Nothing is prefetched beyond the end.
#[inline(always)]
pub(super) fn prefetch_ahead<T>(values: &[T], at: &Range<usize>) {
    let distance = PREFETCH_DISTANCE_BYTES / size_of::<T>();
    if let Some(next) = values.get(at.start + distance..at.end + distance) {
        prefetch(next);
    }
}
