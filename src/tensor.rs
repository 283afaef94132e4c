//! The opaque tensor: a slice of a GPU buffer or host memory, with its dimensions. Knows nothing of statistics.

use std::sync::atomic::{AtomicU64, Ordering};

use half::{bf16, f16};

use crate::device::{Device, Kind};
use crate::dtype::{DType, Element};
use crate::error::{ArgumentError, Error, GpuError, LimitError, ShapeError};
use crate::gpu::BufferSlice;
use crate::shape::{Layout, Shape, element_count};

/// A tensor on a device, row-major without gaps, of one of the storage types of [`DType`].
///
/// On a GPU it is a slice of a buffer, of its own or of the application's. On the host it owns its values.
#[derive(Debug)]
pub struct Tensor {
    device: Device,
    dims: Vec<usize>,
    dtype: DType,
    layout: Layout,
    storage: Storage,
    /// Tells it from every other tensor of the process.
    id: u64,
    /// When this crate last wrote to it, as a [`moment`]; 0 before it did.
    written_at: u64,
}

#[derive(Debug)]
pub(crate) enum Storage {
    Gpu(BufferSlice),
    Host(HostValues),
}

/// Values in host memory, as their storage type.
#[derive(Debug)]
pub(crate) enum HostValues {
    F32(Vec<f32>),
    F16(Vec<f16>),
    BF16(Vec<bf16>),
}

/// Runs an expression on the vector that some [`HostValues`] hold, whatever its type.
macro_rules! with_values {
    ($values:expr, $name:ident => $body:expr) => {
        match $values {
            HostValues::F32($name) => $body,
            HostValues::F16($name) => $body,
            HostValues::BF16($name) => $body,
        }
    };
}

impl Device {
    /// A tensor with these values, stored as they are: f32, [`half::f16`] or [`half::bf16`].
    ///
    /// # Errors
    /// [`ArgumentError::Length`] when `values` are not as many as `dims` say; [`LimitError::Buffer`] or
    /// [`GpuError::OutOfMemory`] when the device cannot hold them.
    pub fn upload<T: Element>(&self, dims: &[usize], values: &[T]) -> Result<Tensor, Error> {
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
                let mut owned = self.zeros_of(dims, T::DTYPE)?;
                owned.write(values)?;
                return Ok(owned);
            }
        };
        Ok(Tensor::new(self, dims, T::DTYPE, storage))
    }

    /// A tensor of zeros, stored as f32.
    ///
    /// # Errors
    /// [`LimitError::Buffer`] or [`GpuError::OutOfMemory`] when the device cannot hold it.
    pub fn zeros(&self, dims: &[usize]) -> Result<Tensor, Error> {
        self.zeros_of(dims, DType::F32)
    }

    /// A tensor of zeros.
    ///
    /// # Errors
    /// As [`zeros`](Self::zeros).
    pub fn zeros_of(&self, dims: &[usize], dtype: DType) -> Result<Tensor, Error> {
        let count = element_count(dims)?;
        let storage = match (self.kind(), dtype) {
            (Kind::Gpu(gpu), _) => {
                Storage::Gpu(named(gpu.new_buffer(count.saturating_mul(dtype.size_bytes()), None), dims)?)
            }
            (Kind::Host, DType::F32) => Storage::Host(HostValues::F32(host_zeros(self, count)?)),
            (Kind::Host, DType::F16) => Storage::Host(HostValues::F16(host_zeros(self, count)?)),
            (Kind::Host, DType::BF16) => Storage::Host(HostValues::BF16(host_zeros(self, count)?)),
        };
        Ok(Tensor::new(self, dims, dtype, storage))
    }

    /// A tensor that is a slice of the application's buffer, from `offset_bytes` on, stored as f32. The buffer must be of
    /// this device, and so of its `wgpu::Instance`: wgpu cannot tell buffers of two instances apart.
    ///
    /// Inputs and outputs may be slices of one buffer, as long as they share no byte. To be read with
    /// [`Tensor::to_vec`], the buffer needs `COPY_SRC`.
    ///
    /// # Errors
    /// [`ArgumentError`] when the slice does not fit the buffer, is not aligned to the device's
    /// `min_storage_buffer_offset_alignment`, lacks the usage `STORAGE`, or when the device is the host.
    pub fn wrap(&self, buffer: wgpu::Buffer, offset_bytes: u64, dims: &[usize]) -> Result<Tensor, Error> {
        self.wrap_as(buffer, offset_bytes, dims, DType::F32)
    }

    /// [`wrap`](Self::wrap) with another storage type. The slice ends at a whole word of 4 bytes; where a 16-bit tensor
    /// has an odd number of elements, the rest of its last word is left as it is.
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
            return Err(ArgumentError::NotAGpu { device: self.to_string() }.into());
        };
        let slice = gpu.wrap(buffer, offset_bytes, size_bytes)?;
        Ok(Tensor::new(self, dims, dtype, Storage::Gpu(slice)))
    }
}

/// What a tensor was when a call saw it, to be recognized when it is given again.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TensorKey {
    dims: Vec<usize>,
    dtype: DType,
    layout: Layout,
    memory: Memory,
}

#[derive(Clone, Debug, PartialEq)]
enum Memory {
    /// The same slice of the same buffer, which a framework may wrap anew for every call.
    Gpu(BufferSlice),
    /// The same tensor.
    Host(u64),
}

