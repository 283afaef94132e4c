//! Hand-computed numbers, finite differences and exact sums against the oracle.

use approx::{abs_diff_eq, assert_abs_diff_eq};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::*;

const EXACT: f64 = 1e-15;

/// Mean 4 and variance 4 over the group; the unweighted mean of the rank means would be 14/3.
const RANKS: [(&[usize], &[f64]); 2] = [(&[3, 1], &[2.0, 2.0, 6.0]), (&[1, 1], &[6.0])];

fn batches<'a>(ranks: &[(&'a [usize], &'a [f64])]) -> Vec<RankBatch<'a>> {
    ranks.iter().map(|&(dims, values)| RankBatch { dims, values }).collect()
}

/// Values in [-0.5, 0.5), the same in every run.
pub(super) fn noise(seed: u64, len: usize) -> Vec<f64> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    (0..len).map(|_| (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64 - 0.5).collect()
}

#[test]
fn statistics_weigh_every_value_alike_on_uneven_ranks() -> Result<(), ReferenceError> {
    let statistics = batch_statistics(&batches(&RANKS))?;
    assert_eq!(statistics, BatchStatistics { count: 4, mean: vec![4.0], var_biased: vec![4.0] });
    Ok(())
}

#[test]
fn forward_gives_the_numbers_computed_by_hand() -> Result<(), ReferenceError> {
    let affine = Affine { weight: Some(&[3.0]), bias: Some(&[0.5]) };
    let forward = forward_train(&batches(&RANKS), affine, 0.0)?;
    assert_eq!(forward.outputs, [vec![-2.5, -2.5, 3.5], vec![3.5]]);
    Ok(())
}

#[test]
fn channels_are_axis_one() -> Result<(), ReferenceError> {
    let input = batches(&[(&[2, 2, 2], &[1.0, 3.0, 10.0, 10.0, 1.0, 3.0, 30.0, 30.0])]);
    let statistics = batch_statistics(&input)?;
    assert_eq!(
        statistics,
        BatchStatistics { count: 4, mean: vec![2.0, 20.0], var_biased: vec![1.0, 100.0] }
    );
    let outputs =
        forward_with_statistics(&input, &[2.0, 20.0], &[1.0, 100.0], Affine::default(), 0.0)?;
    assert_eq!(outputs, [vec![-1.0, 1.0, -1.0, -1.0, -1.0, 1.0, 1.0, 1.0]]);
    Ok(())
}

#[test]
fn an_empty_rank_changes_nothing_for_the_others() -> Result<(), ReferenceError> {
    let whole = forward_train(&batches(&RANKS), Affine::default(), 1e-5)?;
    let with_empty = batches(&[RANKS[0], (&[0, 1], &[]), RANKS[1]]);
    let forward = forward_train(&with_empty, Affine::default(), 1e-5)?;
    assert_eq!(forward.statistics, whole.statistics);
    assert_eq!(forward.outputs, [whole.outputs[0].clone(), vec![], whole.outputs[1].clone()]);
    Ok(())
}

#[test]
fn a_group_of_empty_ranks_updates_nothing() -> Result<(), ReferenceError> {
    let empty = batches(&[(&[0, 2, 3], &[]), (&[4, 2, 0], &[])]);
    let forward = forward_train(&empty, Affine::default(), 1e-5)?;
    assert_eq!(forward.statistics.count, 0);
    let mut running = Running { mean: vec![0.5, 0.5], var: vec![2.0, 2.0] };
    running.update(&forward.statistics, 0.1, Divisor::CountMinusOne)?;
    assert_eq!(running, Running { mean: vec![0.5, 0.5], var: vec![2.0, 2.0] });
    Ok(())
}

#[test]
fn running_statistics_move_by_the_weight_of_the_new_batch() -> Result<(), ReferenceError> {
    let statistics = batch_statistics(&batches(&RANKS))?;
    let start = Running { mean: vec![0.0], var: vec![1.0] };
    let mut unbiased = start.clone();
    unbiased.update(&statistics, 0.25, Divisor::CountMinusOne)?;
    assert_abs_diff_eq!(unbiased.mean[0], 1.0, epsilon = EXACT);
    assert_abs_diff_eq!(unbiased.var[0], 0.75 + 0.25 * 16.0 / 3.0, epsilon = EXACT);
    let mut biased = start;
    biased.update(&statistics, 0.25, Divisor::Count)?;
    assert_abs_diff_eq!(biased.var[0], 1.75, epsilon = EXACT);
    Ok(())
}

#[test]
fn backward_gives_the_numbers_computed_by_hand() -> Result<(), ReferenceError> {
    let upstream = batches(&[(&[3, 1], &[1.0, 0.0, 0.0]), (&[1, 1], &[0.0])]);
    let gradients = backward_train(&batches(&RANKS), &upstream, Some(&[3.0]), 0.0)?;
    assert_eq!(gradients.grad_inputs, [vec![0.75, -0.75, 0.0], vec![0.0]]);
    assert_eq!(gradients.grad_weights, [vec![-1.0], vec![0.0]]);
    assert_eq!(gradients.grad_biases, [vec![1.0], vec![0.0]]);

    let given =
        backward_with_statistics(&batches(&RANKS), &upstream, &[1.0], &[0.25], Some(&[3.0]), 0.0)?;
    assert_eq!(given.grad_inputs, [vec![6.0, 0.0, 0.0], vec![0.0]]);
    assert_eq!(given.grad_weights, [vec![2.0], vec![0.0]]);
    Ok(())
}

