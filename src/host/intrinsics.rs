//! Operations without a safe function in the standard library: non-temporal stores, prefetching,
//! f16 by the processor's own conversion, large pages, and borrowed work on threads of somebody
//! else's pool.
//!
//! The only module of the crate with unsafe code. Each block says why it is sound; each function is
//! safe to call.
#![allow(
    unsafe_code,
    reason = "non-temporal stores, conversions, advice and lending have no safe form"
)]

mod lend;

pub(super) use lend::{Lent, lend};

use bytemuck::{Pod, Zeroable};
use half::f16;
use half::slice::HalfFloatSliceExt;

/// Bytes that a processor writes to memory at once.
pub(super) const CACHE_LINE_BYTES: usize = 64;

/// A cache line, in quarters: the widest non-temporal store of the oldest processors.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub(super) struct CacheLine([[f32; 4]; 4]);

/// The right to non-temporal stores, given by [`fenced`].
#[derive(Clone, Copy)]
pub(super) struct NonTemporalStores(());

/// Runs `write`, and returns when its non-temporal stores are where other threads see them.
pub(super) fn fenced<R>(write: impl FnOnce(NonTemporalStores) -> R) -> R {
    /// At the end also of a `write` that unwinds.
    struct Fence;
    impl Drop for Fence {
        fn drop(&mut self) {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the instruction is part of SSE, which every x86_64 has; it orders stores and
            // does nothing else.
            unsafe {
                std::arch::x86_64::_mm_sfence();
            }
        }
    }
    let _fence = Fence;
    write(NonTemporalStores(()))
}

impl NonTemporalStores {
    /// Copies cache lines, with non-temporal stores where the processor has them: the memory
    /// written is not read first, and what the caches hold stays.
    ///
    /// With AVX-512 a cache line is one store. Other x86-64 processors take four of 16 bytes, which
    /// a write-combining buffer gathers to the same effect.
    pub fn copy(self, from: &[CacheLine], to: &mut [CacheLine]) {
        #[cfg(target_arch = "x86_64")]
        {
            if std::arch::is_x86_feature_detected!("avx512f") {
                // SAFETY: the processor has what the function is compiled for. A
                // `NonTemporalStores` exists only within `fenced`, so that a fence orders the
                // stores before whatever this thread publishes afterwards.
                return unsafe { copy_lines(from, to) };
            }
            for (from, to) in from.iter().zip(to) {
                for (from, to) in from.0.iter().zip(&mut to.0) {
                    use std::arch::x86_64::{_mm_loadu_ps, _mm_stream_ps};
                    // SAFETY: both instructions are part of SSE. `from` and `to` are references to
                    // four f32 each; `to` is a quarter of a cache line, which its type aligns to 64
                    // bytes, and so aligned to the 16 that the store needs. The fence is as above.
                    unsafe { _mm_stream_ps(to.as_mut_ptr(), _mm_loadu_ps(from.as_ptr())) }
                }
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        to.copy_from_slice(from);
    }
}

/// Copies a cache line at a time.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn copy_lines(from: &[CacheLine], to: &mut [CacheLine]) {
    use std::arch::x86_64::{_mm512_load_ps, _mm512_stream_ps};
    for (from, to) in from.iter().zip(to) {
        // SAFETY: `from` and `to` are references to cache lines, which their type aligns to the 64
        // bytes that both instructions need.
        unsafe {
            _mm512_stream_ps((&raw mut *to).cast(), _mm512_load_ps((&raw const *from).cast()))
        }
    }
}

/// Software prefetching: asks the processor to read what is needed soon into its second cache,
/// where its own prefetcher does not.
///
/// One instruction per cache line, and none waits. The second cache and not the first: what is
/// asked for is more than a block, and would replace what the first works on.
#[inline(always)]
pub(super) fn prefetch<T>(values: &[T]) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        let start = values.as_ptr().cast::<i8>();
        let mut byte = 0;
        while byte < size_of_val(values) {
            // SAFETY: the instruction is part of SSE. It is a hint about memory that is borrowed
            // here, and changes nothing.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(start.wrapping_add(byte)) }
            byte += CACHE_LINE_BYTES;
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = values;
}

/// Bytes from which on memory is worth large pages: two of those that a common processor has.
#[cfg(target_os = "linux")]
const LARGE_PAGES_BYTES: usize = 4 << 20;

/// Asks the system for large pages where nothing has been written yet. The TLB then holds all pages
/// of a large tensor: copying it takes two thirds of the time. Memory that has its pages already
/// keeps them.
pub(crate) fn prefer_large_pages<T>(values: &mut [T]) {
    #[cfg(target_os = "linux")]
    if size_of_val(values) >= LARGE_PAGES_BYTES {
        /// The smallest pages of every Linux, to which the beginning is rounded; of a larger size
        /// the advice is refused.
        const PAGE_BYTES: usize = 4096;
        let to_page = values.as_ptr().addr().next_multiple_of(PAGE_BYTES) - values.as_ptr().addr();
        let length = size_of_val(values) - to_page;
        // SAFETY: the range lies within memory that is borrowed for writing, and the advice changes
        // neither its contents nor whether it may be accessed. An answer is not needed: without
        // large pages everything works.
        unsafe {
            libc::madvise(
                values.as_mut_ptr().byte_add(to_page).cast(),
                length,
                libc::MADV_HUGEPAGE,
            );
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = values;
}

/// Widens f16 to f32, exactly; both slices are of one length.
pub(super) fn widen_f16(from: &[f16], to: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx512f") {
        // SAFETY: the processor has what the function is compiled for.
        return unsafe { widen_avx512(from, to) };
    } else if std::arch::is_x86_feature_detected!("f16c")
        && std::arch::is_x86_feature_detected!("avx")
    {
        // SAFETY: the processor has what the function is compiled for.
        return unsafe { widen_f16c(from, to) };
    }
    from.convert_to_f32_slice(to);
}

/// Rounds f32 to the nearest f16, ties to even; both slices are of one length.
pub(super) fn narrow_f16(from: &[f32], to: &mut [f16]) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx512f") {
        // SAFETY: the processor has what the function is compiled for.
        return unsafe { narrow_avx512(from, to) };
    } else if std::arch::is_x86_feature_detected!("f16c")
        && std::arch::is_x86_feature_detected!("avx")
    {
        // SAFETY: the processor has what the function is compiled for.
        return unsafe { narrow_f16c(from, to) };
    }
    to.convert_from_f32_slice(from);
}

