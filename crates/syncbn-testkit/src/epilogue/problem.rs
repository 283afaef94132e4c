//! A layer with an epilogue and its batches, run on devices: evaluation and training, forward and
//! backward.

use pollster::block_on;
use syncbn::stats::RunningStats;
use syncbn::{
    BatchNormConfig, DType, Device, Error, Gradients, SyncBatchNorm, Tensor, config::Activation,
    low_level::Epilogue,
};

use super::bounds::{Entering, definition};
pub use super::tensors::{Tensors, forward_of};
use crate::batch::{Batch, Parameters, bits, read, upload};
use crate::random::Random;
use crate::storage::{Layouts, Types, read_as, rounded, upload_as, zeros_as};

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
            let entering = Entering::of(self, uses);
            for (g, v) in self.g.iter_mut().zip(&entering.v) {
                for (index, v) in v.iter().enumerate() {
                    let bound = entering.bound[g.channel(index)];
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

    /// The layer on these devices, one per rank.
    pub fn layer(&self, devices: Vec<Device>) -> SyncBatchNorm {
        let mut layer = SyncBatchNorm::new(self.config.clone(), devices).expect("a valid layer");
        layer.set_parameters(self.weight(), self.bias()).expect("parameters of the right length");
        layer.set_running_stats(self.running.clone()).expect("statistics of the right length");
        layer
    }

    /// Whether forward keeps a mask: a GPU keeps none of a 16-bit input with an f32 output, nor do
    /// then the others.
    fn keeps_mask(&self, devices: &[Device]) -> bool {
        let can = |(types, device): (&Types, &Device)| {
            device.is_host() || types.x == DType::F32 || types.other != DType::F32
        };
        let asked =
            self.config.activation_mask && self.config.residual && self.epilogue().has_two_slopes();
        asked && self.types.iter().zip(devices).all(can)
    }

    /// The tensors of a call, in f32 and channels first.
    pub fn tensors(&self, layer: &SyncBatchNorm) -> Tensors {
        let residuals = self.residuals.as_deref().map(|batches| upload(layer, batches));
        Tensors { x: upload(layer, &self.x), residuals, g: upload(layer, &self.g) }
    }

    /// The tensors of a call in its storage types, all ranks in these layouts.
    pub fn tensors_as(&self, layer: &SyncBatchNorm, layouts: Layouts) -> Tensors {
        let ranks = || layer.devices().iter().zip(&self.types);
        let as_x = |batches: &Vec<Batch>| {
            ranks()
                .zip(batches)
                .map(|((device, types), batch)| upload_as(device, batch, types.x, layouts.x))
                .collect()
        };
        let g = ranks()
            .zip(&self.g)
            .map(|((device, types), batch)| upload_as(device, batch, types.other, layouts.g));
        Tensors { x: as_x(&self.x), residuals: self.residuals.as_ref().map(as_x), g: g.collect() }
    }

    /// Evaluation, then training, with the same tensors; ranks take the layouts in turn.
    pub fn run(
        &self,
        devices: Vec<Device>,
        layouts: &[Layouts],
    ) -> Result<[(Uses, Pass); 2], Error> {
        let layer = self.layer(devices);
        let layouts: Vec<Layouts> = layouts.iter().copied().cycle().take(self.x.len()).collect();
        let make = |make: &dyn Fn(&Device, usize) -> Tensor| -> Vec<Tensor> {
            layer.devices().iter().enumerate().map(|(rank, device)| make(device, rank)).collect()
        };
        let (types, layout_of) = (&self.types, |rank: usize| layouts[rank]);
        let as_x = |batches: &[Batch]| {
            make(&|on, rank| upload_as(on, &batches[rank], types[rank].x, layout_of(rank).x))
        };
        let tensors = Tensors {
            x: as_x(&self.x),
            residuals: self.residuals.as_deref().map(as_x),
            g: make(&|on, rank| upload_as(on, &self.g[rank], types[rank].other, layout_of(rank).g)),
        };
        let mut outputs =
            make(&|on, rank| zeros_as(on, &self.x[rank], types[rank].other, layout_of(rank).x));
        let mut pass = |uses: Uses| {
            let request = tensors.forward().write_to(&mut outputs);
            let saved = match uses {
                Uses::Running => block_on(layer.forward_eval(request)),
                Uses::Group => block_on(layer.forward_train(request)),
            }?
            .saved;
            let y = self.read(&outputs);
            let is_kept = self.keeps_mask(layer.devices());
            assert_eq!(
                saved.mask_bytes() > 0,
                is_kept && self.x.iter().any(|batch| !batch.values.is_empty())
            );
            let decides = self.config.residual && self.epilogue().activates();
            assert_eq!(saved.needs_residual(), decides && !is_kept);
            let needed = if saved.needs_residual() {
                tensors.backward()
            } else {
                tensors.backward_without()
            };
            let backward = block_on(layer.backward(&saved, needed))?;
            let like_x = backward.input.iter().zip(&tensors.x);
            for (gradient, x) in like_x.chain(backward.residual.iter().flatten().zip(&tensors.x)) {
                assert_eq!((gradient.dtype(), gradient.layout()), (x.dtype(), x.layout()));
            }
            Ok::<_, Error>((uses, self.pass(y, &backward)))
        };
        let passes = [pass(Uses::Running)?, pass(Uses::Group)?];
        let residuals = tensors.residuals.iter().zip(&self.residuals);
        for (tensors, batches) in
            [(&tensors.x, &self.x), (&tensors.g, &self.g)].into_iter().chain(residuals)
        {
            for (found, batch) in self.read(tensors).iter().zip(batches) {
                // A NaN is itself.
                assert_eq!(
                    bits(std::slice::from_ref(found)),
                    bits(std::slice::from_ref(&batch.values)),
                    "changed"
                );
            }
        }
        Ok(passes)
    }

    /// Results of a backward call after a forward call with output y.
    pub fn pass(&self, y: Vec<Vec<f32>>, backward: &Gradients<Vec<Tensor>>) -> Pass {
        let grad_weights = backward.weight.as_deref().map(read);
        let grad_biases = backward.bias.as_deref().map(read);
        let grad_residuals = backward.residual.as_deref().map(|gradients| self.read(gradients));
        assert_eq!(
            (grad_weights.is_some(), grad_biases.is_some()),
            (self.config.weight, self.config.bias)
        );
        assert_eq!(grad_residuals.is_some(), self.epilogue().adds_residual());
        Pass {
            y,
            grad_inputs: self.read(&backward.input),
            grad_residuals,
            grad_weights,
            grad_biases,
        }
    }

    /// Values of activations, channels first.
    pub fn read(&self, tensors: &[Tensor]) -> Vec<Vec<f32>> {
        tensors.iter().zip(&self.x).map(|(tensor, batch)| read_as(tensor, batch)).collect()
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
