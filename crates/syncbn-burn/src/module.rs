//! The module: Burn's `BatchNorm` with the statistics of all ranks.

use std::sync::Arc;

use burn::backend::{Dispatch, Wgpu};
use burn::module::{Content, DisplaySettings, Flag, Module, ModuleDisplay, Param, RunningState};
use burn::tensor::{DType, Gradients, Tensor, TensorData};
use burn_cubecl::tensor::CubeTensor;
use syncbn::stats::{GlobalStatistics, Moments};

use crate::error::{Error, catch, raise};
use crate::layer::Layers;
use crate::operation::{Done, InMemory, SyncBatchNormOps};

/// Batch normalization over (N, C, ...) with the mean and variance of all ranks of a group.
///
/// It has the parameters, the record, the defaults and the behaviour of Burn's `BatchNorm`, and may
/// stand where that stood: on a device with autodiff, unless frozen, the batch normalizes and the
/// running statistics follow it (the variance biased, as Burn's); otherwise the running statistics
/// normalize, without any exchange. It is made by
/// [`SyncBatchNormConfig`](crate::SyncBatchNormConfig) on the device of a [`Rank`](crate::Rank).
///
/// Two things differ, because the batch is that of all ranks: one value per channel in the whole
/// group is an error, and gradients of `gamma` and `beta` are those of this rank's values, to be
/// averaged by the trainer with all others.
///
/// # Threads
/// Every rank runs on a thread of its own, uses its modules in the same order, and calls backward
/// once for every forward that it differentiates, as all others do. Ranks must not share parameter
/// nodes of the autodiff graph: Burn locks a graph during backward, and a rank would wait for
/// another that waits for the lock, until the group's deadline. So make a model per rank and load
/// the same record into each, or `fork` it; a plain `clone` shares nodes. A module, or a clone of
/// it, must live until backward: it is what holds the rank in its group, which a graph that Burn
/// keeps must not.
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct SyncBatchNorm {
    /// The learned weight, (C).
    pub gamma: Param<Tensor<1>>,
    /// The learned bias, (C).
    pub beta: Param<Tensor<1>>,
    /// Whether training behaviour is enabled.
    pub training: Param<Flag>,
    /// The running mean, (C).
    pub running_mean: RunningState<Tensor<1>>,
    /// The running variance, biased, (C).
    pub running_var: RunningState<Tensor<1>>,
    /// The weight of a new batch in the running statistics.
    pub momentum: f64,
    /// Added to the variance under the root.
    pub epsilon: f64,
    #[module(skip)]
    pub(crate) layers: Arc<Layers>,
}

