//! A device that is being opened: its name, the check of its limits, and the fast paths that its
//! features offer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::polling::Poller;
use crate::error::{Error, LimitError};
use crate::fast_paths::FastPaths;
use crate::shaders::WORKGROUP_SIZE;

/// Storage buffers of the kernel that binds most of them.
const MAX_STORAGE_BUFFERS: u32 = 8;
/// Workgroup memory of the kernel that uses most of it, in bytes.
const WORKGROUP_MEMORY_BYTES: u32 = 16_384;

/// Number of the next GPU opened in this process. Virtual devices of one adapter differ in nothing
/// else.
static NEXT_NUMBER: AtomicU64 = AtomicU64::new(0);

/// A device with the limits that every kernel needs.
pub(super) struct Opening {
    pub device: wgpu::Device,
    pub queue: wgpu::Queue,
    pub name: String,
    pub poller: Arc<Poller>,
}

impl Opening {
    pub fn new(device: wgpu::Device, queue: wgpu::Queue) -> Result<Self, Error> {
        let info = device.adapter_info();
        let number = NEXT_NUMBER.fetch_add(1, Ordering::Relaxed);
        // A browser may hide names.
        let adapter = if info.name.is_empty() { "an adapter" } else { &info.name };
        let name = format!("{adapter} ({}) #{number}", info.backend);
        check_limits(&name, &device.limits())?;
        let poller = Arc::new(Poller::new(device.clone(), name.clone()));
        Ok(Self { device, queue, name, poller })
    }

    /// Those of these fast paths whose features the device has. The probe then tests the driver.
    pub fn offered(&self, paths: FastPaths) -> FastPaths {
        FastPaths { subgroups: paths.subgroups && has_subgroups(&self.device), ..paths }
    }
}

/// Whether kernels may merge four neighbouring invocations in registers. Browsers need subgroups
/// enabled in the source, which naga does not support yet.
fn has_subgroups(device: &wgpu::Device) -> bool {
    let has_feature = device.features().contains(wgpu::Features::SUBGROUP);
    has_feature && device.adapter_info().subgroup_min_size >= 4 && !cfg!(target_arch = "wasm32")
}

/// Refuses a device below the portable limits of WebGPU.
fn check_limits(name: &str, limits: &wgpu::Limits) -> Result<(), LimitError> {
    let needed = [
        (
            "max_compute_invocations_per_workgroup",
            limits.max_compute_invocations_per_workgroup,
            WORKGROUP_SIZE,
        ),
        ("max_compute_workgroup_size_x", limits.max_compute_workgroup_size_x, WORKGROUP_SIZE),
        (
            "max_storage_buffers_per_shader_stage",
            limits.max_storage_buffers_per_shader_stage,
            MAX_STORAGE_BUFFERS,
        ),
        (
            "max_compute_workgroup_storage_size",
            limits.max_compute_workgroup_storage_size,
            WORKGROUP_MEMORY_BYTES,
        ),
    ];
    for (limit, found, expected) in needed {
        if found < expected {
            return Err(LimitError::Device {
                device: name.to_owned(),
                limit,
                found: found.into(),
                expected: expected.into(),
            });
        }
    }
    Ok(())
}
