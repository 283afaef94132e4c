//! `ResidentGroup`: a layer whose ranks share one GPU. Statistics merge there, and no call waits.
//!
//! Arguments are checked by the `DeviceGroup` that it holds; `engine::resident` records the passes.

mod backward;
mod forward;
mod state;

pub use backward::ResidentBackward;
pub use forward::{ResidentForward, ResidentSaved};

use crate::config::SyncBatchNormConfig;
use crate::device::Device;
use crate::dtype::DType;
use crate::engine::resident::{Running, Shares, prepare};
use crate::error::{ArgumentError, Error};
use crate::group::DeviceGroup;
use crate::shape::Shape;

/// A synchronized batch normalization layer whose ranks are tensors on one GPU: a [`DeviceGroup`] that never waits.
///
/// Statistics of the ranks merge on the device, in f32, and the running statistics live there. A whole forward pass is one
/// submission, and so is a whole backward pass; calls return once they have submitted, and nothing is read back. So
/// calls report no statistics: [`statistics`](Self::statistics), [`running_stats`](Self::running_stats) and
/// [`state_dict`](Self::state_dict) bring to the host what is asked for. With [`encode_forward`](Self::encode_forward) and
/// [`encode_backward`](Self::encode_backward) a pass becomes part of the application's own submission.
///
/// Arguments mean what they mean to a [`DeviceGroup`], and are checked before anything is submitted. A device that fails
/// later says so where results are read.
///
/// # Accuracy
/// The merge has no f64: y is within 16 ulp of the largest |y| of its channel of the f64 definition, where a [`DeviceGroup`]
/// is within 8.
///
/// ```no_run
/// use syncbn::{Device, ResidentGroup, SyncBatchNormConfig, adapters};
///
/// # pollster::block_on(async {
/// let device = Device::from_adapter(&adapters().await[0]).await?;
/// // One channel; three samples on rank 0, one on rank 1.
/// let mut layer = ResidentGroup::new(SyncBatchNormConfig::torch(1), device.clone(), 2)?;
/// let inputs = [device.upload(&[3, 1], &[0.0, 2.0, 4.0])?, device.upload(&[1, 1], &[6.0])?];
/// let forward = layer.forward_train(&inputs)?;
/// let grad_outputs = [device.upload(&[3, 1], &[1.0, 0.0, 0.0])?, device.upload(&[1, 1], &[0.0])?];
/// let backward = layer.backward(&forward.saved, &inputs, &grad_outputs)?;
/// // The first wait.
/// println!("{:?}", backward.grad_inputs[0].to_vec().await?);
/// assert_eq!(layer.statistics(&forward.saved).await?[0].mean, [3.0]);
/// # Ok::<(), syncbn::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug)]
pub struct ResidentGroup {
    /// Configuration, parameters and checks; without running statistics, which lie on the device.
    group: DeviceGroup,
    running: Running,
    shares: Shares,
}

impl ResidentGroup {
    /// A layer of so many ranks on a GPU, with the initial values that the configuration gives.
    ///
    /// # Errors
    /// [`ConfigError`](crate::ConfigError) for a setting outside its range or no rank; [`ArgumentError::NotResident`] for
    /// the host; [`GpuError`](crate::GpuError) when the device has no memory for the parameters.
    pub fn new(config: SyncBatchNormConfig, device: Device, ranks: usize) -> Result<Self, Error> {
        DeviceGroup::new(config, vec![device; ranks])?.into_resident()
    }

    /// The device of all ranks.
    pub fn device(&self) -> &Device {
        &self.group.devices()[0]
    }

    /// Number of ranks.
    pub fn world_size(&self) -> usize {
        self.group.world_size()
    }

    /// The layer's settings.
    pub fn config(&self) -> &SyncBatchNormConfig {
        self.group.config()
    }

    /// Compiles ahead what training, evaluation and backward need for inputs of a shape and storage type, as
    /// [`DeviceGroup::prepare`].
    ///
    /// # Errors
    /// As there.
    pub fn prepare(&self, shape: &Shape, dtype: DType) -> Result<(), Error> {
        self.group.prepare(shape, dtype)?;
        prepare(self.device())
    }

    /// The same layer with statistics that merge on the host: its parameters, not copied, and the running statistics, which
    /// are read.
    ///
    /// # Errors
    /// [`GpuError`](crate::GpuError) when the device does not deliver.
    pub async fn into_group(mut self) -> Result<DeviceGroup, Error> {
        let running = self.running_stats().await?;
        self.group.replace_running(running);
        Ok(self.group)
    }
}

impl DeviceGroup {
    /// The same layer with statistics that merge on the device: its parameters, not copied, and the running statistics,
    /// which go to the device. What forward calls have saved before cannot be differentiated by it.
    ///
    /// # Errors
    /// [`ArgumentError::NotResident`] unless all ranks lie on one GPU and none elsewhere.
    pub fn into_resident(mut self) -> Result<ResidentGroup, Error> {
        let refuse = |found: String| Err(ArgumentError::NotResident { found }.into());
        let device = self.devices()[0].clone();
        if let Some(other) = self.devices().iter().find(|other| other.is_host() || !other.is_same(&device)) {
            return refuse(if other.is_host() { "the host".to_owned() } else { format!("{device} and {other}") });
        }
        if self.has_peers() {
            return refuse("ranks in other processes or threads".to_owned());
        }
        let running = self.replace_running(None);
        let running = Running::new(&device, running.as_ref())?;
        Ok(ResidentGroup { group: self, running, shares: Shares::default() })
    }
}
