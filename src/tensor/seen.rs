//! Identity and version of a tensor at the time of a call. A later call recognizes the tensor by
//! it, and finds whether it was written since.

use std::sync::Arc;

use smallvec::SmallVec;

use super::{Memory, Tensor, next_version};
use crate::dtype::DType;
use crate::gpu::{BufferSlice, Watch};
use crate::shape::Layout;

/// A tensor that a call used and that is needed again, unchanged.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    key: Key,
    version: u64,
    /// Present if other tensors may have its bytes too.
    watch: Option<Arc<Watch>>,
}

#[derive(Clone, Debug, PartialEq)]
struct Key {
    dims: SmallVec<[usize; 4]>,
    dtype: DType,
    layout: Layout,
    place: Place,
}

#[derive(Clone, Debug, PartialEq)]
enum Place {
    /// A slice of an application's buffer. The application may wrap it anew for every call.
    Shared(Box<BufferSlice>),
    /// Memory of this crate, by number and offset. It is not kept alive.
    Own(u64, u64),
}

impl Seen {
    /// Whether this is the tensor.
    pub fn is(&self, tensor: &Tensor) -> bool {
        tensor.key() == self.key
    }

    /// Whether this is a tensor of the same form on the same device, in any memory.
    pub fn is_like(&self, tensor: &Tensor) -> bool {
        let Key { dims, dtype, layout, .. } = &self.key;
        (dims.as_slice(), *dtype, *layout) == (tensor.dims(), tensor.dtype(), tensor.layout())
    }

    /// Whether this crate has written to it since, through this tensor or another one that shares
    /// bytes.
    pub fn is_written(&self, tensor: &Tensor) -> bool {
        let version = match &tensor.memory {
            Memory::Gpu { slice, .. } => slice.written_at(),
            Memory::Host { values, .. } => values.version,
        };
        version > self.version || self.watch.as_deref().is_some_and(Watch::is_written)
    }
}

impl Tensor {
    /// Its present identity and version.
    pub(crate) fn seen(&self) -> Seen {
        let watch = match &self.memory {
            Memory::Gpu { gpu, slice } if slice.is_shared => Some(gpu.watch(slice).into()),
            _ => None,
        };
        Seen { key: self.key(), version: next_version(), watch }
    }

    fn key(&self) -> Key {
        let place = match &self.memory {
            Memory::Gpu { slice, .. } if slice.is_shared => Place::Shared(Box::new(slice.clone())),
            Memory::Gpu { slice, .. } => Place::Own(slice.number(), slice.offset_bytes),
            Memory::Host { values, .. } => Place::Own(values.id, 0),
        };
        Key {
            dims: SmallVec::from_slice(&self.dims),
            dtype: self.dtype,
            layout: self.layout,
            place,
        }
    }
}
