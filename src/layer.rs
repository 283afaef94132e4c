//! `SyncBatchNorm`: one caller per rank, as data-parallel training loops are written.
//!
//! A rank is a [`DeviceGroup`] of one device within a [`ProcessGroup`]; this module gives it the form of a layer.

mod input;
mod results;
mod state;

pub use input::{Input, LayerRequest};
pub use results::{LayerBackward, LayerForward, LayerGradTargets};

use std::slice::{from_mut, from_ref};

use crate::collective::ProcessGroup;
use crate::config::SyncBatchNormConfig;
use crate::device::Device;
use crate::dtype::DType;
use crate::error::Error;
use crate::group::{BackwardReport, DeviceGroup, ForwardReport, InPlace, SavedForward};
use crate::shape::Shape;
use crate::tensor::Tensor;
use results::{single_backward, single_forward};

/// A synchronized batch normalization layer of one rank.
///
/// The ranks of its [`ProcessGroup`] each hold one, made in the same order on every rank, and call it together: forward
/// and backward exchange statistics where the mode says so, and end within the group's deadline, with a result or with
/// an error on every rank. Errors about an argument speak of `inputs[0]`, `grad_outputs[0]`: the one tensor of this rank.
///
/// ```
/// use syncbn::{Device, LocalGroup, ProcessGroup, SyncBatchNorm, SyncBatchNormConfig};
///
/// let ranks = LocalGroup::ranks(2);
/// let threads = ranks.into_iter().zip([[0.0, 2.0], [4.0, 6.0]]).map(|(rank, values)| {
///     std::thread::spawn(move || {
///         let (group, host) = (ProcessGroup::new(rank), Device::host());
///         let mut layer = SyncBatchNorm::new(SyncBatchNormConfig::torch(1), host.clone(), &group)?;
///         let x = host.upload(&[2, 1], &values)?;
///         let forward = pollster::block_on(layer.forward_train(&x))?;
///         Ok::<f64, syncbn::Error>(forward.report.global.channels()[0].mean)
///     })
/// });
/// for thread in threads.collect::<Vec<_>>() {
///     assert_eq!(thread.join().unwrap()?, 3.0);
/// }
/// # Ok::<(), syncbn::Error>(())
/// ```
#[derive(Debug)]
pub struct SyncBatchNorm {
    rank: DeviceGroup,
}

impl SyncBatchNorm {
    /// A layer of this rank on a device, with the initial values that the configuration gives.
    ///
    /// # Errors
    /// [`ConfigError`](crate::ConfigError) for a setting outside its range.
    pub fn new(config: SyncBatchNormConfig, device: Device, group: &ProcessGroup) -> Result<Self, Error> {
        Self::named("", config, device, group)
    }

