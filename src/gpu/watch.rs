//! Bytes of the application's buffers that a saved call needs unchanged.
//!
//! An application wraps the same bytes anew for every call, so the saved tensor does not see a
//! write through a later one. Every write to an application's bytes is reported here, and the
//! watches over them are notified.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex};

use super::buffer::BufferSlice;
use super::{Gpu, trace};

/// All watches of the process, because a device may be taken over more than once.
static WATCHED: LazyLock<Mutex<HashMap<wgpu::Buffer, Vec<Watched>>>> =
    LazyLock::new(Mutex::default);

#[derive(Debug)]
struct Watched {
    gpu: Gpu,
    bytes: Range<u64>,
    is_written: Arc<AtomicBool>,
}

/// Watches bytes of a buffer until it is dropped.
#[derive(Debug)]
pub(crate) struct Watch {
    buffer: wgpu::Buffer,
    is_written: Arc<AtomicBool>,
}

impl Watch {
    /// Whether this crate has written to any of the bytes since it began.
    pub fn is_written(&self) -> bool {
        self.is_written.load(Ordering::Relaxed)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut all = trace::lock(&WATCHED);
        let Some(of_buffer) = all.get_mut(&self.buffer) else { return };
        let is_own = |watched: &mut Watched| Arc::ptr_eq(&watched.is_written, &self.is_written);
        let ended: Vec<Watched> = of_buffer.extract_if(.., is_own).collect();
        if of_buffer.is_empty() {
            all.remove(&self.buffer);
        }
        // Dropped after the lock is free, because this may drop the last handle of a device.
        drop(all);
        drop(ended);
    }
}

impl Gpu {
    /// Begins to watch the bytes of a slice.
    pub fn watch(&self, slice: &BufferSlice) -> Watch {
        let is_written = Arc::<AtomicBool>::default();
        let watched =
            Watched { gpu: self.clone(), bytes: slice.bytes(), is_written: is_written.clone() };
        trace::lock(&WATCHED).entry(slice.buffer.clone()).or_default().push(watched);
        Watch { buffer: slice.buffer.clone(), is_written }
    }

    /// Notifies the watches over bytes of a slice that these are written.
    pub fn notify_written(&self, slice: &BufferSlice) {
        let bytes = slice.bytes();
        let overlaps =
            |watched: &&Watched| watched.bytes.start < bytes.end && bytes.start < watched.bytes.end;
        let found: Vec<(Gpu, Arc<AtomicBool>)> = {
            let all = trace::lock(&WATCHED);
            let of_buffer = all.get(&slice.buffer).into_iter().flatten();
            of_buffer
                .filter(overlaps)
                .map(|watched| (watched.gpu.clone(), watched.is_written.clone()))
                .collect()
        };
        // wgpu numbers buffers per instance: equal handles on two devices are two buffers.
        for (gpu, is_written) in found {
            if *self == gpu {
                is_written.store(true, Ordering::Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fast_paths::FastPaths;

    /// Watches over a buffer that is kept alive by them.
    fn watches_over(buffer: &wgpu::Buffer) -> usize {
        trace::lock(&WATCHED).get(buffer).map_or(0, Vec::len)
    }

    #[test]
    fn a_watch_is_notified_of_its_bytes_alone_and_leaves_nothing_behind() {
        let (device, queue) = wgpu::Device::noop(&wgpu::DeviceDescriptor::default());
        let usage = wgpu::BufferUsages::STORAGE;
        let descriptor =
            wgpu::BufferDescriptor { label: None, size: 1024, usage, mapped_at_creation: false };
        let buffer = device.create_buffer(&descriptor);
        let gpu = Gpu::new(device, queue, FastPaths::default()).expect("a device");
        let slice = |offset: u64| gpu.wrap(buffer.clone(), offset, 256).expect("a slice");
        let first = gpu.watch(&slice(0));
        let second = gpu.watch(&slice(256));
        gpu.notify_written(&slice(512));
        assert!(!first.is_written() && !second.is_written());
        gpu.notify_written(&slice(256));
        assert!(!first.is_written() && second.is_written());
        assert_eq!(watches_over(&buffer), 2);
        drop(second);
        assert_eq!(watches_over(&buffer), 1);
        drop(first);
        assert_eq!(watches_over(&buffer), 0);
    }
}
