//! A cache of dispatches: a kernel's pipeline, its parameters and its bind group. An entry stays as
//! long as the memory that it binds.
//!
//! A bind group keeps its buffers alive. A cached one must not keep memory that its owner has
//! dropped. Therefore every slice has a [`CacheToken`]. Dropping the token evicts the slice's
//! entries.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::buffer::BufferSlice;
use super::pipelines::Pipeline;
use super::trace;
use crate::shaders::Variant;

/// Dispatches kept per device. A training step of a deep network has fewer: four to six for each of
/// 150 layers. Beyond it, the least recently used goes.
const MAX_ENTRIES: usize = 1024;

/// The part of a dispatch that stays the same from call to call.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub variant: Variant,
    pub params: Box<[u8]>,
    /// Number of the cache token, offset and size in bytes of every slice, in binding order.
    slices: Vec<(u64, u64, u64)>,
}

impl Key {
    pub fn new(variant: Variant, params: &[u8], slices: &[BufferSlice]) -> Self {
        let place =
            |slice: &BufferSlice| (slice.token.number, slice.offset_bytes, slice.size_bytes);
        Self { variant, params: params.into(), slices: slices.iter().map(place).collect() }
    }

    fn binds(&self, token: u64) -> bool {
        self.slices.iter().any(|slice| slice.0 == token)
    }
}

/// Pipeline and bind group of a dispatch.
#[derive(Clone, Debug)]
pub(super) struct Bound {
    pub pipeline: Arc<Pipeline>,
    pub group: wgpu::BindGroup,
}

/// The dispatches of one device.
#[derive(Debug, Default)]
pub(super) struct Bindings {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    entries: HashMap<Key, Entry>,
    /// Counts uses.
    clock: u64,
}

#[derive(Debug)]
struct Entry {
    bound: Bound,
    used_at: u64,
}

impl Bindings {
    /// The entry of a key. `make` makes it if it is not cached. The slices are those of the key.
    pub fn get(
        self: &Arc<Self>,
        key: Key,
        slices: &[BufferSlice],
        make: impl FnOnce(&Key) -> Bound,
    ) -> Bound {
        {
            let mut kept = trace::lock(&self.kept);
            kept.clock += 1;
            let used_at = kept.clock;
            if let Some(entry) = kept.entries.get_mut(&key) {
                entry.used_at = used_at;
                return entry.bound.clone();
            }
        }
        let bound = make(&key);
        slices.iter().for_each(|slice| slice.token.is_used_by(self));
        let mut kept = trace::lock(&self.kept);
        if kept.entries.len() >= MAX_ENTRIES {
            let oldest = kept.entries.values().map(|entry| entry.used_at).min();
            kept.entries.retain(|_, entry| Some(entry.used_at) != oldest);
        }
        let entry = Entry { bound: bound.clone(), used_at: kept.clock };
        kept.entries.insert(key, entry);
        bound
    }

    /// Evicts everything. After an error any entry may be invalid.
    pub fn clear(&self) {
        trace::lock(&self.kept).entries.clear();
    }

    fn forget(&self, token: u64) {
        trace::lock(&self.kept).entries.retain(|key, _| !key.binds(token));
    }
}

/// Shared by the clones of a slice. It is dropped with the last of them, and evicts the slice's
/// entries from caches.
#[derive(Debug)]
pub(super) struct CacheToken {
    /// Number that is unique in the process.
    pub(super) number: u64,
    /// Caches with entries of the slice: of the device that it was made for, or of another handle
    /// of that device.
    users: Mutex<Vec<Weak<Bindings>>>,
    /// Version of this crate's last write to the memory. The callers count versions.
    pub(super) written_at: AtomicU64,
}

impl CacheToken {
    pub fn new() -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Arc::new(Self {
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            users: Mutex::default(),
            written_at: AtomicU64::new(0),
        })
    }

    fn is_used_by(&self, bindings: &Arc<Bindings>) {
        let mut users = trace::lock(&self.users);
        if !users.iter().any(|user| std::ptr::eq(user.as_ptr(), Arc::as_ptr(bindings))) {
            users.push(Arc::downgrade(bindings));
        }
    }
}

impl Drop for CacheToken {
    fn drop(&mut self) {
        let users = self.users.get_mut().unwrap_or_else(PoisonError::into_inner);
        users.iter().filter_map(Weak::upgrade).for_each(|bindings| bindings.forget(self.number));
    }
}
