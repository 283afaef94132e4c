//! The opaque tensor: a slice of a GPU buffer or host memory, with its dimensions. Knows nothing of statistics.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::device::{Device, Kind};
use crate::error::{ArgumentError, Error, GpuError, LimitError};
use crate::gpu::BufferSlice;
use crate::shape::element_count;

/// Bytes of an f32.
const F32_BYTES: u64 = 4;

/// An f32 tensor on a device, row-major without gaps.
///
/// On a GPU it is a slice of a buffer, of its own or of the application's. On the host it owns its values.
#[derive(Debug)]
pub struct Tensor {
    device: Device,
    dims: Vec<usize>,
    storage: Storage,
    version: u64,
}

#[derive(Debug)]
pub(crate) enum Storage {
    Gpu(BufferSlice),
    Host(Vec<f32>),
}

impl Device {
    /// A tensor with these values.
    ///
    /// # Errors
    /// [`ArgumentError::Length`] when `values` are not as many as `dims` say; [`LimitError::Buffer`] or
    /// [`GpuError::OutOfMemory`] when the device cannot hold them.
    pub fn upload(&self, dims: &[usize], values: &[f32]) -> Result<Tensor, Error> {
        let expected = element_count(dims)?;
        if values.len() as u64 != expected {
            return Err(ArgumentError::Length { argument: "values", found: values.len() as u64, expected }.into());
        }
        let storage = match self.kind() {
            Kind::Gpu(gpu) => {
                let bytes = bytemuck::cast_slice(values);
                Storage::Gpu(named(gpu.new_buffer(bytes.len() as u64, Some(bytes)), dims)?)
            }
            Kind::Host => {
                let mut owned = reserved(self, expected)?;
                owned.extend_from_slice(values);
                Storage::Host(owned)
            }
        };
        Ok(Tensor::new(self, dims, storage))
    }

    /// A tensor of zeros.
    ///
    /// # Errors
    /// [`LimitError::Buffer`] or [`GpuError::OutOfMemory`] when the device cannot hold it.
    pub fn zeros(&self, dims: &[usize]) -> Result<Tensor, Error> {
        let count = element_count(dims)?;
        let storage = match self.kind() {
            Kind::Gpu(gpu) => Storage::Gpu(named(gpu.new_buffer(count.saturating_mul(F32_BYTES), None), dims)?),
            Kind::Host => {
                let mut owned = reserved(self, count)?;
                owned.resize(count as usize, 0.0);
                Storage::Host(owned)
            }
        };
        Ok(Tensor::new(self, dims, storage))
    }

    /// A tensor that is a slice of the application's buffer, from `offset_bytes` on. The buffer must be of this device, and
    /// so of its `wgpu::Instance`: wgpu cannot tell buffers of two instances apart.
    ///
    /// Inputs and outputs may be slices of one buffer, as long as they share no byte. To be read with
    /// [`Tensor::to_vec`], the buffer needs `COPY_SRC`.
    ///
    /// # Errors
    /// [`ArgumentError`] when the slice does not fit the buffer, is not aligned to the device's
    /// `min_storage_buffer_offset_alignment`, lacks the usage `STORAGE`, or when the device is the host.
    pub fn wrap(&self, buffer: wgpu::Buffer, offset_bytes: u64, dims: &[usize]) -> Result<Tensor, Error> {
        let size_bytes = element_count(dims)?.saturating_mul(F32_BYTES);
        let Kind::Gpu(gpu) = self.kind() else {
            return Err(ArgumentError::NotAGpu { device: self.to_string() }.into());
        };
        let slice = gpu.wrap(buffer, offset_bytes, size_bytes)?;
        Ok(Tensor::new(self, dims, Storage::Gpu(slice)))
    }
}

/// What a tensor was when a call saw it, to be recognized when it is given again.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TensorKey {
    dims: Vec<usize>,
    memory: Memory,
}

#[derive(Clone, Debug, PartialEq)]
enum Memory {
    /// The same slice of the same buffer, which a framework may wrap anew for every call.
    Gpu(BufferSlice),
    /// The same host memory with nothing written by this crate in between.
    Host(u64),
}

/// Version of the next tensor that is made or written.
static NEXT_VERSION: AtomicU64 = AtomicU64::new(0);

