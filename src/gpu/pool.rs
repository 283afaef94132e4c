//! Buffers of calls, recycled for later ones: scratch for kernels, and staging for readback.
//!
//! A buffer is recycled when the work on it has been submitted, not when it is done: one queue
//! orders all uses. The pool hands out the oldest buffer of a size first. So repeated calls get the
//! same buffers in the same roles.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::buffer::{BufferSlice, in_words};
use super::{Gpu, trace};
use crate::error::Error;

/// Unused memory that a pool keeps. Scratch is about a thousandth of the normalized tensors.
const MAX_FREE_BYTES: u64 = 64 << 20;
/// Unused buffers that a pool keeps.
const MAX_FREE_BUFFERS: usize = 256;

/// Sizes of buffers are multiples of it, so similar requests find a free buffer.
const GRANULE_BYTES: u64 = 256;

/// A pool for the calls of one workspace.
#[derive(Clone, Debug)]
pub(crate) struct Memory(Arc<Pool>);

impl Memory {
    /// Keeps everything that is recycled, until its user clears it.
    pub fn new() -> Self {
        Self(Arc::new(Pool { free: Mutex::default(), keeps_all: true }))
    }

    /// Frees unused memory.
    pub fn clear(&self) {
        // Dropped after the lock is free again.
        let gone = std::mem::take(&mut *trace::lock(&self.0.free));
        drop(gone);
    }
}

/// Free buffers of one device and one use.
#[derive(Debug, Default)]
pub(super) struct Pool {
    free: Mutex<Free>,
    /// Whether it keeps more than [`MAX_FREE_BYTES`].
    keeps_all: bool,
}

#[derive(Debug, Default)]
struct Free {
    /// By size in bytes, and a number that distinguishes buffers of one size.
    buffers: BTreeMap<(u64, u64), Idle>,
    bytes: u64,
    /// Counts buffers that are made, and those that are recycled.
    clock: u64,
}

#[derive(Debug)]
struct Idle {
    whole: BufferSlice,
    since: u64,
}

impl Gpu {
    /// Memory for one call, with any contents, from the application's pool or the device's.
    pub fn scratch_of(&self, memory: Option<&Memory>, size_bytes: u64) -> Result<Lease, Error> {
        let pool = memory.map_or(&self.context.scratch, |memory| &memory.0);
        pool.take(in_words(size_bytes), |whole_bytes| self.new_buffer(whole_bytes, None))
    }
}

impl Pool {
    /// A buffer of at least `size_bytes`. If none is free, `make` gets the size in bytes and makes
    /// one.
    pub fn take<E>(
        self: &Arc<Self>,
        size_bytes: u64,
        make: impl FnOnce(u64) -> Result<BufferSlice, E>,
    ) -> Result<Lease, E> {
        let whole_bytes = size_bytes.checked_next_multiple_of(GRANULE_BYTES).unwrap_or(size_bytes);
        let (found, number) = {
            let mut free = trace::lock(&self.free);
            let oldest = free.buffers.range((whole_bytes, 0)..=(whole_bytes, u64::MAX)).next();
            match oldest.map(|(&key, _)| key) {
                Some(key) => {
                    free.bytes -= whole_bytes;
                    (free.buffers.remove(&key), key.1)
                }
                None => {
                    free.clock += 1;
                    (None, free.clock)
                }
            }
        };
        let whole = match found {
            Some(idle) => idle.whole,
            None => make(whole_bytes)?,
        };
        let slice = BufferSlice { size_bytes, ..whole.clone() };
        Ok(Lease { pool: self.clone(), whole, slice, number, is_recycled: AtomicBool::new(true) })
    }

    fn recycle(&self, number: u64, whole: BufferSlice) {
        // Dropped after the lock is free again, because cache tokens take locks.
        let mut gone = Vec::new();
        let mut free = trace::lock(&self.free);
        free.clock += 1;
        let since = free.clock;
        free.bytes += whole.size_bytes;
        free.buffers.insert((whole.size_bytes, number), Idle { whole, since });
        while !self.keeps_all
            && (free.bytes > MAX_FREE_BYTES || free.buffers.len() > MAX_FREE_BUFFERS)
        {
            let Some(key) =
                free.buffers.iter().min_by_key(|(_, idle)| idle.since).map(|(&key, _)| key)
            else {
                break;
            };
            free.bytes -= key.0;
            gone.extend(free.buffers.remove(&key));
        }
        drop(free);
    }
}

/// A buffer of a pool, in use. Dropped, it is recycled.
#[derive(Debug)]
pub(crate) struct Lease {
    pool: Arc<Pool>,
    whole: BufferSlice,
    slice: BufferSlice,
    number: u64,
    /// Whether it is recycled when it is dropped.
    is_recycled: AtomicBool,
}

impl Lease {
    /// Sets whether it is recycled when it is dropped. The default is true.
    pub fn set_recycled(&self, is_recycled: bool) {
        self.is_recycled.store(is_recycled, Ordering::Relaxed);
    }

    /// Keeps it from other calls for good, because an encoder of the application reads it at an
    /// unknown time. A buffer of a [`Memory`] is still recycled, because its user submits encoders
    /// in order.
    pub fn retain(&self) {
        if !self.pool.keeps_all {
            self.set_recycled(false);
        }
    }
}

impl Deref for Lease {
    type Target = BufferSlice;

    /// The requested bytes.
    fn deref(&self) -> &BufferSlice {
        &self.slice
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if *self.is_recycled.get_mut() {
            self.pool.recycle(self.number, self.whole.clone());
        }
    }
}
