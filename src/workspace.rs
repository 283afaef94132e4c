//! The memory of calls that are recorded into the application's encoders.

use crate::device::Device;
use crate::error::ArgumentError;
use crate::gpu::Memory;

/// Memory of one GPU for passes that are recorded into the application's encoders. One workspace
/// serves any number of layers.
///
/// After each call has been recorded once, a step makes no buffer and no bind group. Scratch memory
/// of a call goes to the next call of the workspace. The saved memory of forward is recycled when
/// the last clone of its [`Saved`](crate::Saved) is dropped. A later call then writes to it.
///
/// Two rules follow from this:
///
/// * Submit the encoders of one workspace in the order in which they were recorded. Otherwise keep
///   each `Saved`, also of another workspace, until the encoder with its backward has been
///   submitted.
/// * A recorded pass counts as written, whether its encoder is submitted or not.
///
/// Memory is kept by size. If batches have many sizes, [`clear`](Self::clear) frees what is not in
/// use.
#[derive(Debug)]
pub struct Workspace {
    device: Device,
    memory: Memory,
}

impl Workspace {
    /// An empty workspace. The first calls fill it. On the host it has no use, because nothing is
    /// recorded there.
    pub fn new(device: &Device) -> Self {
        Self { device: device.clone(), memory: Memory::new() }
    }

    /// Frees the memory that no `Saved` and no call uses. Later calls allocate again.
    pub fn clear(&mut self) {
        self.memory.clear();
    }

    /// The memory, for a layer on a device.
    pub(crate) fn memory(&self, device: &Device) -> Result<&Memory, ArgumentError> {
        if self.device.is_same(device) {
            return Ok(&self.memory);
        }
        let found = self.device.to_string();
        let expected = device.to_string();
        Err(ArgumentError::WrongDevice { argument: "workspace", rank: None, found, expected })
    }
}