impl Tensor {
    fn new(device: &Device, dims: &[usize], storage: Storage) -> Self {
        let version = NEXT_VERSION.fetch_add(1, Ordering::Relaxed);
        Self { device: device.clone(), dims: dims.to_vec(), storage, version }
    }

    /// What it is now.
    pub(crate) fn key(&self) -> TensorKey {
        let memory = match &self.storage {
            Storage::Gpu(slice) => Memory::Gpu(slice.clone()),
            Storage::Host(_) => Memory::Host(self.version),
        };
        TensorKey { dims: self.dims.clone(), memory }
    }

    /// Replaces all values; they are as many as the tensor has.
    ///
    /// # Errors
    /// [`ArgumentError::Length`], or [`ArgumentError::Usage`] for an application's buffer without `COPY_DST`.
    pub fn write(&mut self, values: &[f32]) -> Result<(), Error> {
        let (found, expected) = (values.len() as u64, self.element_count() as u64);
        if found != expected {
            return Err(ArgumentError::Length { argument: "values", found, expected }.into());
        }
        self.version = NEXT_VERSION.fetch_add(1, Ordering::Relaxed);
        match (&mut self.storage, self.device.kind()) {
            (Storage::Host(owned), _) => owned.copy_from_slice(values),
            (Storage::Gpu(slice), Kind::Gpu(gpu)) => gpu.write(slice, bytemuck::cast_slice(values))?,
            (Storage::Gpu(_), Kind::Host) => {
                return Err(ArgumentError::NotAGpu { device: self.device.to_string() }.into());
            }
        }
        Ok(())
    }

    /// The dimensions.
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// The device that it lies on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Number of elements.
    pub fn element_count(&self) -> usize {
        self.dims.iter().product()
    }

    /// Brings the values to the caller.
    ///
    /// # Errors
    /// [`GpuError`] when the device is lost, refuses the copy, or does not deliver within its deadline.
    pub async fn to_vec(&self) -> Result<Vec<f32>, Error> {
        if self.element_count() == 0 {
            return Ok(Vec::new());
        }
        match (&self.storage, self.device.kind()) {
            (Storage::Gpu(slice), Kind::Gpu(gpu)) => {
                let bytes = gpu.submit_and_read("reading a tensor", self.device.deadline(), slice, |_| {}).await?;
                let mut values = bytemuck::pod_collect_to_vec(&bytes);
                // An empty tensor owns 4 bytes.
                values.truncate(self.element_count());
                Ok(values)
            }
            (Storage::Host(values), _) => Ok(values.clone()),
            (Storage::Gpu(_), Kind::Host) => Err(ArgumentError::NotAGpu { device: self.device.to_string() }.into()),
        }
    }

    /// Whether two tensors share memory.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        match (&self.storage, &other.storage) {
            // wgpu numbers buffers per instance: equal handles on two devices are two buffers.
            (Storage::Gpu(a), Storage::Gpu(b)) => a.overlaps(b) && self.device.is_same(&other.device),
            // Host tensors own their memory.
            _ => false,
        }
    }

    pub(crate) fn storage(&self) -> &Storage {
        &self.storage
    }

    /// For writing: what it was is gone.
    pub(crate) fn storage_mut(&mut self) -> &mut Storage {
        self.version = NEXT_VERSION.fetch_add(1, Ordering::Relaxed);
        &mut self.storage
    }
}

/// Names the dimensions in an error that knows only bytes.
fn named(result: Result<BufferSlice, Error>, dims: &[usize]) -> Result<BufferSlice, Error> {
    result.map_err(|error| match error {
        Error::Limit(LimitError::Buffer { found_bytes, allowed_bytes, .. }) => {
            LimitError::Buffer { dims: dims.to_vec(), found_bytes, allowed_bytes }.into()
        }
        other => other,
    })
}

/// Host memory for `count` values, or an error where the allocator has none.
fn reserved(device: &Device, count: u64) -> Result<Vec<f32>, Error> {
    let mut values = Vec::new();
    usize::try_from(count).ok().and_then(|count| values.try_reserve_exact(count).ok()).ok_or_else(|| {
        let message = format!("{count} values of {F32_BYTES} bytes");
        GpuError::OutOfMemory { device: device.to_string(), phase: "allocating a tensor", message }
    })?;
    Ok(values)
}