/// Conversions by instructions of the processor, a register of values at a time. The rest of a
/// slice goes one by one, with the same results.
#[cfg(target_arch = "x86_64")]
macro_rules! f16_conversions {
    (
        $widen:ident, $narrow:ident, $features:literal, $lanes:literal,
        $to_f32:ident, $to_f16:ident
    ) => {
        #[target_feature(enable = $features)]
        fn $widen(from: &[f16], to: &mut [f32]) {
            let (from, from_rest) = from.as_chunks::<$lanes>();
            let (to, to_rest) = to.as_chunks_mut::<$lanes>();
            for (from, to) in from.iter().zip(to) {
                *to = bytemuck::cast(std::arch::x86_64::$to_f32(bytemuck::cast(*from)));
            }
            from_rest.convert_to_f32_slice(to_rest);
        }

        #[target_feature(enable = $features)]
        fn $narrow(from: &[f32], to: &mut [f16]) {
            use std::arch::x86_64::_MM_FROUND_TO_NEAREST_INT;
            let (from, from_rest) = from.as_chunks::<$lanes>();
            let (to, to_rest) = to.as_chunks_mut::<$lanes>();
            for (from, to) in from.iter().zip(to) {
                let narrow =
                    std::arch::x86_64::$to_f16::<_MM_FROUND_TO_NEAREST_INT>(bytemuck::cast(*from));
                *to = bytemuck::cast(narrow);
            }
            to_rest.convert_from_f32_slice(from_rest);
        }
    };
}

#[cfg(target_arch = "x86_64")]
f16_conversions!(widen_f16c, narrow_f16c, "f16c,avx", 8, _mm256_cvtph_ps, _mm256_cvtps_ph);
#[cfg(target_arch = "x86_64")]
f16_conversions!(widen_avx512, narrow_avx512, "avx512f", 16, _mm512_cvtph_ps, _mm512_cvtps_ph);

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    type Conversions = (fn(&[f16], &mut [f32]), fn(&[f32], &mut [f16]));

    #[test]
    fn every_processor_s_conversions_are_those_of_the_types() {
        // Only those that this processor has. It cannot run the others.
        let mut all: Vec<Conversions> = vec![(widen_f16, narrow_f16)];
        if std::arch::is_x86_feature_detected!("f16c") && std::arch::is_x86_feature_detected!("avx")
        {
            // SAFETY: the processor has what the functions are compiled for.
            all.push((
                |from, to| unsafe { widen_f16c(from, to) },
                |from, to| unsafe { narrow_f16c(from, to) },
            ));
        }
        if std::arch::is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has what the functions are compiled for.
            all.push((
                |from, to| unsafe { widen_avx512(from, to) },
                |from, to| unsafe { narrow_avx512(from, to) },
            ));
        }
        let halves: Vec<f16> = (0..=u16::MAX).map(f16::from_bits).collect();
        // The values themselves, and a little and exactly half way beside them.
        let beside = |more: u32| {
            halves
                .iter()
                .map(move |half| f32::from_bits(half.to_f32().to_bits().wrapping_add(more)))
        };
        let values: Vec<f32> =
            [0, 1, 0x0fff, 0x1000, 0x1001].into_iter().flat_map(beside).collect();
        for (number, (widen, narrow)) in all.into_iter().enumerate() {
            let mut wide = vec![0.0; halves.len()];
            let mut narrowed = vec![f16::ZERO; values.len()];
            widen(&halves, &mut wide);
            narrow(&values, &mut narrowed);
            for (half, wide) in halves.iter().zip(&wide) {
                assert_eq!(
                    wide.to_bits(),
                    half.to_f32().to_bits(),
                    "conversions {number}, {half:?}"
                );
            }
            for (value, narrowed) in values.iter().zip(&narrowed) {
                assert_eq!(
                    narrowed.to_bits(),
                    f16::from_f32(*value).to_bits(),
                    "conversions {number}, {value:e}"
                );
            }
        }
    }
}
