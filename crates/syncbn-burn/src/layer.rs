//! The layer below a module: one `syncbn::SyncBatchNorm` per rank, made when the module first
//! trains there.
//!
//! Forward and backward take Burn's primitive tensors on the calling thread and wait on it for the
//! other ranks; nothing of Burn's is held while they wait.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use burn::tensor::Device;
use burn_cubecl::CubeDevice;
use burn_cubecl::tensor::CubeTensor;
use pollster::block_on;
use syncbn::config::{Momentum, RunningVariance};
use syncbn::stats::GlobalStatistics;
use syncbn::{Backward, BatchNormConfig, Forward, SyncBatchNorm};

use crate::error::Error;
use crate::memory::{Lent, Pin, fresh_like, in_place, lend};
use crate::rank::{Shared, of_cube_device, of_device};

/// The layers of a module and its clones, one per rank.
#[derive(Debug)]
pub(crate) struct Layers {
    config: BatchNormConfig,
    /// The rank that the module was made on, which lives as long as the module.
    rank: Option<Arc<Shared>>,
    made: Mutex<Vec<Arc<Layer>>>,
}

/// The layer of one rank.
#[derive(Debug)]
pub(crate) struct Layer {
    rank: Arc<Shared>,
    /// A pass takes `&self`, but before each the parameters of its call are set, which must stay
    /// until it is over.
    norm: Mutex<SyncBatchNorm>,
}

/// What backward needs of a forward call. The activation and the parameters stay where they are
/// until it is dropped.
#[derive(Debug)]
pub(crate) struct Saved {
    /// Not held: Burn keeps a graph that nobody differentiates until a later backward pass, and the
    /// rank would seem to be there all the while.
    layer: Weak<Layer>,
    x: CubeTensor,
    input: Lent,
    parameters: [CubeTensor; 2],
    _pinned: [Pin; 2],
    forward: syncbn::Saved,
}

/// What backward makes.
pub(crate) struct Gradients {
    pub x: Option<CubeTensor>,
    pub weight: CubeTensor,
    pub bias: CubeTensor,
}

impl Layers {
    pub fn new(
        num_features: usize,
        epsilon: f64,
        momentum: f64,
        rank: Option<Arc<Shared>>,
    ) -> Result<Self, Error> {
        // The running statistics are Burn's; this layer has none to go apart from them.
        let config = BatchNormConfig::torch(num_features)
            .with_eps(epsilon)
            .with_momentum(Momentum::NewWeight(momentum))
            .with_running_variance(RunningVariance::Biased)
            .with_track_running_stats(false);
        config.validate().map_err(syncbn::Error::from)?;
        Ok(Self { config, rank, made: Mutex::default() })
    }

    /// The layer of the rank of a device.
    ///
    /// It is made when it is first asked for: ranks number their layers in the order in which they
    /// make them, and the order in which a network uses its layers is the same on every rank,
    /// however its modules came there.
    pub fn on(&self, device: &CubeDevice) -> Result<Arc<Layer>, Error> {
        let mut made = lock(&self.made);
        if let Some(layer) = made.iter().find(|layer| layer.rank.is_on(device)) {
            return Ok(layer.clone());
        }
        let own = self.rank.clone().filter(|rank| rank.is_on(device));
        let rank = own.or_else(|| of_cube_device(device));
        let rank = rank.ok_or_else(|| Error::NoRank { device: format!("{device:?}") })?;
        let norm =
            SyncBatchNorm::new(self.config.clone(), [rank.gpu.clone()])?.in_group(&rank.group)?;
        let layer = Arc::new(Layer { rank, norm: Mutex::new(norm) });
        made.push(layer.clone());
        Ok(layer)
    }

    /// Tells the ranks that may wait for the one of a device, or else for the module's own, that it
    /// has failed.
    pub fn tell(&self, device: &Device, error: &Error) {
        if let Some(rank) = of_device(device).or_else(|| self.rank.clone()) {
            rank.tell(error);
        }
    }
}

impl Layer {
    /// y with the statistics of the group, and what backward needs. `weight` and `bias` are f32.
    pub fn forward(
        self: &Arc<Self>,
        x: CubeTensor,
        weight: CubeTensor,
        bias: CubeTensor,
    ) -> Result<(CubeTensor, Saved), Error> {
        let [x, weight, bias] = [x, weight, bias].map(in_place);
        let y = fresh_like(&x);
        let gpu = &self.rank.gpu;
        let mut norm = lock(&self.norm);
        // From here to the submission nothing of this thread reaches Burn.
        let (input, mut output) = (lend("input", &x, gpu)?, lend("output", &y, gpu)?);
        let parameters = [weight, bias];
        let pinned = set_parameters(&mut norm, &parameters, gpu)?;
        let forward =
            block_on(norm.forward_train(Forward::of(&input.tensor).write_to(&mut output.tensor)))?
                .saved;
        Ok((
            y,
            Saved { layer: Arc::downgrade(self), x, input, parameters, _pinned: pinned, forward },
        ))
    }
}

impl Saved {
    /// The statistics of the group.
    pub fn statistics(&self) -> Option<&GlobalStatistics> {
        self.forward.statistics()
    }

    /// The gradients of the call, from that of y; those of weight and bias are f32, of this rank's
    /// values alone. The gradient of x is computed where it is wanted; the other ranks need this
    /// one's sums in any case.
    pub fn backward(&self, grad: CubeTensor, wants_x: bool) -> Result<Gradients, Error> {
        let layer = self.layer.upgrade().ok_or(Error::Gone)?;
        self.backward_on(&layer, grad, wants_x).inspect_err(|error| layer.rank.tell(error))
    }

    fn backward_on(
        &self,
        layer: &Layer,
        grad: CubeTensor,
        wants_x: bool,
    ) -> Result<Gradients, Error> {
        let grad = in_place(grad);
        let [weight, bias] = &self.parameters;
        let (x, [weight, bias]) =
            (wants_x.then(|| fresh_like(&self.x)), [weight, bias].map(fresh_like));
        let gpu = &layer.rank.gpu;
        let mut norm = lock(&layer.norm);
        let lend = |tensor| lend("gradient", tensor, gpu);
        let (grad, mut targets) = (lend(&grad)?, [lend(&weight)?, lend(&bias)?]);
        let mut grad_x = x.as_ref().map(lend).transpose()?;
        // Those of the forward call: an optimizer's step since has left others.
        let _pinned = set_parameters(&mut norm, &self.parameters, gpu)?;
        let [grad_weight, grad_bias] = &mut targets;
        let request = Backward::of(&self.input.tensor, &grad.tensor)
            .input_gradient(grad_x.as_mut().map(|lent| &mut lent.tensor))
            .weight_gradient(&mut grad_weight.tensor)
            .bias_gradient(&mut grad_bias.tensor);
        block_on(norm.backward(&self.forward, request))?;
        Ok(Gradients { x, weight, bias })
    }
}

/// Lends weight and bias to the layer.
fn set_parameters(
    norm: &mut SyncBatchNorm,
    parameters: &[CubeTensor; 2],
    gpu: &syncbn::Device,
) -> Result<[Pin; 2], Error> {
    let [weight, bias] = parameters;
    let (weight, bias) = (lend("gamma", weight, gpu)?, lend("beta", bias, gpu)?);
    norm.set_parameter_tensors(Some(weight.tensor), Some(bias.tensor))?;
    Ok([weight.pinned, bias.pinned])
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
