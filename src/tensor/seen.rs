//! What a tensor was when a call saw it: to be recognized when it is given again, and to know whether it was written since.

use std::sync::Arc;

use super::{Storage, Tensor, moment};
use crate::device::Kind;
use crate::dtype::DType;
use crate::gpu::{BufferSlice, Watch};
use crate::shape::Layout;

/// A tensor that a call used and that is needed again, unchanged.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    key: Key,
    at: u64,
    /// Where other tensors may have its bytes too.
    watch: Option<Arc<Watch>>,
}

#[derive(Clone, Debug, PartialEq)]
struct Key {
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

impl Seen {
    /// Whether this is the tensor.
    pub fn is(&self, tensor: &Tensor) -> bool {
        tensor.key() == self.key
    }

    /// Whether this crate has written to it since, through this tensor or another one with any of its bytes.
    pub fn is_written(&self, tensor: &Tensor) -> bool {
        tensor.written_at > self.at || self.watch.as_deref().is_some_and(Watch::is_written)
    }
}

impl Tensor {
    /// What it is now.
    pub(crate) fn seen(&self) -> Seen {
        let watch = match (&self.storage, self.device.kind()) {
            (Storage::Gpu(slice), Kind::Gpu(gpu)) if slice.is_shared => Some(gpu.watch(slice).into()),
            _ => None,
        };
        Seen { key: self.key(), at: moment(), watch }
    }

    /// Notes that it is about to be written.
    pub(super) fn note_write(&mut self) {
        self.written_at = moment();
        if let (Storage::Gpu(slice), Kind::Gpu(gpu)) = (&self.storage, self.device.kind())
            && slice.is_shared
        {
            gpu.tell_written(slice);
        }
    }

    fn key(&self) -> Key {
        let memory = match &self.storage {
            Storage::Gpu(slice) => Memory::Gpu(slice.clone()),
            Storage::Host(_) => Memory::Host(self.id),
        };
        Key { dims: self.dims.clone(), dtype: self.dtype, layout: self.layout, memory }
    }
}
