//! Counts of the work on a device: memory, submissions, bind groups, pipelines, locks.

use std::sync::{Mutex, MutexGuard, PoisonError};

pub(super) use crate::trace::{allocation, bind_group, defect, pipeline, submission};

/// Takes a lock of a device, and counts it.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    crate::trace::lock();
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
