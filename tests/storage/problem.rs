//! A layer with its batches, run on devices: evaluation and training, forward and backward.

use pollster::block_on;
use syncbn::stats::RunningStats;
use syncbn::{Backward, Device, DeviceGroup, Error, SyncBatchNormConfig, Tensor};

use super::common::*;
use super::stored::*;

/// Inputs, upstream gradients and the layer that they belong to.
#[derive(Clone, Debug)]
pub struct Problem {
    /// Of every rank.
    pub types: Vec<Types>,
    pub config: SyncBatchNormConfig,
    pub parameters: Parameters,
    pub running: RunningStats,
    pub x: Vec<Batch>,
    pub g: Vec<Batch>,
}

/// What one call and its backward gave, channels first.
#[derive(Clone, Debug, PartialEq)]
pub struct Pass {
    pub y: Vec<Vec<f32>>,
    pub grad_inputs: Vec<Vec<f32>>,
    pub grad_weights: Option<Vec<Vec<f32>>>,
    pub grad_biases: Option<Vec<Vec<f32>>>,
}

/// What a call normalizes with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Uses {
    /// The group's batch: training.
    Group,
    /// The running statistics: evaluation.
    Running,
}

impl Problem {
    /// Everything random, in values that the storage types hold exactly; ranks take the types in turn. Channels have means
    /// of their own, and upstream gradients have one too, so that no term of the formulas is near 0 for want of it.
    pub fn random(dims: &[Vec<usize>], types: &[Types], [weight, bias]: [bool; 2], seed: u64) -> Self {
        let mut random = Random(seed);
        let channels = dims[0][1];
        let means = random.values(channels);
        let types: Vec<Types> = types.iter().copied().cycle().take(dims.len()).collect();
        let mut draw = |dims: &Vec<usize>, dtype, mean: &dyn Fn(usize) -> f32| {
            let inner = dims[2..].iter().product::<usize>().max(1);
            Batch::new(dims, |index| rounded(mean(index / inner % channels) + random.next() as f32, dtype))
        };
        let ranks = || dims.iter().zip(&types);
        let x = ranks().map(|(dims, types)| draw(dims, types.x, &|channel| 2.0 * means[channel])).collect();
        let g = ranks().map(|(dims, types)| draw(dims, types.other, &|_| 0.25)).collect();
        let parameters = Parameters::random(channels, &mut random);
        let var = (0..channels).map(|_| (1.5 + random.next()) as f32).collect();
        let running = RunningStats { mean: random.values(channels), var, num_batches_tracked: 7 };
        let config = SyncBatchNormConfig::torch(channels).with_weight(weight).with_bias(bias);
        Self { types, config, parameters, running, x, g }
    }

    /// The weight that is applied.
    pub fn weight(&self) -> Option<&[f32]> {
        self.config.weight.then_some(self.parameters.weight.as_slice())
    }

    /// The bias that is applied.
    pub fn bias(&self) -> Option<&[f32]> {
        self.config.bias.then_some(self.parameters.bias.as_slice())
    }

    /// The layer on these devices, one per rank.
    pub fn group(&self, devices: Vec<Device>) -> DeviceGroup {
        let mut group = DeviceGroup::new(self.config.clone(), devices).expect("a valid group");
        group.set_parameters(self.weight(), self.bias()).expect("parameters of the right length");
        group.set_running_stats(self.running.clone()).expect("statistics of the right length");
        group
    }

    /// Evaluation, then training, with the same tensors; ranks take the layouts in turn.
    pub fn run(&self, devices: Vec<Device>, layouts: &[Layouts]) -> Result<[(Uses, Pass); 2], Error> {
        let mut group = self.group(devices);
        let layouts: Vec<Layouts> = layouts.iter().copied().cycle().take(self.x.len()).collect();
        let tensors = |make: &dyn Fn(&Device, usize) -> Tensor| -> Vec<Tensor> {
            group.devices().iter().enumerate().map(|(rank, device)| make(device, rank)).collect()
        };
        let (types, layout_of) = (&self.types, |rank: usize| layouts[rank]);
        let inputs = tensors(&|on, rank| upload_as(on, &self.x[rank], types[rank].x, layout_of(rank).x));
        let grad_outputs = tensors(&|on, rank| upload_as(on, &self.g[rank], types[rank].other, layout_of(rank).g));
        let mut outputs = tensors(&|on, rank| zeros_as(on, &self.x[rank], types[rank].other, layout_of(rank).x));

        let mut pass = |uses: Uses| {
            let (saved, _) = match uses {
                Uses::Running => block_on(group.forward_eval_into(&inputs, &mut outputs)),
                Uses::Group => block_on(group.forward_train_into(&inputs, &mut outputs)),
            }?;
            let y = self.read(&outputs);
            let backward = block_on(group.backward(&saved, &inputs, &grad_outputs))?;
            for (grad_input, input) in backward.grad_inputs.iter().zip(&inputs) {
                assert_eq!((grad_input.dtype(), grad_input.layout()), (input.dtype(), input.layout()));
            }
            Ok::<_, Error>((uses, self.pass(y, &backward)))
        };
        let passes = [pass(Uses::Running)?, pass(Uses::Group)?];
        for (tensors, batches) in [(&inputs, &self.x), (&grad_outputs, &self.g)] {
            let given: Vec<Vec<f32>> = batches.iter().map(|batch| batch.values.clone()).collect();
            assert_eq!(bits(&self.read(tensors)), bits(&given), "what is only read has changed");
        }
        Ok(passes)
    }

    fn pass(&self, y: Vec<Vec<f32>>, backward: &Backward) -> Pass {
        let grad_weights = backward.grad_weights.as_deref().map(read);
        let grad_biases = backward.grad_biases.as_deref().map(read);
        assert_eq!((grad_weights.is_some(), grad_biases.is_some()), (self.config.weight, self.config.bias));
        Pass { y, grad_inputs: self.read(&backward.grad_inputs), grad_weights, grad_biases }
    }

    /// Values of activations, channels first.
    pub fn read(&self, tensors: &[Tensor]) -> Vec<Vec<f32>> {
        tensors.iter().zip(&self.x).map(|(tensor, batch)| read_as(tensor, batch)).collect()
    }
}

impl Pass {
    /// All bits, for comparisons in which a NaN equals itself.
    pub fn bits(&self) -> [Vec<Vec<u32>>; 4] {
        let optional = |values: &Option<Vec<Vec<f32>>>| bits(values.as_deref().unwrap_or_default());
        [bits(&self.y), bits(&self.grad_inputs), optional(&self.grad_weights), optional(&self.grad_biases)]
    }
}
