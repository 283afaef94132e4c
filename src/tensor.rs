//! Tensors: a slice of a GPU buffer or host memory, with its dimensions, and the forms in which a
//! call takes them. The module knows no statistics.

mod allocate;
#[cfg(feature = "gpu")]
mod gpu;
mod list;
mod memory;
mod seen;

use std::sync::Arc;

use crate::device::Device;
use crate::dtype::with_element;
pub use crate::dtype::{DType, Element};
use crate::error::{ArgumentError, Error, ShapeError};
use crate::gpu::{BufferSlice, Lease};
pub use crate::shape::Layout;
use crate::shape::Shape;
pub use list::{Allocated, Output, Ranks, RanksMut, Target};
pub(crate) use list::{List, ListMut, Tensors};
pub(crate) use memory::Memory;
use memory::{HostValues, Words, next_version};
pub(crate) use seen::Seen;

/// A tensor on a device, row-major without gaps, of one of the storage types of [`DType`].
///
/// On a GPU it is a slice of a buffer, which is its own or the application's. On the host it owns
/// its values.
#[derive(Debug)]
pub struct Tensor {
    device: Device,
    dims: Vec<usize>,
    dtype: DType,
    layout: Layout,
    memory: Memory,
    /// The memory of a call that this tensor is a part of. No other call gets it while a handle
    /// exists.
    lease: Option<Arc<Lease>>,
}

impl Tensor {
    fn new(device: &Device, dims: &[usize], dtype: DType, memory: Memory) -> Self {
        Self {
            device: device.clone(),
            dims: dims.to_vec(),
            dtype,
            layout: Layout::default(),
            memory,
            lease: None,
        }
    }

    /// The same memory with its dimensions read in another layout: (N, spatial…, C) with
    /// [`Layout::ChannelsLast`].
    pub fn with_layout(self, layout: Layout) -> Self {
        Self { layout, ..self }
    }

    /// A tensor of zeros with the dimensions, storage type, layout and device of this one.
    pub(crate) fn zeros_like(&self) -> Result<Self, Error> {
        Ok(self.device.zeros_of(&self.dims, self.dtype)?.with_layout(self.layout))
    }

