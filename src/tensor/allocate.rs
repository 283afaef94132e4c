//! Making tensors: from values, of zeros, as slices of the application's buffers.

use crate::device::{Device, Kind};
use crate::dtype::{DType, Element};
use crate::error::{ArgumentError, Error, LimitError};
use crate::gpu::BufferSlice;
use crate::shape::element_count;

use super::{HostValues, Memory, Tensor, Words};

impl Device {
    /// A tensor with these values, stored as they are: f32, [`half::f16`] or [`half::bf16`].
    ///
    /// # Errors
    /// [`ArgumentError::Length`] when the number of `values` does not match `dims`;
    /// [`LimitError::Buffer`], [`LimitError::HostMemory`] or
    /// [`GpuError::OutOfMemory`](crate::error::GpuError::OutOfMemory) when the device cannot hold
    /// them.
    pub fn upload<T: Element>(&self, dims: &[usize], values: &[T]) -> Result<Tensor, Error> {
        let expected = element_count(dims)?;
        if values.len() as u64 != expected {
            return Err(ArgumentError::Length {
                argument: "values",
                found: values.len() as u64,
                expected,
            }
            .into());
        }
        match self.kind() {
            Kind::Gpu(gpu) => {
                let bytes = bytemuck::cast_slice(values);
                let slice = named(gpu.new_buffer(bytes.len() as u64, Some(bytes)), dims)?;
                Ok(Tensor::new(self, dims, T::DTYPE, Memory::Gpu { gpu: gpu.clone(), slice }))
            }
            Kind::Host(_) => {
                let mut owned = self.zeros_of(dims, T::DTYPE)?;
                owned.write(values)?;
                Ok(owned)
            }
        }
    }

    /// A tensor of zeros, stored as f32.
    ///
    /// # Errors
    /// [`LimitError::Buffer`], [`LimitError::HostMemory`] or
    /// [`GpuError::OutOfMemory`](crate::error::GpuError::OutOfMemory) when the device cannot hold
    /// it.
    pub fn zeros(&self, dims: &[usize]) -> Result<Tensor, Error> {
        self.zeros_of(dims, DType::F32)
    }

    /// A tensor of zeros of any storage type.
    ///
    /// # Errors
    /// As [`zeros`](Self::zeros).
    pub fn zeros_of(&self, dims: &[usize], dtype: DType) -> Result<Tensor, Error> {
        let count = element_count(dims)?;
        let memory = match self.kind() {
            Kind::Gpu(gpu) => {
                let slice =
                    named(gpu.new_buffer(count.saturating_mul(dtype.size_bytes()), None), dims)?;
                Memory::Gpu { gpu: gpu.clone(), slice }
            }
            Kind::Host(threads) => {
                let words = match dtype {
                    DType::F32 => Words::F32(host_zeros(dims, count)?),
                    DType::F16 | DType::BF16 => Words::Half(host_zeros(dims, count)?),
                };
                Memory::Host { threads: threads.clone(), values: HostValues::new(words) }
            }
        };
        Ok(Tensor::new(self, dims, dtype, memory))
    }
}

/// Adds the dimensions to an error that has only bytes.
fn named(result: Result<BufferSlice, Error>, dims: &[usize]) -> Result<BufferSlice, Error> {
    result.map_err(|error| match error {
        Error::Limit(LimitError::Buffer { found_bytes, allowed_bytes, .. }) => {
            LimitError::Buffer { dims: dims.to_vec(), found_bytes, allowed_bytes }.into()
        }
        other => other,
    })
}

/// Zeros in host memory, or an error if the allocator has no memory.
fn host_zeros<T: bytemuck::Pod>(dims: &[usize], count: u64) -> Result<Vec<T>, LimitError> {
    // The system's memory is zero already, so its pages are not touched before their first use.
    let zeros = usize::try_from(count)
        .ok()
        .and_then(|count| bytemuck::allocation::try_zeroed_vec(count).ok());
    let Some(mut zeros) = zeros else {
        let found_bytes = count.saturating_mul(size_of::<T>() as u64);
        return Err(LimitError::HostMemory { dims: dims.to_vec(), found_bytes });
    };
    crate::host::prefer_large_pages(&mut zeros);
    Ok(zeros)
}
