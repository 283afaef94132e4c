//! A layer with an epilogue and its batches, and the results of a pass. `run` has it on devices.

use syncbn::stats::RunningStats;
use syncbn::{BatchNormConfig, config::Activation, low_level::Epilogue};

use super::bounds::definition;
pub use super::tensors::{Tensors, forward_of};
use crate::batch::{Batch, Parameters, bits};
use crate::random::Random;
use crate::storage::{Types, rounded};

/// Every epilogue; slopes that are small, none, negative, and above 1.
pub const EPILOGUES: [Epilogue; 8] = [
    Epilogue::NONE,
    Epilogue::RELU,
    Epilogue::leaky_relu(0.01),
    Epilogue::leaky_relu(0.0),
    Epilogue::leaky_relu(-0.5),
    Epilogue::leaky_relu(2.0),
    Epilogue::ADD,
    Epilogue::ADD_RELU,
];

/// Activations that are no two slopes, each by itself and after a residual; an alpha that is not 1.
pub const CURVES: [Epilogue; 12] = [
    Epilogue::of(Activation::Relu6),
    Epilogue::of(Activation::Silu),
    Epilogue::of(Activation::Hardswish),
    Epilogue::of(Activation::Gelu),
    Epilogue::of(Activation::GeluTanh),
    Epilogue::of(Activation::Elu(1.0)),
    Epilogue::of(Activation::Relu6).after_residual(),
    Epilogue::of(Activation::Silu).after_residual(),
    Epilogue::of(Activation::Hardswish).after_residual(),
    Epilogue::of(Activation::Gelu).after_residual(),
    Epilogue::of(Activation::GeluTanh).after_residual(),
    Epilogue::of(Activation::Elu(-0.75)).after_residual(),
];

/// Dimensions of three ranks, channels first, in turn: odd sizes throughout with an empty rank, one
/// position, one channel, several tiles, even sizes.
pub fn shape(turn: u64) -> Vec<Vec<usize>> {
    match turn % 5 {
        0 => vec![vec![5, 3, 3, 3], vec![3, 3, 5], vec![0, 3, 7]],
        1 => vec![vec![9, 7], vec![4, 7], vec![1, 7]],
        2 => vec![vec![3, 1, 5, 7], vec![2, 1, 3], vec![1, 1, 1]],
        3 => vec![vec![11, 3, 377], vec![1, 3, 9], vec![2, 3, 4]],
        _ => vec![vec![2, 6, 2, 3, 2], vec![4, 6, 5], vec![3, 6]],
    }
}

/// Inputs, residuals, upstream gradients and the layer that they belong to.
#[derive(Clone, Debug)]
pub struct Problem {
    /// Of every rank.
    pub types: Vec<Types>,
    pub config: BatchNormConfig,
    pub parameters: Parameters,
    pub running: RunningStats,
    pub x: Vec<Batch>,
    pub residuals: Option<Vec<Batch>>,
    pub g: Vec<Batch>,
    /// How many upstream gradients were set to 0 because v is at a kink within rounding.
    pub excluded: usize,
}

/// Results of one call and its backward, channels first.
#[derive(Clone, Debug, PartialEq)]
pub struct Pass {
    pub y: Vec<Vec<f32>>,
    pub grad_inputs: Vec<Vec<f32>>,
    pub grad_residuals: Option<Vec<Vec<f32>>>,
    pub grad_weights: Option<Vec<Vec<f32>>>,
    pub grad_biases: Option<Vec<Vec<f32>>>,
}

/// The statistics that a call normalizes with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Uses {
    /// The group's batch: training.
    Group,
    /// The running statistics: evaluation.
    Running,
}

impl Uses {
    pub const ALL: [Self; 2] = [Self::Running, Self::Group];
}

