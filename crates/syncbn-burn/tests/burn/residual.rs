//! A residual of several ranks, in one call on one device and over two: values and the gradients of
//! all inputs, against the definition.

use burn::tensor::{Device, Tensor, TensorData};
use syncbn_burn::{Activation, BatchNormConfig, Error, SyncBatchNormConfig};

use crate::common::{
    CHANNELS, DEADLINE, DEFINITION, Norm, Problem, Seen, alone, devices, on_threads, ours, ranks,
    values,
};
use crate::joint::summed;

/// What is normalized, and the residual of each rank.
struct Block {
    problem: Problem,
    residuals: Vec<Vec<f32>>,
}

/// What one step of one rank shows.
struct Added<T> {
    seen: Seen<T>,
    grad_residual: Vec<T>,
}

impl Block {
    fn random(batches: &[usize], positions: usize, seed: u64) -> Self {
        let residuals = Problem::random(batches, positions, seed + 1000).ranks;
        Self {
            problem: Problem::random(batches, positions, seed),
            residuals: residuals.into_iter().map(|batch| batch.x).collect(),
        }
    }

    /// relu(norm(x) + residual) by the definition.
    fn expected(&self) -> Vec<Added<f64>> {
        let mut passing = self.problem.clone();
        let mut outputs = Vec::new();
        for ((rank, batch), residual) in
            self.problem.expected().iter().zip(&mut passing.ranks).zip(&self.residuals)
        {
            let sums = rank.y.iter().zip(residual).map(|(y, &residual)| y + f64::from(residual));
            let sums: Vec<f64> = sums.collect();
            // Rounding must not decide which values pass.
            assert!(sums.iter().all(|sum| sum.abs() > 1e-4), "another seed");
            for (g, sum) in batch.g.iter_mut().zip(&sums) {
                *g = if *sum > 0.0 { *g } else { 0.0 };
            }
            outputs.push(sums.iter().map(|sum| sum.max(0.0)).collect::<Vec<_>>());
        }
        let ranks = passing.expected().into_iter().zip(outputs).zip(&passing.ranks);
        let added = ranks.map(|((seen, y), batch)| Added {
            seen: Seen { y, ..seen },
            grad_residual: batch.g.iter().copied().map(f64::from).collect(),
        });
        added.collect()
    }

    /// The step of some ranks, whose outputs `forward` makes of their x and residuals.
    fn step<N: Norm>(
        &self,
        norm: &N,
        of: std::ops::Range<usize>,
        device: &Device,
        forward: impl Fn(Vec<Tensor<3>>, Vec<Tensor<3>>) -> Vec<Tensor<3>>,
    ) -> Vec<Added<f32>> {
        let device = device.clone().autodiff();
        let tensor = |values: &[f32], dims: [usize; 3]| {
            Tensor::<3>::from_data(TensorData::new(values.to_vec(), dims), &device)
        };
        let ranks = self.problem.ranks[of.clone()].iter().zip(&self.residuals[of]);
        let leaves = ranks.clone().map(|(batch, residual)| {
            [&batch.x, residual].map(|values| tensor(values, batch.dims).require_grad())
        });
        let leaves: Vec<[Tensor<3>; 2]> = leaves.collect();
        let (x, residuals) = leaves.iter().cloned().map(|[x, residual]| (x, residual)).unzip();
        let y = forward(x, residuals);
        let losses = y.iter().zip(ranks);
        let losses = losses.map(|(y, (batch, _))| (y.clone() * tensor(&batch.g, batch.dims)).sum());
        let gradients = losses.reduce(|sum, loss| sum + loss).unwrap().backward();
        let [gamma, beta] = norm.affine().map(|vector| values(vector.grad(&gradients).unwrap()));
        let added = y.into_iter().zip(&leaves).map(|(y, leaves)| {
            let [grad_x, grad_residual] =
                leaves.each_ref().map(|leaf| values(leaf.grad(&gradients).unwrap()));
            let grad_gamma = gamma.clone();
            let grad_beta = beta.clone();
            let running = norm.running();
            let seen = Seen { y: values(y), grad_x, grad_gamma, grad_beta, running };
            Added { seen, grad_residual }
        });
        added.collect()
    }
}

fn assert_close(found: &Added<f32>, expected: &Added<f64>, what: &str) {
    found.seen.assert_close(&expected.seen, DEFINITION, what);
    // The upstream gradient, where it passes.
    let grad: Vec<f64> = found.grad_residual.iter().copied().map(f64::from).collect();
    assert_eq!(grad, expected.grad_residual, "{what}");
}

