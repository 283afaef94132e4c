//! Slices of GPU buffers, which kernels bind.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytemuck::Pod;

use super::bindings::CacheToken;
use super::pool::Lease;
use super::scope::Scope;
use super::{Gpu, trace};
use crate::error::{ArgumentError, Error, LimitError};

/// A part of a buffer. Frameworks hand out slices of pooled pages, so a whole buffer is never
/// assumed.
#[derive(Clone, Debug)]
pub(crate) struct BufferSlice {
    pub buffer: wgpu::Buffer,
    pub offset_bytes: u64,
    /// 0 for an empty tensor, which is never bound.
    pub size_bytes: u64,
    /// Whether it is of an application's buffer. Other tensors may have its bytes too then.
    pub is_shared: bool,
    /// Evicts its cache entries with its last clone.
    pub(super) token: Arc<CacheToken>,
}

impl PartialEq for BufferSlice {
    /// Whether they are the same bytes, which a framework may wrap anew for every call.
    fn eq(&self, other: &Self) -> bool {
        (&self.buffer, self.offset_bytes, self.size_bytes)
            == (&other.buffer, other.offset_bytes, other.size_bytes)
    }
}

/// Usages of every tensor buffer: binding it, and copying into and out of it.
pub(crate) const TENSOR_USAGE: wgpu::BufferUsages = wgpu::BufferUsages::STORAGE
    .union(wgpu::BufferUsages::COPY_SRC)
    .union(wgpu::BufferUsages::COPY_DST);

impl BufferSlice {
    /// A part of a buffer that is not a slice yet.
    pub(super) fn new(buffer: wgpu::Buffer, offset_bytes: u64, size_bytes: u64) -> Self {
        Self { buffer, offset_bytes, size_bytes, is_shared: false, token: CacheToken::new() }
    }

    /// A dummy buffer, which no kernel reads. It has the size of the largest array element that a
    /// kernel may bind it for.
    pub fn dummy(device: &wgpu::Device) -> Self {
        let buffer = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("syncbn dummy"),
            size: 16,
            usage: TENSOR_USAGE,
            mapped_at_creation: false,
        });
        Self::new(buffer, 0, 16)
    }

    /// In the place of the lengths of samples that are not padded.
    pub fn no_lengths(device: &wgpu::Device) -> Self {
        let size = crate::plan::LENGTHS_BYTES;
        let buffer = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("syncbn no lengths"),
            size,
            usage: wgpu::BufferUsages::UNIFORM,
            mapped_at_creation: false,
        });
        Self::new(buffer, 0, size)
    }

    /// The part of the slice at these bytes, counted from its start. A shorter slice, such as a
    /// dummy, is returned whole.
    pub fn part(&self, bytes: std::ops::Range<u64>) -> Self {
        if bytes.end > self.size_bytes {
            return self.clone();
        }
        Self {
            offset_bytes: self.offset_bytes + bytes.start,
            size_bytes: bytes.end - bytes.start,
            ..self.clone()
        }
    }

    /// Its bytes within its buffer.
    pub fn bytes(&self) -> std::ops::Range<u64> {
        self.offset_bytes..self.offset_bytes + self.size_bytes
    }

    /// The slice as a binding.
    pub fn binding(&self) -> wgpu::BindingResource<'_> {
        wgpu::BindingResource::Buffer(wgpu::BufferBinding {
            buffer: &self.buffer,
            offset: self.offset_bytes,
            size: wgpu::BufferSize::new(self.size_bytes),
        })
    }

    /// Refuses a buffer without `COPY_DST`.
    pub fn check_writable(&self) -> Result<(), ArgumentError> {
        self.check_usage(wgpu::BufferUsages::COPY_DST)
    }

    /// Refuses a buffer without `COPY_SRC`.
    pub fn check_readable(&self) -> Result<(), ArgumentError> {
        self.check_usage(wgpu::BufferUsages::COPY_SRC)
    }

    fn check_usage(&self, expected: wgpu::BufferUsages) -> Result<(), ArgumentError> {
        let found = self.buffer.usage();
        if found.contains(expected) {
            return Ok(());
        }
        Err(ArgumentError::Usage {
            argument: "the tensor's buffer".to_owned(),
            found: format!("{found:?}"),
            expected: format!("{expected:?}"),
        })
    }

    /// Number of its cache token. Only clones of the slice have the same.
    pub fn number(&self) -> u64 {
        self.token.number
    }

    /// Version at which this crate last wrote to it, by this slice or a clone of it.
    pub fn written_at(&self) -> u64 {
        self.token.written_at.load(Ordering::Relaxed)
    }

    /// Whether two slices share a byte.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.size_bytes > 0
            && other.size_bytes > 0
            && self.buffer == other.buffer
            && self.offset_bytes < other.offset_bytes + other.size_bytes
            && other.offset_bytes < self.offset_bytes + self.size_bytes
    }
}

