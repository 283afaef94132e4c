//! The opaque tensor: a slice of a GPU buffer or host memory, with its dimensions. Knows nothing of statistics.

mod allocate;
mod seen;

use std::sync::atomic::{AtomicU64, Ordering};

use half::{bf16, f16};

use crate::device::{Device, Kind};
use crate::dtype::{DType, Element};
use crate::error::{ArgumentError, Error, ShapeError};
use crate::gpu::BufferSlice;
use crate::shape::{Layout, Shape};
pub(crate) use seen::Seen;

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
    /// When this crate last wrote to it by this handle, as a [`moment`]; 0 before it did.
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

/// The next moment of the process, later than all before it.
fn moment() -> u64 {
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

    /// Replaces all values; they are as many as the tensor has, and of its storage type. On a GPU copies are of whole words:
    /// where a 16-bit tensor has an odd number of elements, the rest of its last word becomes 0.
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
        self.note_write();
        match (&mut self.storage, self.device.kind()) {
            (Storage::Host(owned), _) => {
                with_values!(owned, owned => bytemuck::cast_slice_mut(owned).copy_from_slice(values));
            }
            (Storage::Gpu(slice), Kind::Gpu(gpu)) => gpu.write(slice, bytemuck::cast_slice(values))?,
            (Storage::Gpu(_), Kind::Host(_)) => {
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
    /// [`GpuError`](crate::GpuError) when the device is lost, refuses the copy, or does not deliver within its deadline;
    /// [`ArgumentError::Usage`] for an application's buffer without `COPY_SRC`.
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
    /// [`ArgumentError::DType`] when they are stored as another type; [`GpuError`](crate::GpuError) as [`to_vec`](Self::to_vec).
    pub async fn to_vec_of<T: Element>(&self) -> Result<Vec<T>, Error> {
        self.check_dtype::<T>()?;
        if self.element_count() == 0 {
            return Ok(Vec::new());
        }
        self.check_readable()?;
        match (&self.storage, self.device.kind()) {
            (Storage::Gpu(slice), Kind::Gpu(gpu)) => {
                let bytes = gpu.submit_and_read("reading a tensor", self.device.deadline(), slice, |_| {}).await?;
                let mut values = bytemuck::pod_collect_to_vec(&bytes);
                // A slice is of whole words, and of one at least.
                values.truncate(self.element_count());
                Ok(values)
            }
            (Storage::Host(owned), _) => Ok(with_values!(owned, owned => bytemuck::cast_slice(owned).to_vec())),
            (Storage::Gpu(_), Kind::Host(_)) => Err(ArgumentError::NotAGpu { device: self.device.to_string() }.into()),
        }
    }

    fn check_dtype<T: Element>(&self) -> Result<(), ArgumentError> {
        let (found, expected) = (T::DTYPE, self.dtype);
        if found == expected {
            return Ok(());
        }
        Err(ArgumentError::DType { argument: "values".to_owned(), found, expected: expected.to_string() })
    }

    /// Refuses what [`write`](Self::write) cannot write to.
    pub(crate) fn check_writable(&self) -> Result<(), ArgumentError> {
        match &self.storage {
            Storage::Gpu(slice) => slice.check_writable(),
            Storage::Host(_) => Ok(()),
        }
    }

    /// Refuses what [`to_vec`](Self::to_vec) cannot read.
    pub(crate) fn check_readable(&self) -> Result<(), ArgumentError> {
        match &self.storage {
            Storage::Gpu(slice) => slice.check_readable(),
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
        self.note_write();
        &mut self.storage
    }
}
