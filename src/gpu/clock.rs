//! The GPU's own time of its compute passes, by timestamp queries around each.

use std::sync::Mutex;
use std::time::Duration;

use super::buffer::BufferSlice;
use super::{Gpu, Pending, trace};
use crate::error::{Error, GpuError};
use futures::FutureExt;

/// Passes that can be timed before their times must be taken. With two queries each they fill the
/// largest query set.
const MAX_PASSES: u32 = wgpu::QUERY_SET_MAX_QUERIES / 2;
/// Bytes of one timestamp.
const TIMESTAMP_BYTES: u64 = 8;

/// Timestamps of the passes since they were last taken.
#[derive(Debug)]
pub(super) struct Clock {
    queries: wgpu::QuerySet,
    resolved: BufferSlice,
    /// Passes begun since, including those without a query.
    passes: Mutex<u32>,
}

impl Clock {
    fn new(device: &wgpu::Device) -> Self {
        let queries = device.create_query_set(&wgpu::QuerySetDescriptor {
            label: Some("syncbn timestamps"),
            ty: wgpu::QueryType::Timestamp,
            count: wgpu::QUERY_SET_MAX_QUERIES,
        });
        let size_bytes = u64::from(wgpu::QUERY_SET_MAX_QUERIES) * TIMESTAMP_BYTES;
        let buffer = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("syncbn timestamps"),
            size: size_bytes,
            usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        });
        let resolved = BufferSlice::new(buffer, 0, size_bytes);
        Self { queries, resolved, passes: Mutex::new(0) }
    }

    /// Queries of the next pass. `None` when no query is left.
    pub fn next_pass(&self) -> Option<wgpu::ComputePassTimestampWrites<'_>> {
        let mut passes = trace::lock(&self.passes);
        let first = 2 * *passes;
        *passes = passes.saturating_add(1);
        (first + 1 < wgpu::QUERY_SET_MAX_QUERIES).then(|| wgpu::ComputePassTimestampWrites {
            query_set: &self.queries,
            beginning_of_pass_write_index: Some(first),
            end_of_pass_write_index: Some(first + 1),
        })
    }
}

impl Gpu {
    /// From now on every pass is timed.
    pub fn start_clock(&self) -> Result<(), GpuError> {
        if !self.context.device.features().contains(wgpu::Features::TIMESTAMP_QUERY) {
            return Err(GpuError::NoTimestamps { device: self.name().to_owned() });
        }
        self.context.clock.get_or_init(|| Clock::new(&self.context.device));
        Ok(())
    }

    /// Sum of the times of all passes since the last call, each from its beginning to its end.
    pub fn take_time(&self, deadline: Duration) -> Pending<Duration> {
        let name = self.name().to_owned();
        let Some(clock) = self.context.clock.get() else {
            return std::future::ready(Err(GpuError::NoTimestamps { device: name }.into())).boxed();
        };
        let passes = std::mem::take(&mut *trace::lock(&clock.passes));
        if passes == 0 {
            return std::future::ready(Ok(Duration::ZERO)).boxed();
        }
        if passes > MAX_PASSES {
            let error =
                GpuError::TooManyPasses { device: name, found: passes, allowed: MAX_PASSES };
            return std::future::ready(Err(error.into())).boxed();
        }
        let used = BufferSlice {
            size_bytes: 2 * u64::from(passes) * TIMESTAMP_BYTES,
            ..clock.resolved.clone()
        };
        let bytes = self.submit_and_read("reading timestamps", deadline, &used, |recorder| {
            recorder.resolve(&clock.queries, 2 * passes, &clock.resolved);
        });
        let period_ns = f64::from(self.context.queue.get_timestamp_period());
        async move {
            let ticks: Vec<u64> = bytemuck::pod_collect_to_vec(&bytes.await?);
            let total: u64 =
                ticks.chunks_exact(2).map(|pass| pass[1].saturating_sub(pass[0])).sum();
            Ok::<_, Error>(Duration::from_secs_f64(total as f64 * period_ns * 1e-9))
        }
        .boxed()
    }
}
