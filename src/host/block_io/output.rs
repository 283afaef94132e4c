//! Where a kernel's results go: in place, rounded to a storage type, or by non-temporal stores.

use std::ops::Range;

use bytemuck::Zeroable;

use super::{BLOCK, Block, prefetch_ahead};
use crate::dtype::{DType, Element};
use crate::host::convert::{narrow, widen};
use crate::host::intrinsics::{CACHE_LINE_BYTES, CacheLine, NonTemporalStores, fenced};

/// Where a run of results goes.
pub(in crate::host) struct Output<'a, Y> {
    values: &'a mut [Y],
    stores: Option<NonTemporalStores>,
    /// Whether kernels may write their results here.
    is_direct: bool,
}

/// Values of a block of non-temporal stores: a few cache lines, so that reading goes on beside
/// them. A narrower type takes a whole block, as what a block costs by itself is more beside fewer
/// bytes.
const fn non_temporal_block<Y>() -> usize {
    if size_of::<Y>() < size_of::<f32>() { BLOCK } else { 256 }
}

/// Writes zeros. With non-temporal stores the memory is not read first, as by [`Output::write`].
pub(in crate::host) fn write_zeros<Y: Element>(values: &mut [Y], non_temporal: bool) {
    let lines = if non_temporal { whole_lines(values) } else { 0..0 };
    values[..lines.start].fill(Y::zeroed());
    values[lines.end..].fill(Y::zeroed());
    let values = &mut values[lines];
    match bytemuck::try_cast_slice_mut::<Y, CacheLine>(&mut *values) {
        Ok(lines) => fenced(|stores| {
            let zeros = [CacheLine::zeroed(); 16];
            lines.chunks_mut(zeros.len()).for_each(|to| stores.copy(&zeros[..to.len()], to));
        }),
        Err(_) => values.fill(Y::zeroed()),
    }
}

/// The values that are whole cache lines.
fn whole_lines<Y>(values: &[Y]) -> Range<usize> {
    let beyond = values.as_ptr().addr() % CACHE_LINE_BYTES;
    let to_next_line = (CACHE_LINE_BYTES - beyond) % CACHE_LINE_BYTES;
    let start = (to_next_line / size_of::<Y>()).min(values.len());
    let per_line = CACHE_LINE_BYTES / size_of::<Y>();
    start..start + (values.len() - start) / per_line * per_line
}

impl<'a, Y: Element> Output<'a, Y> {
    /// With non-temporal stores where `stores` are given. `copied` says that only finished values
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

    /// Copies the old values before they are overwritten.
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
    ///
    /// ```text
    /// if a kernel wrote where the results go: nothing is left
    /// with non-temporal stores, if the block begins at a cache line:
    ///     f32:     copy whole cache lines from the block
    ///     16 bits: round the block into cache lines of our own, then copy those
    /// round what is left in its place
    /// ```
    ///
    /// Non-temporal stores fill a write-combining buffer of one cache line and send it to memory as
    /// a whole, which is why results are in a block first: a line that is written in parts, with
    /// other lines between, would go out in parts. Whoever makes the stores fences them, once per
    /// task.
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
