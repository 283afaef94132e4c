//! The memory of a tensor: a slice of a GPU's buffer, or values that it owns.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::dtype::Element;
use crate::gpu::{BufferSlice, Gpu};
use crate::host::Threads;

/// The place of the values: a GPU with its slice, or the host.
#[derive(Debug)]
pub(crate) enum Memory {
    Gpu { gpu: Gpu, slice: BufferSlice },
    Host { threads: Threads, values: HostValues },
}

/// Values in host memory: the elements of one storage type.
#[derive(Debug)]
pub(crate) struct HostValues {
    pub(super) words: Words,
    /// Number that is unique in the process.
    pub(super) id: u64,
    /// Version of the last write by this crate or its user. 0 before that.
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

    /// The values, if `T` has the size of the storage type. Callers check the type itself.
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

/// A version later than all earlier ones of the process.
pub(super) fn next_version() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
