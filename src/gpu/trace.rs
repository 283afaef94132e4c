//! Tells whoever listens by `tracing` what a call costs: memory, and everything else that is worth
//! counting.
//!
//! One event each, of level TRACE: target `syncbn::memory` with `size_bytes` for memory that is
//! allocated on a device, target `syncbn::cost` with `what` for a submission, a bind group, a
//! pipeline, or a lock that is taken.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Memory is allocated on a device.
pub(super) fn allocation(size_bytes: u64) {
    tracing::trace!(target: "syncbn::memory", size_bytes, "allocating");
}

/// Commands are given to a queue.
pub(super) fn submission() {
    tracing::trace!(target: "syncbn::cost", what = "submission");
}

/// A bind group is made.
pub(super) fn bind_group() {
    tracing::trace!(target: "syncbn::cost", what = "bind group");
}

/// A pipeline is built.
pub(super) fn pipeline() {
    tracing::trace!(target: "syncbn::cost", what = "pipeline");
}

/// Takes a lock of what a device shares, and says so.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    tracing::trace!(target: "syncbn::cost", what = "lock");
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
