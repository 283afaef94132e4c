//! A device whose kernels' sources a test rewrites.

use std::sync::Arc;

use crate::device::{Device, FastPaths};
use crate::error::Error;

/// Uses a device that the application already has, as [`Device::from_wgpu_with`] does. The WGSL
/// source of every kernel passes through `rewrite` before it is compiled. So a test can imitate the
/// transformations of another compiler.
///
/// # Errors
/// As [`Device::from_wgpu_with`].
pub fn with_rewritten_kernels(
    device: wgpu::Device,
    queue: wgpu::Queue,
    paths: FastPaths,
    rewrite: impl Fn(&str) -> String + Send + Sync + 'static,
) -> Result<Device, Error> {
    Device::with_rewriting(device, queue, paths, Arc::new(rewrite))
}