    /// Replaces all values. There must be as many as the tensor has elements, of its storage type.
    ///
    /// On a GPU the write happens at once, before everything that is recorded in an encoder and not
    /// yet submitted. Copies there are of whole words: if a 16-bit tensor has an odd number of
    /// elements, the rest of its last word becomes 0.
    ///
    /// # Errors
    /// [`ArgumentError::Length`], [`ArgumentError::DType`], or [`ArgumentError::Usage`] for an
    /// application's buffer without `COPY_DST`.
    pub fn write<T: Element>(&mut self, values: &[T]) -> Result<(), Error> {
        let found = values.len() as u64;
        let expected = self.element_count() as u64;
        if found != expected {
            return Err(ArgumentError::Length { argument: "values", found, expected }.into());
        }
        self.check_dtype::<T>()?;
        match self.memory_mut() {
            Memory::Host { values: owned, .. } => owned.slice_mut().copy_from_slice(values),
            Memory::Gpu { gpu, slice } => gpu.write(slice, bytemuck::cast_slice(values))?,
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

    /// Bytes of its elements.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.element_count() as u64 * self.dtype.size_bytes()
    }

    /// The values of a tensor on the host, without a copy. `None` on a GPU, and if they are stored
    /// as another type.
    pub fn as_slice<T: Element>(&self) -> Option<&[T]> {
        match &self.memory {
            Memory::Host { values, .. } if self.dtype == T::DTYPE => Some(values.slice()),
            _ => None,
        }
    }

    /// [`as_slice`](Self::as_slice) for writing. Backward then refuses a forward call that has read
    /// the tensor before.
    pub fn as_mut_slice<T: Element>(&mut self) -> Option<&mut [T]> {
        match &mut self.memory {
            Memory::Host { values, .. } if self.dtype == T::DTYPE => Some(values.slice_mut()),
            _ => None,
        }
    }

    /// The same memory of a GPU as another `Tensor`, without a copy. Each sees what is written
    /// through the other.
    ///
    /// # Errors
    /// [`ArgumentError::NotAGpu`] on the host, where a tensor owns its values.
    pub fn handle(&self) -> Result<Self, Error> {
        match &self.memory {
            Memory::Gpu { .. } => Ok(self.alias()),
            Memory::Host { .. } => Err(ArgumentError::NotAGpu {
                call: "Tensor::handle",
                device: self.device.to_string(),
                instead: "a tensor of the host owns its values: lend it, or upload a copy",
            }
            .into()),
        }
    }

    /// A [`handle`](Self::handle), or on the host a copy that takes the place of this one.
    pub(crate) fn alias(&self) -> Self {
        let memory = match &self.memory {
            Memory::Gpu { gpu, slice } => Memory::Gpu { gpu: gpu.clone(), slice: slice.clone() },
            Memory::Host { threads, values: HostValues { words, id, version } } => Memory::Host {
                threads: threads.clone(),
                values: HostValues { words: words.clone(), id: *id, version: *version },
            },
        };
        let layout = self.layout;
        let lease = self.lease.clone();
        Self { layout, lease, ..Self::new(&self.device, &self.dims, self.dtype, memory) }
    }

    /// Reads the values back, as f32. This is exact for every storage type.
    ///
    /// # Errors
    /// [`GpuError`](crate::error::GpuError) when the device is lost, refuses the copy, or does not
    /// deliver within its deadline; [`ArgumentError::Usage`] for an application's buffer without
    /// `COPY_SRC`.
    ///
    /// # Cancel safety
    /// A dropped future has no effect.
    pub async fn to_vec(&self) -> Result<Vec<f32>, Error> {
        with_element!(self.dtype, T => {
            Ok(self.to_vec_of::<T>().await?.into_iter().map(T::to_f32).collect())
        })
    }

    /// Reads the values back as they are stored.
    ///
    /// # Errors
    /// [`ArgumentError::DType`] when they are stored as another type. Otherwise as
    /// [`to_vec`](Self::to_vec).
    ///
    /// # Cancel safety
    /// A dropped future has no effect.
    pub async fn to_vec_of<T: Element>(&self) -> Result<Vec<T>, Error> {
        if self.dtype != T::DTYPE {
            let expected = format!("{}, as to_vec_of was asked for; to_vec widens", T::DTYPE);
            let argument = "the tensor".to_owned();
            return Err(ArgumentError::DType { argument, found: self.dtype, expected }.into());
        }
        if self.element_count() == 0 {
            return Ok(Vec::new());
        }
        self.check_readable()?;
        match &self.memory {
            Memory::Gpu { gpu, slice } => {
                let bytes = gpu
                    .submit_and_read("reading a tensor", self.device.deadline(), slice, |_| {})
                    .await?;
                let mut values = bytemuck::pod_collect_to_vec(&bytes);
                // A slice has whole words, and at least one.
                values.truncate(self.element_count());
                Ok(values)
            }
            Memory::Host { values, .. } => Ok(values.slice().to_vec()),
        }
    }

    fn check_dtype<T: Element>(&self) -> Result<(), ArgumentError> {
        let found = T::DTYPE;
        let expected = self.dtype;
        if found == expected {
            return Ok(());
        }
        Err(ArgumentError::DType {
            argument: "values".to_owned(),
            found,
            expected: expected.to_string(),
        })
    }

    /// Refuses a tensor that [`write`](Self::write) cannot write to.
    pub(crate) fn check_writable(&self) -> Result<(), ArgumentError> {
        self.slice().map_or(Ok(()), BufferSlice::check_writable)
    }

    /// Refuses a tensor that [`to_vec`](Self::to_vec) cannot read.
    pub(crate) fn check_readable(&self) -> Result<(), ArgumentError> {
        self.slice().map_or(Ok(()), BufferSlice::check_readable)
    }

    /// Whether two tensors share memory.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        match (self.slice(), other.slice()) {
            // wgpu numbers buffers per instance: equal handles on two devices are two buffers.
            (Some(a), Some(b)) => a.overlaps(b) && self.device.is_same(&other.device),
            // Host tensors own their memory.
            _ => false,
        }
    }

    /// The shape of an activation in this layout.
    pub(crate) fn shape(&self) -> Result<Shape, ShapeError> {
        Shape::new(&self.dims, self.layout)
    }

    /// The memory for writing. The tensor gets a new version.
    pub(crate) fn memory_mut(&mut self) -> &mut Memory {
        match &mut self.memory {
            Memory::Gpu { gpu, slice } => gpu.note_write(slice, next_version()),
            Memory::Host { values, .. } => values.version = next_version(),
        }
        &mut self.memory
    }

    /// The slice of a GPU's buffer.
    pub(crate) fn slice(&self) -> Option<&BufferSlice> {
        match &self.memory {
            Memory::Gpu { slice, .. } => Some(slice),
            Memory::Host { .. } => None,
        }
    }
}

/// A tensor of zeros like each of these.
pub(crate) fn all_like(tensors: &[&Tensor]) -> Result<Vec<Tensor>, Error> {
    tensors.iter().map(|tensor| tensor.zeros_like()).collect()
}
