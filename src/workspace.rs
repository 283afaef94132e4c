//! The memory of calls that are recorded into the application's encoders.

use crate::device::Device;
use crate::error::ArgumentError;
use crate::gpu::Memory;

/// Memory of one GPU that encoded calls use again, so that a step makes no buffer and no bind group
/// once each call has been recorded in it. One workspace serves any number of layers.
///
/// What a call needs only while it runs, the next call of the workspace uses again. What forward
/// saves is recycled when the last clone of its [`Saved`](crate::Saved) is dropped, and is then
/// written by a later call. So encoders that use one workspace are to be submitted in the order in
/// which they were recorded, or a `Saved` is to be kept until the encoder with its backward has
/// been submitted: also that of another workspace. What is recorded counts as written, whether its
/// encoder is submitted or not.
///
/// Memory is kept by size: where batches are of many sizes, [`clear`](Self::clear) lets go of what
/// is not in use.
#[derive(Debug)]
pub struct Workspace {
    device: Device,
    memory: Memory,
}

impl Workspace {
    /// An empty workspace; the first calls fill it. On the host, which encodes nothing, it is of no
    /// use.
    pub fn new(device: &Device) -> Self {
        Self { device: device.clone(), memory: Memory::new() }
    }

    /// Lets go of the memory that no `Saved` and no call uses; later calls make theirs anew.
    pub fn clear(&mut self) {
        self.memory.clear();
    }

    /// The memory, for a layer on a device.
    pub(crate) fn memory(&self, device: &Device) -> Result<&Memory, ArgumentError> {
        if self.device.is_same(device) {
            return Ok(&self.memory);
        }
        let (found, expected) = (self.device.to_string(), device.to_string());
        Err(ArgumentError::WrongDevice { argument: "workspace", rank: 0, found, expected })
    }
}
