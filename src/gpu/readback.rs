//! Readback: copies to staging buffers in a submission, then maps them.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use super::buffer::BufferSlice;
use super::polling::{Poller, Waiting};
use super::pool::Lease;
use super::{Gpu, trace};
use crate::error::GpuError;

/// The largest staging buffer that is kept for later calls: sums of 65,536 channels. Whole tensors
/// are read seldom.
const MAX_KEPT_BYTES: u64 = 1 << 20;

/// A staging buffer as the target of a copy. It is recycled once it has been read.
#[derive(Debug)]
pub(super) struct Staging {
    lease: Lease,
    device: String,
}

/// Records a copy of `source` to a buffer that the host can map.
pub(super) fn copy_out(
    gpu: &Gpu,
    encoder: &mut wgpu::CommandEncoder,
    source: &BufferSlice,
) -> Staging {
    let Ok(lease) = gpu.context.staging.take(source.size_bytes, |size| {
        trace::allocation(size);
        let buffer = gpu.context.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("syncbn readback"),
            size,
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        Ok::<_, Infallible>(BufferSlice::new(buffer, 0, size))
    });
    // Not recycled while it is mapped or may become mapped.
    lease.set_recycled(false);
    encoder.copy_buffer_to_buffer(
        &source.buffer,
        source.offset_bytes,
        &lease.buffer,
        0,
        source.size_bytes,
    );
    Staging { lease, device: gpu.name().to_owned() }
}

impl Staging {
    /// A future that ends when it is mapped.
    pub fn map(
        &self,
        poller: &Arc<Poller>,
        submission: wgpu::SubmissionIndex,
        deadline: Duration,
    ) -> Waiting {
        let device = self.device.clone();
        poller.watch(submission, deadline, |reply| {
            self.lease.buffer.map_async(
                wgpu::MapMode::Read,
                ..self.lease.size_bytes,
                move |result| {
                    reply.send(result.map_err(|error| GpuError::Readback {
                        device,
                        message: error.to_string(),
                    }));
                },
            );
        })
    }

    /// Its bytes, now that it is mapped.
    pub fn take(self) -> Result<Vec<u8>, GpuError> {
        let view = self.lease.buffer.get_mapped_range(..self.lease.size_bytes);
        let view = view.map_err(|error| GpuError::Readback {
            device: self.device.clone(),
            message: error.to_string(),
        })?;
        let bytes = view.to_vec();
        drop(view);
        self.lease.buffer.unmap();
        self.lease.set_recycled(self.lease.size_bytes <= MAX_KEPT_BYTES);
        Ok(bytes)
    }
}