/// The next moment of the process, later than all before it.
pub(crate) fn moment() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Tensor {
    fn new(device: &Device, dims: &[usize], dtype: DType, storage: Storage) -> Self {
        let (device, dims, layout) = (device.clone(), dims.to_vec(), Layout::default());
        Self { device, dims, dtype, layout, storage, id: moment(), written_at: 0 }
    }

    /// The same memory, its dimensions read in another layout: (N, spatial…, C) with [`Layout::ChannelsLast`].
    pub fn with_layout(self, layout: Layout) -> Self {
        Self { layout, ..self }
    }

    /// A tensor of zeros with the dimensions, storage type, layout and device of this one.
    pub(crate) fn zeros_like(&self) -> Result<Self, Error> {
        Ok(self.device.zeros_of(&self.dims, self.dtype)?.with_layout(self.layout))
    }

    /// What it is now.
    pub(crate) fn key(&self) -> TensorKey {
        let memory = match &self.storage {
            Storage::Gpu(slice) => Memory::Gpu(slice.clone()),
            Storage::Host(_) => Memory::Host(self.id),
        };
        TensorKey { dims: self.dims.clone(), dtype: self.dtype, layout: self.layout, memory }
    }

    /// Replaces all values; they are as many as the tensor has, and of its storage type.
    ///
    /// # Errors
    /// [`ArgumentError::Length`], [`ArgumentError::DType`], or [`ArgumentError::Usage`] for an application's buffer
    /// without `COPY_DST`.
    pub fn write<T: Element>(&mut self, values: &[T]) -> Result<(), Error> {
        let (found, expected) = (values.len() as u64, self.element_count() as u64);
        if found != expected {
            return Err(ArgumentError::Length { argument: "values", found, expected }.into());
        }
        self.check_dtype::<T>()?;
        self.written_at = moment();
        match (&mut self.storage, self.device.kind()) {
            (Storage::Host(owned), _) => {
                with_values!(owned, owned => bytemuck::cast_slice_mut(owned).copy_from_slice(values));
            }
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

    /// How its elements are stored.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Where its channel axis lies.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The device that it lies on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Number of elements.
    pub fn element_count(&self) -> usize {
        self.dims.iter().product()
    }

    /// Brings the values to the caller, as f32: exact for every storage type.
    ///
    /// # Errors
    /// [`GpuError`] when the device is lost, refuses the copy, or does not deliver within its deadline.
    pub async fn to_vec(&self) -> Result<Vec<f32>, Error> {
        Ok(match self.dtype {
            DType::F32 => self.to_vec_of::<f32>().await?,
            DType::F16 => self.to_vec_of::<f16>().await?.into_iter().map(f16::to_f32).collect(),
            DType::BF16 => self.to_vec_of::<bf16>().await?.into_iter().map(bf16::to_f32).collect(),
        })
    }

    /// Brings the values to the caller as they are stored.
    ///
    /// # Errors
    /// [`ArgumentError::DType`] when they are stored as another type; [`GpuError`] as [`to_vec`](Self::to_vec).
    pub async fn to_vec_of<T: Element>(&self) -> Result<Vec<T>, Error> {
        self.check_dtype::<T>()?;
        if self.element_count() == 0 {
            return Ok(Vec::new());
        }
        match (&self.storage, self.device.kind()) {
            (Storage::Gpu(slice), Kind::Gpu(gpu)) => {
                let bytes = gpu.submit_and_read("reading a tensor", self.device.deadline(), slice, |_| {}).await?;
                let mut values = bytemuck::pod_collect_to_vec(&bytes);
                // A slice is of whole words, and of one at least.
                values.truncate(self.element_count());
                Ok(values)
            }
            (Storage::Host(owned), _) => Ok(with_values!(owned, owned => bytemuck::cast_slice(owned).to_vec())),
            (Storage::Gpu(_), Kind::Host) => Err(ArgumentError::NotAGpu { device: self.device.to_string() }.into()),
        }
    }

    fn check_dtype<T: Element>(&self) -> Result<(), ArgumentError> {
        let (found, expected) = (T::DTYPE, self.dtype);
        if found == expected {
            return Ok(());
        }
        Err(ArgumentError::DType { argument: "values".to_owned(), found, expected: expected.to_string() })
    }

    /// Whether this crate has written to it since a moment.
    pub(crate) fn is_written_since(&self, moment: u64) -> bool {
        self.written_at > moment
    }

    /// Refuses what [`write`](Self::write) cannot write to.
    pub(crate) fn check_writable(&self) -> Result<(), ArgumentError> {
        match &self.storage {
            Storage::Gpu(slice) => slice.check_writable(),
            Storage::Host(_) => Ok(()),
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

    /// The shape of an activation in this layout.
    pub(crate) fn shape(&self) -> Result<Shape, ShapeError> {
        Shape::new(&self.dims, self.layout)
    }

    pub(crate) fn storage(&self) -> &Storage {
        &self.storage
    }

    /// For writing: what it was is gone.
    pub(crate) fn storage_mut(&mut self) -> &mut Storage {
        self.written_at = moment();
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

/// Zeros in host memory, or an error where the allocator has none.
fn host_zeros<T: Element>(device: &Device, count: u64) -> Result<Vec<T>, Error> {
    let mut values = Vec::new();
    let reserved = usize::try_from(count).ok().filter(|&count| values.try_reserve_exact(count).is_ok());
    let count = reserved.ok_or_else(|| {
        let message = format!("{count} values of {} bytes", T::DTYPE.size_bytes());
        GpuError::OutOfMemory { device: device.to_string(), phase: "allocating a tensor", message }
    })?;
    values.resize(count, T::zeroed());
    Ok(values)
}
