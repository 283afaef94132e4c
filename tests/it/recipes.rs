//! The recipes of the guide against the f64 definition: ghost batches, and a batch whose parts have
//! statistics of their own and share weight and bias.

use std::time::Duration;

use pollster::block_on;
use syncbn::stats::RunningStats;
use syncbn::{Backward, BatchNorm, BatchNormConfig, Device, SyncBatchNorm, Tensor, joint};
use syncbn_reference::{Divisor, Running};

use crate::common;
use crate::common::backward::compare::compare_gradients;
use crate::common::backward::problem::{Found, Problem, Uses};
use common::*;

const DIMS: [usize; 3] = [6, 5, 7];
/// The weight of a new batch in the running statistics.
const FACTOR: f64 = 0.1;
/// The most that y of a `BatchNorm` may be off, in ulp, as it says of itself.
const ONE_GPU_ULP: f64 = 16.0;

/// Pieces of one batch, each a problem of its own with the same weight and bias. Their means
/// differ, so that statistics of the whole would be others.
fn pieces(count: usize, ranks: usize) -> Vec<Problem> {
    let piece = |number: usize| {
        let mut random = Random::new(50 + number as u64);
        let batches = (0..ranks).map(|_| Batch {
            values: random.values(210).iter().map(|x| x + 3.0 * number as f32).collect(),
            dims: DIMS.to_vec(),
        });
        let batches = batches.collect();
        Problem::with_batches(batches, &mut random)
    };
    let first = piece(0);
    let of = |number| Problem { parameters: first.parameters.clone(), ..piece(number) };
    (0..count).map(of).collect()
}

/// Checks y and the gradients of a piece by themselves.
fn check(piece: &Problem, y: &[Vec<f32>], gradients: &Found, allowed_ulp: f64) {
    let expected = definition(&piece.batches, Some(&piece.parameters), piece.config.eps).outputs;
    compare(&piece.batches, y, &expected, allowed_ulp).unwrap();
    let expected = piece.definition(Uses::Group);
    compare_gradients(piece, Uses::Group, gradients, &expected).unwrap();
}

/// The running statistics after these pieces, one after another.
fn check_running(found: &RunningStats, pieces: &[&Problem]) {
    let channels = DIMS[1];
    let mut expected = Running { mean: vec![0.0; channels], var: vec![1.0; channels] };
    for piece in pieces {
        let of = definition(&piece.batches, None, piece.config.eps).statistics;
        expected.update(&of, FACTOR, Divisor::CountMinusOne).unwrap();
    }
    compare_running(found, &expected, 1.0).unwrap();
}

fn set(layer: &mut SyncBatchNorm, piece: &Problem) {
    piece.parameters.set(layer);
}

#[test]
fn ghost_batches_of_one_layer_each_have_their_own_statistics() {
    let pieces = pieces(3, 1);
    for device in devices() {
        let mut layer =
            SyncBatchNorm::new(BatchNormConfig::torch(DIMS[1]), [device.clone()]).unwrap();
        set(&mut layer, &pieces[0]);
        let [mut weight, mut bias] = [0; 2].map(|_| device.zeros(&[DIMS[1]]).unwrap());
        let mut sums = [vec![0f32; DIMS[1]], vec![0f32; DIMS[1]]];
        // Forward of all, then backward of all: each call has its own `Saved`.
        let steps: Vec<_> = pieces
            .iter()
            .map(|piece| {
                let x = piece.batches[0].upload(&device);
                let dy = piece.grad_outputs[0].upload(&device);
                let forward = block_on(layer.forward_train(&x)).unwrap();
                (x, dy, forward)
            })
            .collect();
        for (piece, (x, dy, forward)) in pieces.iter().zip(&steps) {
            let own = block_on(layer.backward(&forward.saved, Backward::of([x], [dy]))).unwrap();
            let own = Found::read(&own);
            check(piece, &read(std::slice::from_ref(&forward.output)), &own, TOLERANCE_ULP);
            let mut dx = device.zeros(&DIMS).unwrap();
            let request = Backward::of(x, dy)
                .input_gradient(&mut dx)
                .weight_gradient(&mut weight)
                .bias_gradient(&mut bias)
                .accumulate();
            block_on(layer.backward(&forward.saved, request)).unwrap();
            assert_eq!(read(&[dx]), own.grad_inputs);
            let of_piece = [own.grad_weights.unwrap(), own.grad_biases.unwrap()];
            for (sum, own) in sums.iter_mut().zip(of_piece) {
                sum.iter_mut().zip(&own[0]).for_each(|(sum, own)| *sum += own);
            }
        }
        assert_eq!(read(&[weight, bias]), sums);
        check_running(&layer.running_stats().unwrap(), &pieces.iter().collect::<Vec<_>>());
    }
}

