//! What this crate's own tests, examples and tools reach into. **Unstable**: any release may change
//! or remove what is here.

use std::sync::Arc;

use crate::device::{Device, FastPaths};
use crate::error::Error;

pub use crate::collective::frame::{Frame, FrameError, Header, NodePayload, Payload, Phase};
pub use crate::shape::{Shape, Strides};
pub use crate::stats::normalization::{Centering, GradCentering, Normalization};

macro_rules! modules {
    ($($(#[$doc:meta])* $name:ident = $path:path;)*) => {$(
        $(#[$doc])*
        pub mod $name {
            pub use $path::*;
        }
    )*};
}

modules! {
    /// From shapes to kernels, workgroups and buffers.
    plan = crate::plan;
    /// What a driver is asked at opening.
    probe = crate::probe;
    /// WGSL texts, parameters and bindings.
    shaders = crate::shaders;
    /// The canonical tree over ranks.
    tree = crate::stats::tree;
}

/// Uses a device that the application already has, as [`Device::from_wgpu_with`] does. The WGSL
/// text of every kernel passes through `rewrite` before it is compiled, so that a test can do to it
/// what another compiler would.
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
