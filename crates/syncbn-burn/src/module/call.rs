//! A call of a module: which way it goes, and Burn's tensors on both sides of it.

use burn::backend::{Dispatch, Wgpu};
use burn::module::RunningState;
use burn::tensor::{DType, Device, Tensor, TensorData};
use burn_cubecl::tensor::CubeTensor;
use syncbn::stats::{GlobalStatistics, Moments};

use super::{Normalization, Scope};
use crate::error::Error;
use crate::layer::Way;
use crate::operation::{BatchNormOps, Done, InMemory};
use crate::pass::{Inputs, Output, Saved};
use crate::rank::cube_device;

impl<S: Scope> Normalization<S> {
    pub(super) fn call<const D: usize>(
        &self,
        input: Tensor<D>,
        residual: Option<Tensor<D>>,
    ) -> Result<Tensor<D>, Error> {
        let device = input.device();
        if device.is_autodiff() && self.training.is_enabled() {
            let done = self.run(input, residual, false);
            return done.inspect_err(|error| {
                if S::OF_GROUP {
                    self.layers.notify(&[self.gamma.device(), device], error);
                }
            });
        }
        let [channels] = self.gamma.shape().dims();
        let found = input.dims();
        if D < 2 || found[1] != channels {
            return Err(Error::Input { found: found.to_vec(), channels });
        }
        self.check_device("input", &device)?;
        if let Some(residual) = &residual {
            self.check_device("residual", &residual.device())?;
            if residual.dims() != found {
                let found = residual.dims().to_vec();
                return Err(Error::Residual { found, expected: input.dims().to_vec() });
            }
        }
        let [mean, var] =
            [&self.running_mean, &self.running_var].map(|state| state.value().to_device(&device));
        let vectors = [self.gamma.val(), self.beta.val(), mean, var];
        let dtype = input.dtype();
        // Burn's operation takes one type alone.
        let is_of_one_type = vectors.iter().all(|vector| vector.dtype() == dtype);
        if self.has_rank(&input) && !(is_of_one_type && is_left_to_fusion(&input)) {
            return self.run(input, residual, true);
        }
        let common = if is_of_one_type { dtype } else { DType::F32 };
        let [gamma, beta, mean, var] = vectors.map(|vector| vector.cast(common));
        let x = input.cast(common);
        let y = burn::tensor::module::batch_norm(x, gamma, beta, mean, var, self.epsilon);
        let v = if let Some(residual) = residual { y + residual.cast(common) } else { y };
        Ok(self.activation.apply(v).cast(dtype))
    }

    /// Refuses a tensor on another device than the module.
    fn check_device(&self, argument: &'static str, found: &Device) -> Result<(), Error> {
        let [module, found] =
            [self.gamma.device(), found.clone()].map(|device| device.without_autodiff());
        if module == found {
            return Ok(());
        }
        let [found, expected] = [found, module].map(|device| format!("{device:?}"));
        Err(Error::OtherDevice { argument, found, expected })
    }

    /// Whether the kernels can evaluate a tensor.
    fn has_rank<const D: usize>(&self, input: &Tensor<D>) -> bool {
        let device = cube_device(&input.device());
        device.is_some_and(|device| self.layers.rank_on(&device).is_some())
            && input.device().supports_dtype(input.dtype())
    }

    fn run<const D: usize>(
        &self,
        input: Tensor<D>,
        residual: Option<Tensor<D>>,
        evaluates: bool,
    ) -> Result<Tensor<D>, Error> {
        let slice = std::slice::from_ref;
        let computed =
            self.compute(slice(&input), residual.as_ref().map(slice), evaluates, false)?;
        let Computed { mut y, saved, gamma, beta } = computed;
        let no_output =
            || Error::Runtime { argument: "the output", message: "it is missing".to_owned() };
        let done = Done::forward(y.pop().ok_or_else(no_output)?, saved, residual.is_some());
        // Without a residual any tensor stands in its place: it gets no gradient.
        let residual = match residual {
            Some(residual) => residual.into_dispatch(),
            None => beta.clone().into_dispatch(),
        };
        let x = input.into_dispatch();
        let gamma = gamma.into_dispatch();
        let beta = beta.into_dispatch();
        let y = <Dispatch as BatchNormOps>::batch_norm_output(x, gamma, beta, residual, done);
        Ok(Tensor::from_dispatch(y))
    }

