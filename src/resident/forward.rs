//! Forward: checks, then one submission.

use super::ResidentGroup;
use crate::config::{Mode, Statistics};
use crate::engine::resident::{Centers, ForwardRank, Normalizer, forward};
use crate::engine::{Source, View};
use crate::error::{BatchError, Error};
use crate::group::{InPlace, Inputs, SavedCall, zeros_like};
use crate::plan::Following;
use crate::shape::Shape;
use crate::stats::Normalization;
use crate::tensor::Tensor;

/// What forward returns: tensors that the device is working on.
#[derive(Debug)]
pub struct ResidentForward {
    /// y per rank, of the shape of its input.
    pub outputs: Vec<Tensor>,
    /// What [`ResidentGroup::backward`] needs of this call.
    pub saved: ResidentSaved,
}

/// The saved context of one forward call, for [`ResidentGroup::backward`] on the same layer.
///
/// As [`SavedForward`](crate::SavedForward), with the statistics on the device.
#[derive(Clone, Debug)]
pub struct ResidentSaved {
    pub(super) call: SavedCall,
    pub(super) centers: Centers,
}

impl ResidentSaved {
    /// Lets no later call use its memory again: an encoder of the application reads it, and nobody knows when.
    pub(super) fn keep_out(&self) {
        self.call.keep_out();
        self.centers.keep_out();
    }

    /// Whether backward needs the residuals of the call again: they decide on which side of the activation v was,
    /// unless the layer keeps a mask that says so.
    pub fn needs_residuals(&self) -> bool {
        self.call.needs_residuals()
    }

    /// Bytes of device memory that the call keeps for backward beyond statistics: its masks.
    pub fn mask_bytes(&self) -> u64 {
        self.call.mask_bytes()
    }
}

/// What a call does beside normalizing.
#[derive(Clone, Copy, PartialEq)]
enum Tracking {
    On,
    Off,
}