#[test]
fn grad_input_is_the_slope_of_a_random_loss() -> Result<(), ReferenceError> {
    const STEP: f64 = 1e-5;
    let dims: [&[usize]; 2] = [&[2, 2, 3], &[1, 2, 2]];
    let x = [noise(1, 12), noise(2, 4)];
    let g = [noise(3, 12), noise(4, 4)];
    let weight = [0.7, -1.3];
    let pair = |values: &[Vec<f64>; 2]| -> Result<Vec<Vec<f64>>, ReferenceError> {
        let input = batches(&[(dims[0], &values[0]), (dims[1], &values[1])]);
        Ok(forward_train(&input, Affine { weight: Some(&weight), bias: None }, 1e-3)?.outputs)
    };
    let loss = |values: &[Vec<f64>; 2]| -> Result<f64, ReferenceError> {
        Ok(pair(values)?.iter().flatten().zip(g.iter().flatten()).map(|(y, g)| y * g).sum())
    };
    let inputs = batches(&[(dims[0], &x[0]), (dims[1], &x[1])]);
    let upstream = batches(&[(dims[0], &g[0]), (dims[1], &g[1])]);
    let gradients = backward_train(&inputs, &upstream, Some(&weight), 1e-3)?;
    for rank in 0..2 {
        for i in 0..x[rank].len() {
            let mut above = x.clone();
            let mut below = x.clone();
            above[rank][i] += STEP;
            below[rank][i] -= STEP;
            let slope = (loss(&above)? - loss(&below)?) / (2.0 * STEP);
            let found = gradients.grad_inputs[rank][i];
            assert!(
                abs_diff_eq!(found, slope, epsilon = 1e-8),
                "rank {rank}, value {i}: {found} and {slope}"
            );
        }
    }
    Ok(())
}

#[test]
fn a_mean_of_1e6_beside_a_deviation_of_1_is_exact() -> Result<(), ReferenceError> {
    // Multiples of 2^-10, so that integers give the true mean and variance.
    const LEN: i128 = 100_003;
    let offsets: Vec<i128> = (0..LEN).map(|i| (i * 7919) % 2048).collect();
    let values: Vec<f64> = offsets.iter().map(|&k| 1e6 + k as f64 / 1024.0).collect();
    let (sum, squares) = offsets.iter().fold((0, 0), |(s, q), k| (s + k, q + k * k));
    let mean = 1e6 + sum as f64 / LEN as f64 / 1024.0;
    let var = (squares * LEN - sum * sum) as f64 / (LEN * LEN) as f64 / (1024.0 * 1024.0);

    let dims = [values.len(), 1];
    let statistics = batch_statistics(&[RankBatch { dims: &dims, values: &values }])?;
    assert_abs_diff_eq!(statistics.mean[0] / mean, 1.0, epsilon = EXACT);
    assert_abs_diff_eq!(statistics.var_biased[0] / var, 1.0, epsilon = EXACT);
    Ok(())
}

#[test]
fn a_constant_channel_gives_the_bias_and_no_gradient() -> Result<(), ReferenceError> {
    let input = batches(&[(&[2, 1, 2], &[10_000.1; 4]), (&[1, 1, 2], &[10_000.1; 2])]);
    let upstream = batches(&[(&[2, 1, 2], &[1.0, 2.0, -3.0, 0.5]), (&[1, 1, 2], &[0.25, -2.0])]);
    for eps in [0.0, 1e-12] {
        let forward =
            forward_train(&input, Affine { weight: Some(&[3.0]), bias: Some(&[0.5]) }, eps)?;
        assert!(forward.outputs.iter().flatten().all(|&y| y == 0.5));
    }
    let gradients = backward_train(&input, &upstream, Some(&[3.0]), 0.0)?;
    assert!(gradients.grad_inputs.iter().flatten().all(|&dx| dx == 0.0));
    Ok(())
}

#[test]
fn a_poisoned_channel_leaves_the_others_alone() -> Result<(), ReferenceError> {
    for poison in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let values = [1.0, poison, 3.0, 0.0];
        let input = batches(&[(&[2, 2], &values)]);
        let forward = forward_train(&input, Affine::default(), 0.0)?;
        assert_eq!((forward.outputs[0][0], forward.outputs[0][2]), (-1.0, 1.0));
        assert!(forward.outputs[0][1].is_nan() && forward.outputs[0][3].is_nan());
    }
    Ok(())
}

#[test]
fn what_does_not_fit_is_named() {
    let empty: [RankBatch<'_>; 0] = [];
    assert_eq!(batch_statistics(&empty), Err(ReferenceError::NoRanks));
    let flat = batches(&[(&[2], &[1.0, 2.0])]);
    assert_eq!(batch_statistics(&flat), Err(ReferenceError::Dimensions { rank: 0, found: 1 }));
    let mixed = batches(&[(&[1, 2], &[1.0, 2.0]), (&[1, 1], &[1.0])]);
    assert_eq!(
        batch_statistics(&mixed),
        Err(ReferenceError::Channels { rank: 1, found: 1, expected: 2 })
    );
    let short = batches(&[(&[2, 2], &[1.0])]);
    assert!(matches!(
        batch_statistics(&short),
        Err(ReferenceError::Length { found: 1, expected: 4, .. })
    ));
    let huge = batches(&[(&[usize::MAX, 2, 3], &[1.0])]);
    assert!(matches!(batch_statistics(&huge), Err(ReferenceError::Length { found: 1, .. })));
    let single = batches(&[(&[1, 2], &[1.0, 2.0]), (&[0, 2], &[])]);
    assert_eq!(forward_train(&single, Affine::default(), 1e-5), Err(ReferenceError::SingleValue));
    let turned = batches(&[(&[2, 1, 2], &[0.0; 4])]);
    let upstream = batches(&[(&[1, 1, 4], &[0.0; 4])]);
    assert!(matches!(
        backward_train(&turned, &upstream, None, 1e-5),
        Err(ReferenceError::Shapes { rank: 0, .. })
    ));
}
