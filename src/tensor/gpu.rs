//! Tensors that are slices of GPU buffers: the application's, as bindings, and of a call's memory.

use std::sync::Arc;

use super::{DType, Memory, Tensor};
use crate::device::{Device, Kind};
use crate::error::{ArgumentError, Error};
use crate::gpu::{BufferSlice, Gpu, Lease};
use crate::shape::element_count;

impl Device {
    /// A tensor of f32 that is a slice of the application's buffer, from `offset_bytes` on.
    ///
    /// The buffer must belong to this device, and so to its `wgpu::Instance`: wgpu cannot
    /// distinguish buffers of two instances, and takes one of another instance for other memory of
    /// this device, or panics. Inputs and outputs may be slices of one buffer if they share no
    /// byte. [`Tensor::to_vec`] needs the usage `COPY_SRC`, [`Tensor::write`] needs `COPY_DST`.
    ///
    /// # Errors
    /// [`ArgumentError`] when the slice does not fit the buffer, is not aligned to the device's
    /// `min_storage_buffer_offset_alignment`, or lacks the usage `STORAGE`, and when the device is
    /// the host.
    pub fn wrap(
        &self,
        buffer: wgpu::Buffer,
        offset_bytes: u64,
        dims: &[usize],
    ) -> Result<Tensor, Error> {
        self.wrap_as(buffer, offset_bytes, dims, DType::F32)
    }

    /// [`wrap`](Self::wrap) with another storage type. The slice ends at a whole word of 4 bytes.
    /// If a 16-bit tensor has an odd number of elements, no kernel touches the rest of its last
    /// word.
    ///
    /// # Errors
    /// As [`wrap`](Self::wrap).
    pub fn wrap_as(
        &self,
        buffer: wgpu::Buffer,
        offset_bytes: u64,
        dims: &[usize],
        dtype: DType,
    ) -> Result<Tensor, Error> {
        let size_bytes = element_count(dims)?.saturating_mul(dtype.size_bytes());
        let Kind::Gpu(gpu) = self.kind() else {
            return Err(ArgumentError::NotAGpu {
                call: "Device::wrap",
                device: self.to_string(),
                instead: "a tensor of the host owns its values: Device::upload copies them in",
            }
            .into());
        };
        let slice = gpu.wrap(buffer, offset_bytes, size_bytes)?;
        Ok(Tensor::new(self, dims, dtype, Memory::Gpu { gpu: gpu.clone(), slice }))
    }
}

impl Tensor {
    /// The part of a buffer that a tensor on a GPU is: the buffer, the offset and the size in
    /// bytes, a multiple of 4. A kernel of the application can bind it. `None` on the host, and for
    /// a tensor without elements.
    ///
    /// This crate does not see what such a kernel writes. Overwriting an input between forward and
    /// backward makes the gradients wrong.
    pub fn binding(&self) -> Option<wgpu::BufferBinding<'_>> {
        match &self.memory {
            Memory::Gpu { slice, .. } => {
                let size = Some(
                    wgpu::BufferSize::new(slice.size_bytes).filter(|_| self.element_count() > 0)?,
                );
                Some(wgpu::BufferBinding {
                    buffer: &slice.buffer,
                    offset: slice.offset_bytes,
                    size,
                })
            }
            Memory::Host { .. } => None,
        }
    }

    /// A tensor of (C) f32 that is a slice of a call's memory.
    pub(crate) fn of_channels(
        device: &Device,
        gpu: &Gpu,
        (lease, slice): (&Arc<Lease>, &BufferSlice),
        channels: usize,
    ) -> Self {
        let memory = Memory::Gpu { gpu: gpu.clone(), slice: slice.clone() };
        Self { lease: Some(lease.clone()), ..Self::new(device, &[channels], DType::F32, memory) }
    }
}