impl ResidentGroup {
    /// Normalizes with the statistics of the whole batch, and lets the running statistics follow: as
    /// [`DeviceGroup::forward_train`](crate::DeviceGroup::forward_train), without waiting.
    ///
    /// # Errors
    /// [`ArgumentError`](crate::ArgumentError) for inputs that do not fit the layer, [`BatchError`](crate::BatchError) for one
    /// value per channel on all ranks, [`LimitError`](crate::LimitError) for an input that the device cannot bind,
    /// [`GpuError`](crate::GpuError) when it refuses the submission. The layer is unchanged then.
    pub fn forward_train<'a>(&mut self, inputs: impl Into<Inputs<'a>>) -> Result<ResidentForward, Error> {
        self.forward_allocating(Mode::Train, Tracking::On, inputs.into())
    }

    /// [`forward_train`](Self::forward_train) into tensors of the caller, as
    /// [`DeviceGroup::forward_train_into`](crate::DeviceGroup::forward_train_into) takes them.
    ///
    /// # Errors
    /// As [`forward_train`](Self::forward_train); [`ArgumentError`](crate::ArgumentError) also for outputs that do not fit.
    pub fn forward_train_into<'a>(
        &mut self,
        inputs: impl Into<Inputs<'a>>,
        outputs: &mut [Tensor],
    ) -> Result<ResidentSaved, Error> {
        self.forward(Mode::Train, Tracking::On, inputs.into(), outputs, None)
    }

    /// [`forward_train`](Self::forward_train) once more for activation checkpointing: the running statistics and their
    /// counter do not move.
    ///
    /// # Errors
    /// As [`forward_train`](Self::forward_train).
    pub fn forward_recompute<'a>(&self, inputs: impl Into<Inputs<'a>>) -> Result<ResidentForward, Error> {
        self.forward_allocating(Mode::Train, Tracking::Off, inputs.into())
    }

    /// Normalizes with the running statistics, or as the configuration says: as
    /// [`DeviceGroup::forward_eval`](crate::DeviceGroup::forward_eval), without waiting.
    ///
    /// # Errors
    /// As [`forward_train`](Self::forward_train).
    pub fn forward_eval<'a>(&mut self, inputs: impl Into<Inputs<'a>>) -> Result<ResidentForward, Error> {
        self.forward_allocating(Mode::Eval, Tracking::On, inputs.into())
    }

    /// [`forward_eval`](Self::forward_eval) into tensors of the caller.
    ///
    /// # Errors
    /// As [`forward_train_into`](Self::forward_train_into).
    pub fn forward_eval_into<'a>(
        &mut self,
        inputs: impl Into<Inputs<'a>>,
        outputs: &mut [Tensor],
    ) -> Result<ResidentSaved, Error> {
        self.forward(Mode::Eval, Tracking::On, inputs.into(), outputs, None)
    }

    /// [`forward_train`](Self::forward_train) over x itself, for a call that is never differentiated: x is gone afterwards.
    /// Takes `&mut` the tensors, or [`InPlace::with_residuals`].
    ///
    /// # Errors
    /// As [`forward_train`](Self::forward_train).
    pub fn forward_train_in_place<'a>(&mut self, tensors: impl Into<InPlace<'a>>) -> Result<(), Error> {
        self.forward_in_place(Mode::Train, tensors.into())
    }

    /// [`forward_eval`](Self::forward_eval) over x itself.
    ///
    /// # Errors
    /// As [`forward_train`](Self::forward_train).
    pub fn forward_eval_in_place<'a>(&mut self, tensors: impl Into<InPlace<'a>>) -> Result<(), Error> {
        self.forward_in_place(Mode::Eval, tensors.into())
    }

    /// [`forward_train_into`](Self::forward_train_into) recorded into the application's encoder, for a submission of its
    /// own. The running statistics follow when it is executed; what is never submitted has no effect.
    ///
    /// Encoders must be submitted before the parameters or the running statistics are set: those are written at once.
    ///
    /// # Errors
    /// As [`forward_train_into`](Self::forward_train_into), before anything is recorded;
    /// [`GpuError`](crate::GpuError) when wgpu refuses a tensor, and then the encoder is to be dropped. What wgpu finds when
    /// the encoder ends is the application's to hear.
    pub fn encode_forward<'a>(
        &mut self,
        encoder: &mut wgpu::CommandEncoder,
        inputs: impl Into<Inputs<'a>>,
        outputs: &mut [Tensor],
    ) -> Result<ResidentSaved, Error> {
        self.forward(Mode::Train, Tracking::On, inputs.into(), outputs, Some(encoder))
    }

    /// [`forward_eval_into`](Self::forward_eval_into) recorded as by [`encode_forward`](Self::encode_forward).
    ///
    /// # Errors
    /// As [`encode_forward`](Self::encode_forward).
    pub fn encode_forward_eval<'a>(
        &mut self,
        encoder: &mut wgpu::CommandEncoder,
        inputs: impl Into<Inputs<'a>>,
        outputs: &mut [Tensor],
    ) -> Result<ResidentSaved, Error> {
        self.forward(Mode::Eval, Tracking::On, inputs.into(), outputs, Some(encoder))
    }

    /// Brings to the host what a call normalized with: one entry for all ranks, or one for each where each used its own
    /// batch. Waits for the call; one that was encoded must have been submitted.
    ///
    /// # Errors
    /// [`GpuError`](crate::GpuError) when the device does not deliver.
    pub async fn statistics(&self, saved: &ResidentSaved) -> Result<Vec<Normalization>, Error> {
        saved.centers.read(self.device()).await
    }

    fn forward_allocating(&self, mode: Mode, tracking: Tracking, inputs: Inputs<'_>) -> Result<ResidentForward, Error> {
        self.group.check_inputs(inputs.x)?;
        let mut outputs = zeros_like(inputs.x)?;
        let saved = self.forward(mode, tracking, inputs, &mut outputs, None)?;
        Ok(ResidentForward { outputs, saved })
    }

    fn forward(
        &self,
        mode: Mode,
        tracking: Tracking,
        inputs: Inputs<'_>,
        outputs: &mut [Tensor],
        encoder: Option<&mut wgpu::CommandEncoder>,
    ) -> Result<ResidentSaved, Error> {
        let (group, config, is_encoded) = (&self.group, self.config(), encoder.is_some());
        let shapes = group.check_forward(inputs, outputs)?;
        let (statistics, normalizer) = self.normalizer(mode, tracking, &shapes)?;
        let masks = group.masks(inputs.x, &shapes, outputs)?;
        let call = SavedCall::new(group, inputs, statistics, masks);
        let ranks = inputs.x.iter().zip(&shapes).zip(outputs).enumerate().map(|(rank, ((tensor, shape), y))| {
            let (x, residual) = (Source::Apart(View { tensor, shape }), inputs.residual(rank));
            ForwardRank { x, residual, layer: group.engine_layer(rank), y, mask: call.masks().get(rank) }
        });
        let (channels, how) = (config.num_features, (config.eps, normalizer));
        let centers = forward(self.device(), ranks.collect(), channels, how, (&self.running, &self.shares), encoder)?;
        let saved = ResidentSaved { call, centers };
        if is_encoded {
            saved.keep_out();
        }
        Ok(saved)
    }

    fn forward_in_place(&self, mode: Mode, InPlace { tensors, residuals }: InPlace<'_>) -> Result<(), Error> {
        let config = self.config();
        let shapes = self.group.check_forward_in_place(tensors, residuals)?;
        let (_, normalizer) = self.normalizer(mode, Tracking::On, &shapes)?;
        let ranks = tensors.iter_mut().zip(&shapes).enumerate().map(|(rank, (y, shape))| {
            let residual = residuals.and_then(|residuals| residuals.get(rank));
            ForwardRank { x: Source::Over(shape), residual, layer: self.group.engine_layer(rank), y, mask: None }
        });
        let (channels, how) = (config.num_features, (config.eps, normalizer));
        forward(self.device(), ranks.collect(), channels, how, (&self.running, &self.shares), None)?;
        Ok(())
    }

    /// Which statistics a call takes, and what it does with them.
    fn normalizer(
        &self,
        mode: Mode,
        tracking: Tracking,
        shapes: &[Shape],
    ) -> Result<(Statistics, Normalizer), BatchError> {
        let config = self.config();
        let statistics = config.statistics(mode);
        let values = shapes.iter().fold(0, |values: u64, shape| values.saturating_add(shape.values_per_channel()));
        if statistics == Statistics::Group && values == 1 {
            return Err(BatchError::OneValue);
        }
        let tracks = statistics == Statistics::Group && tracking == Tracking::On && config.track_running_stats;
        let following = tracks.then_some(Following { momentum: config.momentum, variance: config.running_variance });
        let normalizer = match statistics {
            Statistics::Group => Normalizer::Batch { apart: false, following },
            Statistics::Local => Normalizer::Batch { apart: true, following },
            Statistics::Running => Normalizer::Running,
        };
        Ok((statistics, normalizer))
    }
}