    /// Normalizes the tensors of the ranks of one device, of which a call that is not `joint` has
    /// one, and lets the running statistics follow in training.
    pub(super) fn compute<const D: usize>(
        &self,
        inputs: &[Tensor<D>],
        residuals: Option<&[Tensor<D>]>,
        evaluates: bool,
        joint: bool,
    ) -> Result<Computed, Error> {
        let gamma = self.gamma.val();
        let beta = self.beta.val();
        inputs.iter().try_for_each(|input| check_dtype("input", input))?;
        check_dtype("gamma", &gamma)?;
        check_dtype("beta", &beta)?;
        // The kernels read parameters as f32, whatever a half-precision model stores.
        let [gamma, beta] = [gamma, beta].map(|parameter| parameter.cast(DType::F32));
        let x = primitives("input", inputs)?;
        let way = Way {
            activation: self.activation.of_layer(),
            residual: residuals.is_some(),
            epsilon: self.epsilon,
            momentum: self.momentum,
            of_group: S::OF_GROUP && !evaluates,
            joint,
        };
        let [channels] = gamma.shape().dims();
        let none = || Error::Input { found: Vec::new(), channels };
        let (device, cube) = inputs.first().zip(x.first()).ok_or_else(none)?;
        let device = device.device();
        let cube = &cube.device;
        let no_rank = || Error::NoRank { device: format!("{cube:?}") };
        let rank = self.layers.rank_on(cube).ok_or_else(no_rank)?;
        self.check_device("input", &device)?;
        for residual in residuals.into_iter().flatten() {
            self.check_device("residual", &residual.device())?;
        }
        let layer = self.layers.on(&rank, way)?;
        let parameters = [primitive("gamma", &gamma)?, primitive("beta", &beta)?];
        let running =
            if layer.is_over_ranks() { None } else { Some(self.running(&device, evaluates)) };
        let vectors = running.as_ref().map(|[mean, var]| {
            Ok::<_, Error>([primitive("running mean", mean)?, primitive("running variance", var)?])
        });
        let residual = residuals.map(|residuals| primitives("residual", residuals)).transpose()?;
        let inputs = Inputs { x, residual, parameters, running: vectors.transpose()? };
        let Output { y, saved, running: next } = layer.forward(&rank, inputs, way, evaluates)?;
        if let (Some(now), Some(next)) = (running, next) {
            self.follow_on_device(now, next);
        }
        let counted = saved.statistics().filter(|statistics| statistics.count() > 0);
        if let Some(statistics) = counted.filter(|_| !evaluates) {
            self.follow(&self.running_mean, statistics, |channel| channel.mean, &device);
            self.follow(&self.running_var, statistics, Moments::var_biased, &device);
        }
        Ok(Computed { y, saved, gamma, beta })
    }

    /// Running mean and variance on a device, in f32 and without a part in any graph.
    fn running(&self, device: &Device, evaluates: bool) -> [Tensor<1>; 2] {
        [&self.running_mean, &self.running_var].map(|state| {
            let value = if evaluates { state.value() } else { state.value_sync() };
            value.to_device(device).cast(DType::F32).without_autodiff()
        })
    }

    /// Replaces the running statistics by those of the device.
    fn follow_on_device(&self, now: [Tensor<1>; 2], next: [CubeTensor; 2]) {
        let states = [&self.running_mean, &self.running_var];
        for ((state, now), next) in states.into_iter().zip(now).zip(next) {
            let now = now.into_dispatch();
            let [a, b, c] = [&now; 3].map(Clone::clone);
            let next =
                <Dispatch as BatchNormOps>::batch_norm_output(now, a, b, c, Done::made(next));
            let before = state.value();
            let next = Tensor::<1>::from_dispatch(next).cast(before.dtype());
            state.update(if before.is_autodiff() { Tensor::from_inner(next) } else { next });
        }
    }

    /// Lets a running statistic follow the batch, in Burn's arithmetic.
    fn follow(
        &self,
        state: &RunningState<Tensor<1>>,
        statistics: &GlobalStatistics,
        of: impl FnMut(&Moments) -> f64,
        device: &Device,
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

/// The result of a call, before it has a place in Burn's graph.
pub(super) struct Computed {
    /// One for each input.
    pub y: Vec<CubeTensor>,
    pub saved: Saved,
    /// In f32, with their places in the graph.
    pub gamma: Tensor<1>,
    pub beta: Tensor<1>,
}

/// Values below which evaluation is left to Burn's fusion: a call of this crate asks Burn's runtime
/// for every buffer and drains the fused stream. With 8 thousand values that took longer than its
/// kernels saved, with 3 million it did not. The bound lies between; nothing there was measured.
const FUSED_VALUES: usize = 1 << 17;

/// Whether evaluation of a tensor is better left to Burn's fusion, as far as this is compiled in.
fn is_left_to_fusion<const D: usize>(input: &Tensor<D>) -> bool {
    cfg!(feature = "fusion")
        && !input.device().is_autodiff()
        && input.shape().num_elements() < FUSED_VALUES
}

/// Refuses a type for which Burn has no kernels on the tensor's device: it would fail when the
/// queued work runs.
fn check_dtype<const D: usize>(argument: &'static str, tensor: &Tensor<D>) -> Result<(), Error> {
    match tensor.dtype() {
        dtype if tensor.device().supports_dtype(dtype) => Ok(()),
        dtype => Err(Error::DType { argument, found: format!("{dtype:?}") }),
    }
}

/// The tensors in the memory of Burn's wgpu runtime.
fn primitives<const D: usize>(
    argument: &'static str,
    tensors: &[Tensor<D>],
) -> Result<Vec<CubeTensor>, Error> {
    tensors.iter().map(|tensor| primitive(argument, tensor)).collect()
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