impl SyncBatchNorm {
    /// Normalizes a tensor of shape (N, C, ...).
    ///
    /// # Panics
    /// With the message of the error where [`try_forward`](Self::try_forward) returns one.
    pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        self.try_forward(input).unwrap_or_else(|error| raise(error))
    }

    /// [`forward`](Self::forward) with failures as values. The running statistics are unchanged
    /// then, and in training the other ranks are notified.
    ///
    /// # Errors
    /// [`Error::Input`] for other dimensions; in training, [`Error::NoRank`] on a device without a
    /// rank, [`Error::DType`], and [`Error::Layer`] with everything that the exchange reports: a
    /// rank that failed, is late or is elsewhere is an error on every rank within the group's
    /// deadline.
    pub fn try_forward<const D: usize>(&self, input: Tensor<D>) -> Result<Tensor<D>, Error> {
        if input.device().is_autodiff() && self.training.is_enabled() {
            let device = input.device();
            self.forward_train(input).inspect_err(|error| self.layers.tell(&device, error))
        } else {
            self.forward_inference(input)
        }
    }

    fn forward_inference<const D: usize>(&self, input: Tensor<D>) -> Result<Tensor<D>, Error> {
        let [channels] = self.gamma.shape().dims();
        let found = input.dims();
        if D < 2 || found[1] != channels {
            return Err(Error::Input { found: found.to_vec(), channels });
        }
        let device = input.device();
        let [mean, var] =
            [&self.running_mean, &self.running_var].map(|state| state.value().to_device(&device));
        let (gamma, beta) = (self.gamma.val(), self.beta.val());
        Ok(burn::tensor::module::batch_norm(input, gamma, beta, mean, var, self.epsilon))
    }

    fn forward_train<const D: usize>(&self, input: Tensor<D>) -> Result<Tensor<D>, Error> {
        let (gamma, beta) = (self.gamma.val(), self.beta.val());
        check_dtype("input", &input)?;
        check_dtype("gamma", &gamma)?;
        check_dtype("beta", &beta)?;
        // The kernels read parameters as f32, whatever a half-precision model stores.
        let [gamma, beta] = [gamma, beta].map(|parameter| parameter.cast(DType::F32));
        let x = primitive("input", &input)?;
        let layer = self.layers.on(&x.device)?;
        let (y, saved) =
            layer.forward(x, primitive("gamma", &gamma)?, primitive("beta", &beta)?)?;
        if let Some(statistics) = saved.statistics().filter(|statistics| statistics.count() > 0) {
            let device = input.device();
            self.follow(&self.running_mean, statistics, |channel| channel.mean, &device);
            self.follow(&self.running_var, statistics, Moments::var_biased, &device);
        }
        let (x, gamma, beta) = (input.into_dispatch(), gamma.into_dispatch(), beta.into_dispatch());
        let y = <Dispatch as SyncBatchNormOps>::sync_batch_norm(
            x,
            gamma,
            beta,
            Done::forward(y, saved),
        );
        Ok(Tensor::from_dispatch(y))
    }

    /// Lets a running statistic follow the batch, in Burn's arithmetic.
    fn follow(
        &self,
        state: &RunningState<Tensor<1>>,
        statistics: &GlobalStatistics,
        of: impl FnMut(&Moments) -> f64,
        device: &burn::tensor::Device,
    ) {
        let batch: Vec<f64> = statistics.channels().iter().map(of).collect();
        let running = state.value_sync().to_device(device);
        let shape = [batch.len()];
        let batch =
            Tensor::<1>::from_data(TensorData::new(batch, shape), (device, running.dtype()));
        let running = running.mul_scalar(1.0 - self.momentum).add(batch.mul_scalar(self.momentum));
        state.update(running.detach());
    }
}

/// Refuses a type for which Burn has no kernels on the tensor's device: it would fail when the
/// queued work runs.
fn check_dtype<const D: usize>(argument: &'static str, tensor: &Tensor<D>) -> Result<(), Error> {
    match tensor.dtype() {
        dtype if tensor.device().supports_dtype(dtype) => Ok(()),
        dtype => Err(Error::DType { argument, found: format!("{dtype:?}") }),
    }
}

/// The tensor in the memory of Burn's wgpu runtime.
fn primitive<const D: usize>(
    argument: &'static str,
    tensor: &Tensor<D>,
) -> Result<CubeTensor, Error> {
    let primitive = tensor.clone().without_autodiff().try_into_primitive::<Wgpu>();
    let primitive =
        primitive.map_err(|error| Error::Backend { argument, found: format!("{error:?}") })?;
    Ok(<Wgpu as InMemory>::into_cube(primitive))
}

/// `loss.backward()` with failures of [`SyncBatchNorm`] modules as values: of the exchange with the
/// other ranks, above all. The graph of the loss is used up either way.
///
/// # Errors
/// What a module's backward reports; [`SyncBatchNorm::try_forward`] lists it.
///
/// # Panics
/// Where `loss.backward()` panics for reasons of its own.
pub fn try_backward<const D: usize>(loss: &Tensor<D>) -> Result<Gradients, Error> {
    catch(|| loss.backward())
}

impl ModuleDisplay for SyncBatchNorm {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new().with_new_line_after_attribute(false).optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        let [num_features] = self.beta.shape().dims();
        let content = content
            .add("num_features", &num_features)
            .add("momentum", &self.momentum)
            .add("epsilon", &self.epsilon);
        if self.training.is_enabled() { content } else { content.add("training", &self.training) }
            .optional()
    }
}
