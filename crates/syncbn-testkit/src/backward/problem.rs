//! What a backward pass is given, what it returned, and what the f64 definition says it should
//! have.

use pollster::block_on;
use syncbn::stats::RunningStats;
use syncbn::{Backward, BatchNormConfig, Error, Gradients, Normalized, SyncBatchNorm, Tensor};
use syncbn_reference as reference;

use crate::batch::{Batch, Parameters, bits, read, upload};
use crate::oracle::{reduced, widened, with_ranks};
use crate::placement::Placement;
use crate::random::Random;

/// What a forward call normalizes with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Uses {
    Group,
    Local,
    Running,
}

/// Inputs and upstream gradients per rank, and the layer that they belong to.
#[derive(Clone, Debug)]
pub struct Problem {
    pub config: BatchNormConfig,
    pub parameters: Parameters,
    pub running: RunningStats,
    pub batches: Vec<Batch>,
    pub grad_outputs: Vec<Batch>,
}

/// A training step.
pub type Trained = (Normalized<Vec<Tensor>>, Gradients<Vec<Tensor>>);

/// The gradients of a call, brought to the host.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    pub grad_inputs: Vec<Vec<f32>>,
    pub grad_weights: Option<Vec<Vec<f32>>>,
    pub grad_biases: Option<Vec<Vec<f32>>>,
}

impl Problem {
    /// Everything random. The upstream gradient has a mean, so that no term of the formula is near
    /// 0 for want of one.
    pub fn random(dims: &[&[usize]], seed: u64) -> Self {
        let mut random = Random::new(seed);
        let batches: Vec<Batch> =
            dims.iter().map(|dims| Batch::random(dims, &mut random)).collect();
        Self::with_batches(batches, &mut random)
    }

    /// These inputs and a random rest.
    pub fn with_batches(batches: Vec<Batch>, random: &mut Random) -> Self {
        let channels = batches[0].dims[1];
        let parameters = Parameters::random(channels, random);
        let positive = |random: &mut Random| (1.5 + random.next()) as f32;
        let running = RunningStats {
            mean: random.values(channels),
            var: (0..channels).map(|_| positive(random)).collect(),
            num_batches_tracked: 7,
        };
        let upstream = |batch: &Batch| Batch::new(&batch.dims, |_| (0.25 + random.next()) as f32);
        let grad_outputs = batches.iter().map(upstream).collect();
        Self {
            config: BatchNormConfig::torch(channels),
            parameters,
            running,
            batches,
            grad_outputs,
        }
    }

    pub fn channels(&self) -> usize {
        self.config.num_features
    }

    /// The weight that is applied.
    pub fn weight(&self) -> Option<&[f32]> {
        self.config.weight.then_some(self.parameters.weight.as_slice())
    }

    /// A layer with this configuration, these parameters and these running statistics.
    pub fn layer(&self, on: impl Placement) -> SyncBatchNorm {
        let mut layer =
            SyncBatchNorm::new(self.config.clone(), on.devices(self.batches.len())).unwrap();
        let bias = self.config.bias.then_some(self.parameters.bias.as_slice());
        layer.set_parameters(self.weight(), bias).unwrap();
        if self.config.track_running_stats {
            layer.set_running_stats(self.running.clone()).unwrap();
        }
        layer
    }

    pub fn inputs(&self, layer: &SyncBatchNorm) -> Vec<Tensor> {
        upload(layer, &self.batches)
    }

    pub fn upstream(&self, layer: &SyncBatchNorm) -> Vec<Tensor> {
        upload(layer, &self.grad_outputs)
    }

    /// A training step and its gradients.
    pub fn train(&self, on: impl Placement) -> Result<Trained, Error> {
        let layer = self.layer(on);
        let x = self.inputs(&layer);
        let g = self.upstream(&layer);
        let forward = block_on(layer.forward_train(&x))?;
        let backward = block_on(layer.backward(&forward.saved, Backward::of(&x, &g)))?;
        Ok((forward, backward))
    }

    /// [`train`](Self::train), and what it found.
    pub fn found(&self, on: impl Placement) -> Found {
        Found::read(&self.train(on).unwrap().1)
    }

    /// The gradients by definition; those of weight and bias local, or of the group where the call
    /// communicates.
    pub fn definition(&self, uses: Uses) -> reference::Gradients {
        let weight = self.weight().map(widened);
        let weight = weight.as_deref();
        let eps = self.config.eps;
        let mut gradients = with_ranks(&self.batches, |xs| {
            with_ranks(&self.grad_outputs, |gs| match uses {
                Uses::Group => reference::backward_train(xs, gs, weight, eps).unwrap(),
                Uses::Running => {
                    let mean = widened(&self.running.mean);
                    let var = widened(&self.running.var);
                    reference::backward_with_statistics(xs, gs, &mean, &var, weight, eps).unwrap()
                }
                Uses::Local => {
                    let mut all = reference::Gradients {
                        grad_inputs: vec![],
                        grad_weights: vec![],
                        grad_biases: vec![],
                    };
                    for rank in 0..xs.len() {
                        let of = rank..=rank;
                        let one = reference::backward_train(&xs[of.clone()], &gs[of], weight, eps)
                            .unwrap();
                        all.grad_inputs.extend(one.grad_inputs);
                        all.grad_weights.extend(one.grad_weights);
                        all.grad_biases.extend(one.grad_biases);
                    }
                    all
                }
            })
        });
        if uses == Uses::Group {
            let of = self.config.affine_gradient;
            gradients.grad_weights = reduced(gradients.grad_weights, of);
            gradients.grad_biases = reduced(gradients.grad_biases, of);
        }
        gradients
    }
}

impl Found {
    pub fn read(backward: &Gradients<Vec<Tensor>>) -> Self {
        Self {
            grad_inputs: read(&backward.input),
            grad_weights: backward.weight.as_deref().map(read),
            grad_biases: backward.bias.as_deref().map(read),
        }
    }

    /// All bits, for comparisons in which a NaN equals itself.
    pub fn bits(&self) -> [Vec<Vec<u32>>; 3] {
        let optional = |values: &Option<Vec<Vec<f32>>>| bits(values.as_deref().unwrap_or_default());
        [bits(&self.grad_inputs), optional(&self.grad_weights), optional(&self.grad_biases)]
    }
}
