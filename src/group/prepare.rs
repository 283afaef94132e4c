//! Compiling ahead, so that no step of training waits for it.

use super::DeviceGroup;
use crate::dtype::DType;
use crate::engine;
use crate::error::{ArgumentError, Error};
use crate::shape::Shape;

impl DeviceGroup {
    /// Compiles on every device what training, evaluation and backward need for inputs of a shape and storage type, with
    /// outputs and upstream gradients stored alike. Without it each kernel is compiled when a call first needs it; what a
    /// call needs beyond this, such as for writing over its input, still is.
    ///
    /// ```
    /// use syncbn::{DType, Device, DeviceGroup, Layout, Shape, SyncBatchNormConfig};
    ///
    /// let group = DeviceGroup::new(SyncBatchNormConfig::torch(3), vec![Device::host()])?;
    /// group.prepare(&Shape::new(&[8, 3, 32, 32], Layout::ChannelsFirst)?, DType::F32)?;
    /// # Ok::<(), syncbn::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ArgumentError::Channels`] for a shape of other channels than the layer's, [`LimitError`](crate::LimitError) for
    /// one that a device cannot bind, [`GpuError`](crate::GpuError) when a device refuses a kernel.
    pub fn prepare(&self, shape: &Shape, dtype: DType) -> Result<(), Error> {
        let (found, expected) = (shape.channels(), self.config.num_features);
        for (rank, device) in self.devices.iter().enumerate() {
            if found != expected {
                let (argument, dims) = ("shape", shape.dims().to_vec());
                return Err(ArgumentError::Channels { argument, rank, dims, found, expected }.into());
            }
            engine::prepare(device, shape, dtype, self.engine_layer(rank), self.config.keeps_mask())?;
        }
        Ok(())
    }
}
