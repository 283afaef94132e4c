//! The memory of a tensor: a slice of a GPU's buffer, or values that it owns.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::dtype::Element;
use crate::gpu::{BufferSlice, Gpu};
use crate::host::Threads;

/// Where the values are, and what works on them there.
#[derive(Debug)]
pub(crate) enum Memory {
    Gpu { gpu: Gpu, slice: BufferSlice },
    Host { threads: Threads, values: HostValues },
}

/// Values in host memory: bytes of so many elements of one storage type.
#[derive(Debug)]
pub(crate) struct HostValues {
    pub(super) words: Words,
    /// Distinguishes them from all others of the process.
    pub(super) id: u64,
    /// Of the last write of this crate or its user; 0 before that.
    pub(super) version: u64,
}

/// Memory that is aligned for its storage type.
#[derive(Clone, Debug)]
pub(super) enum Words {
    F32(Vec<f32>),
    Half(Vec<u16>),
}

impl HostValues {
    pub(super) fn new(words: Words) -> Self {
        Self { words, id: next_version(), version: 0 }
    }

    /// The values, if `T` is as large as they are stored: their storage type is checked elsewhere.
    pub fn slice<T: Element>(&self) -> &[T] {
        match &self.words {
            Words::F32(values) => bytemuck::try_cast_slice(values).unwrap_or_default(),
            Words::Half(values) => bytemuck::try_cast_slice(values).unwrap_or_default(),
        }
    }

    /// As [`slice`](Self::slice), for writing.
    pub fn slice_mut<T: Element>(&mut self) -> &mut [T] {
        self.version = next_version();
        match &mut self.words {
            Words::F32(values) => bytemuck::try_cast_slice_mut(values).unwrap_or_default(),
            Words::Half(values) => bytemuck::try_cast_slice_mut(values).unwrap_or_default(),
        }
    }
}

/// A version that is later than all before it of the process.
pub(super) fn next_version() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