#[test]
fn ghost_batches_of_groups_are_synchronized_within_each_group() {
    let pieces = pieces(2, 2);
    let lists = [vec![0, 1], vec![2, 3]];
    let groups = process_groups(4, Duration::from_secs(20));
    let found = on_threads(groups, |world| {
        let piece = &pieces[world.rank() / 2];
        let member = world.rank() % 2;
        let ghost = block_on(world.partition(&lists)).unwrap();
        let device = Device::host();
        let config = BatchNormConfig::torch(DIMS[1]);
        let mut layer = SyncBatchNorm::new(config, [device.clone()]).unwrap();
        set(&mut layer, piece);
        let layer = layer.in_group(&ghost).unwrap();
        let x = piece.batches[member].upload(&device);
        let dy = piece.grad_outputs[member].upload(&device);
        let forward = block_on(layer.forward_train(&x)).unwrap();
        let request = Backward::of([&x], [&dy]);
        let gradients = block_on(layer.backward(&forward.saved, request)).unwrap();
        (read(&[forward.output]), Found::read(&gradients), layer.running_stats().unwrap())
    });
    for (piece, ranks) in pieces.iter().zip(found.chunks(2)) {
        let y: Vec<Vec<f32>> = ranks.iter().flat_map(|(y, ..)| y.clone()).collect();
        let all =
            |of: fn(&Found) -> Vec<Vec<f32>>| ranks.iter().flat_map(move |(_, found, _)| of(found));
        let gradients = Found {
            grad_inputs: all(|of| of.grad_inputs.clone()).collect(),
            grad_weights: Some(all(|of| of.grad_weights.clone().unwrap()).collect()),
            grad_biases: Some(all(|of| of.grad_biases.clone().unwrap()).collect()),
        };
        check(piece, &y, &gradients, TOLERANCE_ULP);
        ranks.iter().for_each(|(.., running)| check_running(running, &[piece]));
    }
}

/// A weight and a bias in tensors of the application.
fn shared(device: &Device, piece: &Problem) -> [Tensor; 2] {
    let upload = |values: &Vec<f32>| device.upload(&[values.len()], values).unwrap();
    [upload(&piece.parameters.weight), upload(&piece.parameters.bias)]
}

/// What an optimizer makes of the parameters.
fn stepped(pieces: &mut [Problem], [weight, bias]: &mut [Tensor; 2]) {
    for piece in pieces.iter_mut() {
        piece.parameters.weight.iter_mut().for_each(|value| *value = 0.5 * *value + 0.25);
        piece.parameters.bias.iter_mut().for_each(|value| *value -= 1.0);
    }
    weight.write(&pieces[0].parameters.weight).unwrap();
    bias.write(&pieces[0].parameters.bias).unwrap();
}

#[test]
fn layers_of_a_split_batch_share_weight_and_bias_and_keep_their_own_statistics() {
    let device = &virtual_gpus()[0];
    let mut pieces = pieces(2, 1);
    let mut parameters = shared(device, &pieces[0]);
    let [clean, adversarial] = [0, 1].map(|_| {
        let mut layer =
            SyncBatchNorm::new(BatchNormConfig::torch(DIMS[1]), [device.clone()]).unwrap();
        let [weight, bias] = parameters.each_ref().map(|of| of.handle().unwrap());
        layer.set_parameter_tensors([weight], [bias]).unwrap();
        layer
    });
    for step in 0..2 {
        let upload = |of: fn(&Problem) -> &Batch| [0, 1].map(|i| of(&pieces[i]).upload(device));
        let x = upload(|of| &of.batches[0]);
        let dy = upload(|of| &of.grad_outputs[0]);
        // Both parts in one exchange.
        let calls = [(&clean, [&x[0]]), (&adversarial, [&x[1]])];
        let forward = block_on(joint::forward_train(calls)).unwrap();
        for (i, layer) in [&clean, &adversarial].into_iter().enumerate() {
            let request = Backward::of([&x[i]], [&dy[i]]);
            let gradients = block_on(layer.backward(&forward[i].saved, request)).unwrap();
            let y = read(&forward[i].output);
            check(&pieces[i], &y, &Found::read(&gradients), TOLERANCE_ULP);
            let seen = vec![&pieces[i]; step + 1];
            check_running(&layer.running_stats().unwrap(), &seen);
        }
        stepped(&mut pieces, &mut parameters);
    }
}

#[test]
fn layers_of_one_gpu_share_weight_and_bias_likewise() {
    let device = &virtual_gpus()[0];
    let mut pieces = pieces(2, 1);
    let mut parameters = shared(device, &pieces[0]);
    let layers = [0, 1].map(|_| {
        let mut layer = BatchNorm::new(BatchNormConfig::torch(DIMS[1]), device).unwrap();
        let [weight, bias] = parameters.each_ref().map(|of| of.handle().unwrap());
        layer.set_parameter_tensors(Some(weight), Some(bias)).unwrap();
        layer
    });
    for step in 0..2 {
        for (piece, layer) in pieces.iter().zip(&layers) {
            let x = piece.batches[0].upload(device);
            let dy = piece.grad_outputs[0].upload(device);
            let forward = layer.forward_train([&x]).unwrap();
            let gradients = layer.backward(&forward.saved, Backward::of([&x], [&dy])).unwrap();
            let y = read(&forward.output);
            check(piece, &y, &Found::read(&gradients), ONE_GPU_ULP);
            let running = block_on(layer.running_stats()).unwrap().unwrap();
            check_running(&running, &vec![piece; step + 1]);
        }
        stepped(&mut pieces, &mut parameters);
    }
}
