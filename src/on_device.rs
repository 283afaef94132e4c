//! `BatchNorm`: a layer on one GPU. Statistics merge there, nothing is read back, and no pass
//! waits.

mod passes;
mod running;
mod state;

use std::fmt;

use crate::base::Base;
use crate::config::{BatchNormConfig, Mode, Momentum};
use crate::device::{Device, Kind};
use crate::engine::resident::{self, RankWeights, Running};
use crate::error::{ArgumentError, Error};
use crate::gpu::Gpu;
use crate::request::{
    Backward, DoubleBackward, DoubleGradients, Forward, ForwardParts, Gradients, Normalized,
};
use crate::saved::Saved;
use crate::shape::Shape;
use crate::tensor::{DType, Layout, Output, Tensor};
use crate::trace::{self, Span};

/// A batch normalization layer on one GPU that neither waits nor reads back.
///
/// A whole forward pass is one submission, and so is a whole backward pass. Calls return once they
/// have submitted. The running statistics are on the device. With [`encode`](Forward::encode) a
/// pass becomes part of the application's own submission. [`running_stats`](Self::running_stats)
/// and [`state`](Self::state) read values back to the host.
///
/// With one tensor it is the plain batch normalization of an application. With a list, the tensors
/// are ranks that share their statistics, as those of a [`SyncBatchNorm`](crate::SyncBatchNorm) do.
/// Each call may have another number of ranks.
///
/// Arguments have the same meaning as there, and are checked before anything is submitted. If a
/// device fails later, the read of results returns the error.
///
/// # Accuracy
/// The merge has no f64. The error of y against the f64 definition is within 16 ulp of the largest
/// |y| of its channel. For a `SyncBatchNorm` it is within 8. A layer that is
/// [`reproducible`](BatchNormConfig::reproducible) merges in integers, with the bits of a
/// `SyncBatchNorm`, within 3 ulp. Its calls take up to 2³² − 1 values per channel.
///
/// ```no_run
/// use syncbn::{Backward, BatchNorm, BatchNormConfig, Device};
///
/// # pollster::block_on(async {
/// let device = Device::gpu().await?;
/// let norm = BatchNorm::new(BatchNormConfig::torch(1), &device)?;
/// let x = device.upload(&[4, 1], &[0.0f32, 2.0, 4.0, 6.0])?;
/// let dy = device.upload(&[4, 1], &[1.0f32, 0.0, 0.0, 0.0])?;
/// let forward = norm.forward_train(&x)?;
/// let backward = norm.backward(&forward.saved, Backward::of(&x, &dy))?;
/// // The first wait.
/// println!("{:?}", backward.input.to_vec().await?);
/// # Ok::<(), syncbn::Error>(())
/// # }).unwrap();
/// ```
pub struct BatchNorm {
    base: Base,
    gpu: Gpu,
    running: Running,
    rank_weights: RankWeights,
}

/// Without parameters and statistics, which may be long.
impl fmt::Debug for BatchNorm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchNorm")
            .field("config", self.config())
            .field("devices", &self.base.devices)
            .finish_non_exhaustive()
    }
}

impl BatchNorm {
    /// A layer on a GPU, with the initial values that the configuration gives.
    ///
    /// # Errors
    /// [`ConfigError`](crate::error::ConfigError) for a setting outside its range;
    /// [`ArgumentError::NotAGpu`] for the host; [`GpuError`](crate::error::GpuError) when the
    /// device has no memory for the parameters.
    pub fn new(config: BatchNormConfig, device: &Device) -> Result<Self, Error> {
        let Kind::Gpu(gpu) = device.kind() else {
            return Err(ArgumentError::NotAGpu {
                call: "BatchNorm::new",
                device: device.to_string(),
                instead: "a SyncBatchNorm normalizes on the host too",
            }
            .into());
        };
        let (base, running) = Base::new(config, vec![device.clone()], true)?;
        let running = Running::new(gpu, running.as_ref())?;
        Ok(Self { base, gpu: gpu.clone(), running, rank_weights: RankWeights::default() })
    }

