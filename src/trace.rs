//! Tells whoever listens by `tracing` what the crate does: what its work costs, and what it found.
//!
//! | target | level | |
//! |---|---|---|
//! | `syncbn::device` | INFO | the devices that were opened |
//! | `syncbn::probe` | WARN | a defect of a driver |
//! | `syncbn::memory` | TRACE | memory that is allocated on a device, with `size_bytes` |
//! | `syncbn::cost` | TRACE | `what`: a submission, a bind group, a pipeline, or a lock that is taken |
//!
//! All use of `tracing` lies here. `trace/absent.rs` takes its place without that feature.

use std::fmt::{Debug, Display};

/// These devices were opened.
pub(crate) fn opened(devices: &[impl Debug]) {
    tracing::info!(target: "syncbn::device", ?devices, "devices");
}

/// The driver of a device has a defect.
pub(crate) fn defect(device: &str, defect: &impl Display) {
    tracing::warn!(target: "syncbn::probe", device, "{defect}");
}

/// Memory is allocated on a device.
pub(crate) fn allocation(size_bytes: u64) {
    tracing::trace!(target: "syncbn::memory", size_bytes, "allocating");
}

/// Commands are given to a queue.
pub(crate) fn submission() {
    cost("submission");
}

/// A bind group is made.
pub(crate) fn bind_group() {
    cost("bind group");
}

/// A pipeline is built.
pub(crate) fn pipeline() {
    cost("pipeline");
}

/// A lock is taken of what a device shares.
pub(crate) fn lock() {
    cost("lock");
}

fn cost(what: &'static str) {
    tracing::trace!(target: "syncbn::cost", what);
}
