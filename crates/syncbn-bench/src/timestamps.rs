//! Owns the timestamp queries around one compute pass of this program's own.

use std::error::Error;
use std::time::Duration;

use syncbn::wgpu::{self, BufferUsages};

use crate::devices::Gpu;

/// Two timestamps.
const BYTES: u64 = 2 * wgpu::QUERY_SIZE as u64;

/// The beginning and the end of the last pass.
#[derive(Debug)]
pub struct Timestamps {
    gpu: Gpu,
    queries: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    staging: wgpu::Buffer,
}

impl Timestamps {
    /// For a device with the feature `TIMESTAMP_QUERY`.
    pub fn new(gpu: &Gpu) -> Self {
        let queries = gpu.device.create_query_set(&wgpu::QuerySetDescriptor {
            label: Some("begin and end"),
            ty: wgpu::QueryType::Timestamp,
            count: 2,
        });
        let buffer = |usage| {
            let label = Some("timestamps");
            let size = BYTES;
            gpu.device.create_buffer(&wgpu::BufferDescriptor {
                label,
                size,
                usage,
                mapped_at_creation: false,
            })
        };
        let resolved = buffer(BufferUsages::QUERY_RESOLVE | BufferUsages::COPY_SRC);
        let staging = buffer(BufferUsages::MAP_READ | BufferUsages::COPY_DST);
        Self { gpu: gpu.clone(), queries, resolved, staging }
    }

    /// The queries for the beginning of the pass.
    pub fn of_a_pass(&self) -> wgpu::ComputePassTimestampWrites<'_> {
        wgpu::ComputePassTimestampWrites {
            query_set: &self.queries,
            beginning_of_pass_write_index: Some(0),
            end_of_pass_write_index: Some(1),
        }
    }

    /// Time of the last pass. The readback is a submission of its own, so it does not slow the
    /// pass.
    pub fn read(&self) -> Result<Duration, Box<dyn Error>> {
        let mut encoder =
            self.gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        encoder.resolve_query_set(&self.queries, 0..2, &self.resolved, 0);
        encoder.copy_buffer_to_buffer(&self.resolved, 0, &self.staging, 0, BYTES);
        self.gpu.queue.submit([encoder.finish()]);
        self.staging.map_async(wgpu::MapMode::Read, .., drop);
        self.gpu.device.poll(wgpu::PollType::wait_indefinitely())?;
        let ticks: Vec<u64> = bytemuck::pod_collect_to_vec(&self.staging.get_mapped_range(..)?);
        self.staging.unmap();
        let nanoseconds = ticks[1].saturating_sub(ticks[0]) as f64
            * f64::from(self.gpu.queue.get_timestamp_period());
        Ok(Duration::from_nanos(nanoseconds as u64))
    }
}