    /// Normalizes with the statistics of the batch, of all ranks, and updates the running
    /// statistics: as [`SyncBatchNorm::forward_train`](crate::SyncBatchNorm::forward_train),
    /// without waiting.
    ///
    /// A pass in an encoder takes place when the application submits the encoder. Without that it
    /// has no effect. Submit encoders before you set parameters or running statistics, because
    /// those are written at once.
    ///
    /// # Errors
    /// [`ArgumentError`] for tensors that do not fit the layer,
    /// [`BatchError`](crate::error::BatchError) for one value per channel,
    /// [`LimitError`](crate::error::LimitError) for a tensor that the device cannot bind, all
    /// before anything is recorded; [`GpuError`](crate::error::GpuError) when it refuses the
    /// submission. The layer is unchanged then. The application gets the errors that wgpu finds at
    /// the end of the application's encoder.
    pub fn forward_train<'a, O: Output>(
        &self,
        request: impl Into<Forward<'a, O>>,
    ) -> Result<Normalized<O>, Error> {
        self.forward(Mode::Train, request.into().parts)
    }

    /// Normalizes with the running statistics, or as the configuration says: as
    /// [`SyncBatchNorm::forward_eval`](crate::SyncBatchNorm::forward_eval), without waiting.
    ///
    /// # Errors
    /// As [`forward_train`](Self::forward_train).
    pub fn forward_eval<'a, O: Output>(
        &self,
        request: impl Into<Forward<'a, O>>,
    ) -> Result<Normalized<O>, Error> {
        self.forward(Mode::Eval, request.into().parts)
    }

    /// The gradients of a forward call, from the gradients of its outputs: as
    /// [`SyncBatchNorm::backward`](crate::SyncBatchNorm::backward), without waiting. The forward
    /// call may be in the same encoder.
    ///
    /// # Errors
    /// As [`forward_train`](Self::forward_train); [`ArgumentError::NotSaved`] for tensors or
    /// parameters that are not those of the saved call, or were written since. The layer itself is
    /// never changed.
    pub fn backward<O: Output>(
        &self,
        saved: &Saved,
        request: Backward<'_, O>,
    ) -> Result<Gradients<O>, Error> {
        let Backward { parts, .. } = request;
        let span = self.span("backward", parts.inputs.x.len(), || parts.inputs.bytes());
        span.within(|| self.backward_pass(saved, parts))
    }

    /// The gradients of a backward pass, from cotangents of its results: as
    /// [`SyncBatchNorm::double_backward`](crate::SyncBatchNorm::double_backward), without waiting.
    ///
    /// Sums, products and coefficients are f32: a gradient for which one of them is beyond f32 is
    /// NaN in that channel, and products below 1.2e-38 may count as 0.
    ///
    /// # Errors
    /// As there, and as [`backward`](Self::backward).
    pub fn double_backward<O: Output>(
        &self,
        saved: &Saved,
        request: DoubleBackward<'_, O>,
    ) -> Result<DoubleGradients<O>, Error> {
        let DoubleBackward { parts, .. } = request;
        let span = self.span("double backward", parts.inputs.x.len(), || parts.inputs.bytes());
        span.within(|| self.double_backward_pass(saved, parts))
    }

    fn forward<O: Output>(
        &self,
        mode: Mode,
        parts: ForwardParts<'_>,
    ) -> Result<Normalized<O>, Error> {
        let name = match (mode, parts.untracked) {
            (_, true) => "recomputed forward",
            (Mode::Train, false) => "forward",
            (Mode::Eval, false) => "forward in evaluation",
        };
        let span = self.span(name, parts.ranks(), || parts.bytes());
        span.within(|| self.forward_pass(mode, parts))
    }

    /// The span of a pass.
    fn span(&self, phase: &str, ranks: usize, bytes: impl FnOnce() -> u64) -> Span {
        trace::pass(phase, std::iter::once(("", self.base.id)), 0, ranks, bytes)
    }

    /// The GPU.
    pub fn device(&self) -> &Device {
        self.base.device(0)
    }

    /// The layer's settings.
    pub fn config(&self) -> &BatchNormConfig {
        &self.base.config
    }

    /// Replaces settings, as [`SyncBatchNorm::set_config`](crate::SyncBatchNorm::set_config).
    ///
    /// # Errors
    /// As there.
    pub fn set_config(&mut self, config: BatchNormConfig) -> Result<(), Error> {
        config.check_without_renorm()?;
        self.base.set_config(config)
    }

    /// Replaces the momentum, as a schedule does in every epoch.
    ///
    /// # Errors
    /// As [`set_config`](Self::set_config).
    pub fn set_momentum(&mut self, momentum: Momentum) -> Result<(), Error> {
        self.set_config(self.config().clone().with_momentum(momentum))
    }

    /// Compiles the kernels of training, evaluation and backward ahead, as
    /// [`SyncBatchNorm::prepare`](crate::SyncBatchNorm::prepare) does.
    ///
    /// # Errors
    /// As there.
    pub fn prepare(&self, dims: &[usize], layout: Layout, dtype: DType) -> Result<(), Error> {
        self.base.prepare(dims, layout, dtype)?;
        let shape = Shape::new(dims, layout)?;
        let layer = self.base.engine_layer(0);
        resident::prepare(&self.gpu, &shape, dtype, layer, self.config().keeps_mask())
    }

    /// The weight, (C) f32; `None` without one.
    pub fn weight(&self) -> Option<&Tensor> {
        self.base.affine(0)[0]
    }

    /// The bias, (C) f32; `None` without one.
    pub fn bias(&self) -> Option<&Tensor> {
        self.base.affine(0)[1]
    }
}