#[test]
fn residuals_of_the_ranks_of_one_device_are_added_in_one_call() {
    let devices = devices();
    let rank = ranks(&devices[..1], DEADLINE).remove(0);
    for (batches, seed) in [(&[3, 2][..], 200), (&[2, 1, 4], 201)] {
        let block = Block::random(batches, 5, seed);
        let Problem { gamma, beta, .. } = &block.problem;
        let config = BatchNormConfig::new(CHANNELS).with_activation(Activation::Relu);
        let norm = config.init(&rank.device().autodiff()).set(gamma, beta);
        let found = block.step(&norm, 0..batches.len(), &rank.device(), |x, residuals| {
            norm.forward_add_all(x, residuals)
        });
        let mut expected = block.expected();
        let mut seen = Vec::new();
        expected.iter().for_each(|rank| seen.push(rank.seen.clone()));
        for (rank, seen) in expected.iter_mut().zip(summed(seen)) {
            rank.seen = seen;
        }
        for (index, (found, expected)) in found.iter().zip(&expected).enumerate() {
            assert_close(found, expected, &format!("rank {index} of {batches:?}"));
        }
    }
}

#[test]
fn residuals_of_two_devices_are_added_with_the_statistics_of_both() {
    let devices = devices();
    for (batches, seed) in [([2, 2], 202), ([4, 1], 203)] {
        let block = Block::random(&batches, 6, seed);
        let Problem { gamma, beta, .. } = &block.problem;
        let found = on_threads(ranks(&devices[..], DEADLINE), |index, rank| {
            let config = SyncBatchNormConfig::new(CHANNELS).with_activation(Activation::Relu);
            let norm = config.init(&rank.device().autodiff()).set(gamma, beta);
            let own = index..index + 1;
            block.step(&norm, own, &rank.device(), |mut x, mut residual| {
                vec![norm.forward_add(x.remove(0), residual.remove(0))]
            })
        });
        for (rank, (found, expected)) in found.iter().zip(&block.expected()).enumerate() {
            assert_close(&found[0], expected, &format!("rank {rank} of {batches:?}"));
        }
    }
}

#[test]
fn evaluation_adds_to_each_tensor_its_residual() {
    use burn::module::Module;
    let devices = devices();
    let rank = ranks(&devices[..1], DEADLINE).remove(0);
    let norm = alone(&rank.device()).valid();
    let tensor = |value| Tensor::<2>::full([2, CHANNELS], value, &rank.device());
    let y = norm.forward_add_all(vec![tensor(0.0), tensor(0.0)], vec![tensor(2.0), tensor(-3.0)]);
    // Of the running statistics of a new layer, 0 stays 0.
    let y: Vec<Vec<f32>> = y.into_iter().map(values).collect();
    assert_eq!(y, [[2.0; 2 * CHANNELS], [-3.0; 2 * CHANNELS]]);
}

#[test]
fn a_residual_for_each_input_or_an_error() {
    let devices = devices();
    let rank = ranks(&devices[..1], DEADLINE).remove(0);
    let norm = alone(&rank.device());
    for device in [rank.device(), rank.device().autodiff()] {
        let tensor = || Tensor::<2>::ones([2, CHANNELS], &device);
        let error = norm.try_forward_add_all(vec![tensor(), tensor()], vec![tensor()]).unwrap_err();
        assert!(matches!(error, Error::Setting { found: 1.0, .. }), "{error}");
    }
}

#[test]
fn a_residual_outside_of_the_graph_is_a_constant() {
    let devices = devices();
    let rank = ranks(&devices[..1], DEADLINE).remove(0);
    let device = rank.device();
    let norm = ours(&device);
    let x = Tensor::<2>::from_data([[1.0, 2.0, 3.0], [3.0, 0.0, 7.0]], &device.clone().autodiff())
        .require_grad();
    let y = norm.forward_add(x.clone(), Tensor::full([2, CHANNELS], 5.0, &device));
    let plain = norm.forward(x.clone());
    let moved: Vec<f32> = values(plain).into_iter().map(|y| y + 5.0).collect();
    assert_eq!(values(y.clone()), moved);
    assert!(x.grad(&y.powi_scalar(2).sum().backward()).is_some());
}