impl Problem {
    /// Everything random, in values that the storage types hold exactly; ranks take the types in
    /// turn. Upstream gradients have a mean other than 0, so no term of the formulas is near 0.
    /// They are 0 where rounding decides the sign of v.
    pub fn random(
        dims: &[Vec<usize>],
        types: &[Types],
        epilogue: Epilogue,
        [weight, bias]: [bool; 2],
        seed: u64,
    ) -> Self {
        let mut random = Random::new(seed);
        let channels = dims[0][1];
        let means = random.values(channels);
        let types: Vec<Types> = types.iter().copied().cycle().take(dims.len()).collect();
        let mut draw = |dims: &Vec<usize>, dtype, mean: &dyn Fn(usize) -> f32| {
            let inner = dims[2..].iter().product::<usize>().max(1);
            Batch::new(dims, |index| {
                rounded(mean(index / inner % channels) + random.next() as f32, dtype)
            })
        };
        let ranks = || dims.iter().zip(&types);
        let x = ranks()
            .map(|(dims, types)| draw(dims, types.x, &|channel| 2.0 * means[channel]))
            .collect();
        let adds = epilogue.adds_residual();
        let residuals =
            adds.then(|| ranks().map(|(dims, types)| draw(dims, types.x, &|_| 0.125)).collect());
        let g = ranks().map(|(dims, types)| draw(dims, types.other, &|_| 0.25)).collect();
        // Weights of either sign that are not small beside the biases. So most channels have values
        // of both signs.
        let mut parameters = Parameters::random(channels, &mut random);
        parameters.weight.iter_mut().for_each(|weight| *weight += weight.signum());
        parameters.bias.iter_mut().for_each(|bias| *bias *= 0.5);
        let var = (0..channels).map(|_| (1.5 + random.next()) as f32).collect();
        // Near the means of the batch, so evaluation too has values of both signs.
        let mean = means.iter().map(|mean| 2.0 * mean + 0.5 * random.next() as f32).collect();
        let running = RunningStats { mean, var, num_batches_tracked: 7 };
        let config = BatchNormConfig::torch(channels)
            .with_weight(weight)
            .with_bias(bias)
            .with_residual(epilogue.residual)
            .with_activation(epilogue.activation);
        let mut problem = Self { types, config, parameters, running, x, residuals, g, excluded: 0 };
        if epilogue.activates() {
            problem.exclude_kinks();
        }
        problem
    }

    /// f32 throughout, with weight and bias.
    pub fn plain(dims: &[Vec<usize>], epilogue: Epilogue, seed: u64) -> Self {
        Self::random(dims, &Types::all()[..1], epilogue, [true, true], seed)
    }

    fn exclude_kinks(&mut self) {
        let kinks = definition(self.epilogue()).kinks();
        for uses in Uses::ALL {
            let preactivation = self.preactivation(uses);
            for (g, v) in self.g.iter_mut().zip(&preactivation.v) {
                for (index, v) in v.iter().enumerate() {
                    let bound = preactivation.bound[g.channel(index)];
                    let is_near = kinks.iter().any(|kink| (v - kink).abs() <= bound);
                    if is_near && g.values[index] != 0.0 {
                        g.values[index] = 0.0;
                        self.excluded += 1;
                    }
                }
            }
        }
    }

    pub fn epilogue(&self) -> Epilogue {
        Epilogue { residual: self.config.residual, activation: self.config.activation }
    }

    /// The weight that is applied.
    pub fn weight(&self) -> Option<&[f32]> {
        self.config.weight.then_some(self.parameters.weight.as_slice())
    }

    /// The bias that is applied.
    pub fn bias(&self) -> Option<&[f32]> {
        self.config.bias.then_some(self.parameters.bias.as_slice())
    }
}

impl Pass {
    /// All bits, for comparisons in which a NaN equals itself.
    pub fn bits(&self) -> [Vec<Vec<u32>>; 5] {
        let optional = |values: &Option<Vec<Vec<f32>>>| bits(values.as_deref().unwrap_or_default());
        let [residuals, weights, biases] =
            [&self.grad_residuals, &self.grad_weights, &self.grad_biases].map(optional);
        [bits(&self.y), bits(&self.grad_inputs), residuals, weights, biases]
    }
}
