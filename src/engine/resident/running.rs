//! Running statistics where they lie on the device.

use std::time::Duration;

use bytemuck::{Pod, Zeroable};

use crate::error::Error;
use crate::gpu::{BufferSlice, Gpu};
use crate::plan::Role;
use crate::stats::RunningStats;

/// Running statistics on a device, (C); one channel that nobody reads where the layer has none.
#[derive(Debug)]
pub(crate) struct Running {
    slice: BufferSlice,
}

/// Where the running statistics of a call lie.
#[derive(Clone, Copy, Debug)]
pub(crate) enum RunningPlace<'a> {
    /// With the layer.
    Layer(&'a Running),
    /// In the application's vectors, mean and variance; `next` gets them after the batch.
    Vectors { layer: &'a Running, now: [&'a BufferSlice; 2], next: Option<[&'a BufferSlice; 2]> },
}

impl<'a> RunningPlace<'a> {
    /// The slice of a role; `None` if the role is no running statistic.
    pub fn slice(self, role: Role) -> Option<&'a BufferSlice> {
        match (self, role) {
            (Self::Layer(running) | Self::Vectors { layer: running, .. }, Role::Running) => {
                Some(&running.slice)
            }
            (Self::Vectors { now: [mean, _], .. }, Role::RunningMean) => Some(mean),
            (Self::Vectors { now: [_, variance], .. }, Role::RunningVariance) => Some(variance),
            (Self::Vectors { next: Some([mean, _]), .. }, Role::NextMean) => Some(mean),
            (Self::Vectors { next: Some([_, variance]), .. }, Role::NextVariance) => Some(variance),
            _ => None,
        }
    }
}

/// One channel as the kernels read and write it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
#[repr(C)]
struct Entry {
    mean: f32,
    var: f32,
    /// Batches counted, the lower word first: with every channel, because invocations must not
    /// share a word.
    batches: [u32; 2],
}

fn entries(stats: &RunningStats) -> Vec<Entry> {
    let batches = [stats.num_batches_tracked as u32, (stats.num_batches_tracked >> 32) as u32];
    stats.mean.iter().zip(&stats.var).map(|(&mean, &var)| Entry { mean, var, batches }).collect()
}

impl Running {
    pub fn new(gpu: &Gpu, stats: Option<&RunningStats>) -> Result<Self, Error> {
        let entries = stats.map_or_else(|| vec![Entry::default()], entries);
        Ok(Self { slice: gpu.upload(&entries)? })
    }

    /// Replaces them, in order with submitted commands.
    pub fn write(&mut self, gpu: &Gpu, stats: &RunningStats) -> Result<(), Error> {
        gpu.write(&self.slice, bytemuck::cast_slice(&entries(stats)))
    }

    /// Brings them to the host.
    pub async fn read(&self, gpu: &Gpu, deadline: Duration) -> Result<RunningStats, Error> {
        let bytes = gpu
            .submit_and_read("reading running statistics", deadline, &self.slice, |_| {})
            .await?;
        let entries: Vec<Entry> = bytemuck::pod_collect_to_vec(&bytes);
        let [low, high] = entries.first().map_or([0, 0], |entry| entry.batches.map(u64::from));
        Ok(RunningStats {
            mean: entries.iter().map(|entry| entry.mean).collect(),
            var: entries.iter().map(|entry| entry.var).collect(),
            num_batches_tracked: high << 32 | low,
        })
    }
}