/// The size in bytes, rounded up to whole words. Bindings and copies take whole words only.
pub(super) fn in_words(size_bytes: u64) -> u64 {
    size_bytes.saturating_add(3).max(4) / 4 * 4
}

impl Gpu {
    /// Memory for one call, of any contents.
    pub fn scratch(&self, size_bytes: u64) -> Result<Lease, Error> {
        self.scratch_of(None, size_bytes)
    }

    /// A buffer of its own, holding `contents`, or zeros up to `size_bytes`.
    pub fn new_buffer(
        &self,
        size_bytes: u64,
        contents: Option<&[u8]>,
    ) -> Result<BufferSlice, Error> {
        self.buffer_for(TENSOR_USAGE, size_bytes, contents)
    }

    /// The same for these uses.
    fn buffer_for(
        &self,
        usage: wgpu::BufferUsages,
        size_bytes: u64,
        contents: Option<&[u8]>,
    ) -> Result<BufferSlice, Error> {
        let size_bytes = in_words(size_bytes);
        let allowed_bytes = self.caps().max_buffer_bytes;
        if size_bytes > allowed_bytes {
            return Err(LimitError::Buffer {
                dims: Vec::new(),
                found_bytes: size_bytes,
                allowed_bytes,
            }
            .into());
        }
        trace::allocation(size_bytes);
        let scope = Scope::open(self, "allocating a buffer");
        let buffer = self.context.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("syncbn"),
            size: size_bytes,
            usage,
            mapped_at_creation: contents.is_some(),
        });
        let mut written = Ok(());
        if let Some(contents) = contents {
            written = match buffer.get_mapped_range_mut(..) {
                Ok(mut view) => {
                    view.slice(..contents.len()).copy_from_slice(contents);
                    Ok(())
                }
                Err(error) => Err(scope.refused(error.to_string())),
            };
            buffer.unmap();
        }
        self.context.unheard.now(scope.close())?;
        written?;
        Ok(BufferSlice::new(buffer, 0, size_bytes))
    }

    /// A buffer of its own that holds these values.
    pub fn upload<T: Pod>(&self, values: &[T]) -> Result<BufferSlice, Error> {
        let bytes = bytemuck::cast_slice(values);
        self.new_buffer(bytes.len() as u64, Some(bytes))
    }

    /// A uniform buffer of its own that holds these values.
    pub fn upload_uniform<T: Pod>(&self, values: &[T]) -> Result<BufferSlice, Error> {
        let bytes = bytemuck::cast_slice(values);
        self.buffer_for(wgpu::BufferUsages::UNIFORM, bytes.len() as u64, Some(bytes))
    }

    /// Replaces the contents of a slice, in order with submissions. The rest of a last word becomes
    /// 0.
    pub fn write(&self, slice: &BufferSlice, bytes: &[u8]) -> Result<(), Error> {
        slice.check_writable()?;
        let scope = Scope::open(self, "writing a tensor");
        let (whole, rest) = bytes.split_at(bytes.len() / 4 * 4);
        if !whole.is_empty() {
            self.context.queue.write_buffer(&slice.buffer, slice.offset_bytes, whole);
        }
        // Copies are of whole words.
        if !rest.is_empty() {
            let mut word = [0; 4];
            word[..rest.len()].copy_from_slice(rest);
            self.context.queue.write_buffer(
                &slice.buffer,
                slice.offset_bytes + whole.len() as u64,
                &word,
            );
        }
        self.context.unheard.now(scope.close())
    }

    /// Notes a coming write to a slice. The slice gets this version, which is later than all
    /// before.
    pub fn note_write(&self, slice: &BufferSlice, version: u64) {
        slice.token.written_at.fetch_max(version, Ordering::Relaxed);
        if slice.is_shared {
            self.notify_written(slice);
        }
    }

    /// A slice of the application's buffer.
    pub fn wrap(
        &self,
        buffer: wgpu::Buffer,
        offset_bytes: u64,
        size_bytes: u64,
    ) -> Result<BufferSlice, ArgumentError> {
        let alignment_bytes = u64::from(self.caps().offset_alignment_bytes);
        if !offset_bytes.is_multiple_of(alignment_bytes) {
            return Err(ArgumentError::Alignment { offset_bytes, alignment_bytes });
        }
        let size_bytes = size_bytes.saturating_add(3) / 4 * 4;
        let buffer_bytes = buffer.size();
        if offset_bytes.checked_add(size_bytes).is_none_or(|end| end > buffer_bytes) {
            return Err(ArgumentError::SliceSize { offset_bytes, size_bytes, buffer_bytes });
        }
        if !buffer.usage().contains(wgpu::BufferUsages::STORAGE) {
            let found = format!("{:?}", buffer.usage());
            let expected = format!("{:?}", wgpu::BufferUsages::STORAGE);
            return Err(ArgumentError::Usage { argument: "buffer".to_owned(), found, expected });
        }
        Ok(BufferSlice { is_shared: true, ..BufferSlice::new(buffer, offset_bytes, size_bytes) })
    }
}