    /// [`new`](Self::new) with a name that errors mention, such as `layer1.0.bn1`, the same on every rank.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn named(name: &str, config: SyncBatchNormConfig, device: Device, group: &ProcessGroup) -> Result<Self, Error> {
        Ok(Self { rank: DeviceGroup::within(config, vec![device], group, name)? })
    }

    /// The device of this rank.
    pub fn device(&self) -> &Device {
        &self.rank.devices()[0]
    }

    /// The layer's settings.
    pub fn config(&self) -> &SyncBatchNormConfig {
        self.rank.config()
    }

    /// Normalizes x with the statistics of the whole group's batch and updates the running statistics. See
    /// [`DeviceGroup::forward_train`].
    ///
    /// # Errors
    /// As there, and [`ExchangeError`](crate::ExchangeError) when a rank is late, gone, or somewhere else: every rank of
    /// the group gets one within the deadline. The layer is unchanged then, and the group refuses further work. An error
    /// of this rank alone, such as a wrong shape, fails the others too.
    pub async fn forward_train<'a>(&mut self, x: impl Into<Input<'a>>) -> Result<LayerForward, Error> {
        single_forward(self.rank.forward_train(x.into().as_list()).await?)
    }

    /// [`forward_train`](Self::forward_train) into a tensor of the caller, of the shape and on the device of x.
    ///
    /// # Errors
    /// As [`DeviceGroup::forward_train_into`] and [`forward_train`](Self::forward_train).
    pub async fn forward_train_into<'a>(
        &mut self,
        x: impl Into<Input<'a>>,
        output: &mut Tensor,
    ) -> Result<(SavedForward, ForwardReport), Error> {
        self.rank.forward_train_into(x.into().as_list(), from_mut(output)).await
    }

    /// [`forward_train_into`](Self::forward_train_into) of several independent layers of one device and process group, which
    /// share one exchange. See [`DeviceGroup::forward_train_many`].
    ///
    /// # Errors
    /// As there, and as [`forward_train`](Self::forward_train).
    pub async fn forward_train_many<'a>(
        requests: impl IntoIterator<Item = LayerRequest<'a>>,
    ) -> Result<Vec<(SavedForward, ForwardReport)>, Error> {
        DeviceGroup::forward_train_many(requests.into_iter().map(LayerRequest::into_lists)).await
    }

    /// Compiles ahead what a shape and storage type need. See [`DeviceGroup::prepare`].
    ///
    /// # Errors
    /// As there.
    pub fn prepare(&self, shape: &Shape, dtype: DType) -> Result<(), Error> {
        self.rank.prepare(shape, dtype)
    }

    /// [`forward_train`](Self::forward_train) once more for activation checkpointing, without touching the running
    /// statistics.
    ///
    /// # Errors
    /// As [`forward_train`](Self::forward_train).
    pub async fn forward_recompute<'a>(&self, x: impl Into<Input<'a>>) -> Result<LayerForward, Error> {
        single_forward(self.rank.forward_recompute(x.into().as_list()).await?)
    }

    /// Normalizes x with the running statistics, without communicating. See [`DeviceGroup::forward_eval`] for the two
    /// settings that change that.
    ///
    /// # Errors
    /// As [`forward_train`](Self::forward_train).
    pub async fn forward_eval<'a>(&mut self, x: impl Into<Input<'a>>) -> Result<LayerForward, Error> {
        single_forward(self.rank.forward_eval(x.into().as_list()).await?)
    }

    /// [`forward_eval`](Self::forward_eval) into a tensor of the caller.
    ///
    /// # Errors
    /// As [`forward_train_into`](Self::forward_train_into).
    pub async fn forward_eval_into<'a>(
        &mut self,
        x: impl Into<Input<'a>>,
        output: &mut Tensor,
    ) -> Result<(SavedForward, ForwardReport), Error> {
        self.rank.forward_eval_into(x.into().as_list(), from_mut(output)).await
    }

    /// [`forward_train`](Self::forward_train) over x itself, which is gone afterwards: for a call that is never
    /// differentiated.
    ///
    /// # Errors
    /// As [`DeviceGroup::forward_train_in_place`] and [`forward_train`](Self::forward_train).
    pub async fn forward_train_in_place(
        &mut self,
        x: &mut Tensor,
        residual: Option<&Tensor>,
    ) -> Result<ForwardReport, Error> {
        self.rank.forward_train_in_place(in_place(x, residual)).await
    }

    /// [`forward_eval`](Self::forward_eval) over x itself.
    ///
    /// # Errors
    /// As [`forward_train_in_place`](Self::forward_train_in_place).
    pub async fn forward_eval_in_place(
        &mut self,
        x: &mut Tensor,
        residual: Option<&Tensor>,
    ) -> Result<ForwardReport, Error> {
        self.rank.forward_eval_in_place(in_place(x, residual)).await
    }

    /// The gradients of a forward call, from the gradient of its output. See [`DeviceGroup::backward`].
    ///
    /// # Errors
    /// As there, and [`ExchangeError`](crate::ExchangeError) as in [`forward_train`](Self::forward_train).
    pub async fn backward<'a>(
        &self,
        saved: &SavedForward,
        x: impl Into<Input<'a>>,
        grad_output: &Tensor,
    ) -> Result<LayerBackward, Error> {
        single_backward(self.rank.backward(saved, x.into().as_list(), from_ref(grad_output)).await?)
    }

    /// [`backward`](Self::backward) into tensors of the caller. What is not wanted is not computed; the exchange takes
    /// place all the same, as the other ranks need this one's sums.
    ///
    /// # Errors
    /// As [`DeviceGroup::backward_into`] and [`backward`](Self::backward).
    pub async fn backward_into<'a>(
        &self,
        saved: &SavedForward,
        x: impl Into<Input<'a>>,
        grad_output: &Tensor,
        targets: LayerGradTargets<'_>,
    ) -> Result<BackwardReport, Error> {
        self.rank.backward_into(saved, x.into().as_list(), from_ref(grad_output), targets.into_lists()).await
    }

    /// [`backward`](Self::backward) with the gradient of x written over `grad_output`, which has the layout and storage
    /// type of x. `targets.grad_input` is `None`.
    ///
    /// # Errors
    /// As [`DeviceGroup::backward_in_place`] and [`backward`](Self::backward).
    pub async fn backward_in_place<'a>(
        &self,
        saved: &SavedForward,
        x: impl Into<Input<'a>>,
        grad_output: &mut Tensor,
        targets: LayerGradTargets<'_>,
    ) -> Result<BackwardReport, Error> {
        let (x, targets) = (x.into().as_list(), targets.into_lists());
        self.rank.backward_in_place(saved, x, from_mut(grad_output), targets).await
    }
}

/// A list of one rank to be written over.
fn in_place<'a>(x: &'a mut Tensor, residual: Option<&'a Tensor>) -> InPlace<'a> {
    let tensors = from_mut(x);
    match residual {
        Some(residual) => InPlace::with_residuals(tensors, from_ref(residual)),
        None => tensors.into(),
    }
}
