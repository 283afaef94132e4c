//! Batch renormalization against the f64 definition, on GPUs, on the host and on both at once.

use std::time::Duration;

use pollster::block_on;
use syncbn::config::{Activation, Renorm};
use syncbn::error::{ArgumentError, ConfigError};
use syncbn::stats::RunningStats;
use syncbn::{
    Backward, BatchNorm, BatchNormConfig, Device, DoubleBackward, Error, Forward, SyncBatchNorm,
    Tensor,
};
use syncbn_reference::bounds::{TOLERANCE, mean_error};
use syncbn_reference::{self as reference, Affine, Correction, Running};

use crate::common;
use crate::common::backward::problem::Problem;
use crate::common::oracle::with_ranks;
use common::*;

/// Three ranks of different sizes, one of them empty.
const DIMS: [&[usize]; 3] = [&[7, 5, 3, 4], &[0, 5, 2, 2], &[2, 5, 9, 1]];

/// Limits that clip nothing, some channels, and all.
const LIMITS: [Renorm; 3] = [
    Renorm { r_max: 100.0, d_max: 100.0 },
    Renorm { r_max: 1.5, d_max: 0.5 },
    Renorm { r_max: 1.0, d_max: 0.0 },
];

/// A layer whose running statistics lie apart from the batch's, with these limits.
fn problem(limits: Renorm, seed: u64) -> Problem {
    let mut problem = Problem::random(&DIMS, seed);
    problem.config = problem.config.with_renorm(Some(limits));
    let channels = problem.channels();
    problem.running.mean = (0..channels).map(|c| c as f32 * 0.4 - 1.0).collect();
    problem.running.var = (0..channels).map(|c| 0.05 * 4f32.powi(c as i32)).collect();
    problem
}

/// What a step gives: y, gradients of x, of the weight and of the bias, of each rank.
type Step = [Vec<Vec<f32>>; 4];

/// What it should give, and how far from it each number may be.
struct Expected {
    values: [Vec<Vec<f64>>; 4],
    bounds: [Vec<Vec<f64>>; 4],
}

fn running(of: &RunningStats) -> Running {
    Running { mean: widened(&of.mean), var: widened(&of.var) }
}

/// The bounds are those of batch normalization with y and x̂·r + d for its terms: 16 half ulp of
/// what is rounded on the way, and what an error of the mean moves.
fn expected(problem: &Problem) -> Expected {
    let Renorm { r_max, d_max } = problem.config.renorm.unwrap();
    let eps = problem.config.eps;
    let [weight, bias] =
        [&problem.parameters.weight, &problem.parameters.bias].map(|of| widened(of));
    let affine = Affine { weight: Some(&weight), bias: Some(&bias) };
    let (batch, of, y, gradients) = with_ranks(&problem.batches, |x| {
        let batch = reference::batch_statistics(x).unwrap();
        let of = Correction::new(&batch, &running(&problem.running), [r_max, d_max], eps).unwrap();
        let y = reference::renormalized_forward(x, &of, affine, eps).unwrap();
        let gradients = with_ranks(&problem.grad_outputs, |g| {
            reference::renormalized_backward(x, g, &of, Some(&weight), eps).unwrap()
        });
        (batch, of, y, gradients)
    });
    let channels = problem.channels();
    // Of a channel: the largest |x̂·r + d|, the largest |g|, and averages.
    let mut largest = vec![0f64; channels];
    let mut largest_g = vec![0f64; channels];
    let mut sums = vec![[0f64; 2]; channels];
    let inv_std: Vec<f64> = batch.var_biased.iter().map(|var| 1.0 / (var + eps).sqrt()).collect();
    for (x, g) in problem.batches.iter().zip(&problem.grad_outputs) {
        for (i, (&value, &g)) in x.values.iter().zip(&g.values).enumerate() {
            let c = x.channel(i);
            let xhat = (f64::from(value) - batch.mean[c]) * inv_std[c];
            let h = (xhat * of.r[c]).abs() + of.d[c].abs();
            largest[c] = largest[c].max(h);
            largest_g[c] = largest_g[c].max(f64::from(g).abs());
            sums[c][0] += f64::from(g).abs();
            sums[c][1] += f64::from(g).abs() * h;
        }
    }
    let count = batch.count as f64;
    let e = |c: usize| of.r[c] * mean_error(batch.mean[c], batch.var_biased[c], inv_std[c]);
    let of_y = |c: usize| TOLERANCE * (weight[c].abs() * (largest[c] + e(c)) + bias[c].abs());
    let of_x = |c: usize| {
        let [g, gh] = sums[c].map(|sum| sum / count);
        let h = (largest[c] + e(c)) / of.r[c];
        let size = largest_g[c] + g + h * (gh / of.r[c] + h * g);
        TOLERANCE * (weight[c] * inv_std[c] * of.r[c]).abs() * size
    };
    let by_channel = |bound: &dyn Fn(usize) -> f64| -> Vec<Vec<f64>> {
        let of_rank = |x: &Batch| (0..x.values.len()).map(|i| bound(x.channel(i))).collect();
        problem.batches.iter().map(of_rank).collect()
    };
    let vectors = |bound: &dyn Fn(usize) -> f64| -> Vec<Vec<f64>> {
        vec![(0..channels).map(bound).collect(); problem.batches.len()]
    };
    let of_weight = |c: usize| TOLERANCE * (sums[c][1] + e(c) * sums[c][0]);
    let of_bias = |c: usize| TOLERANCE * sums[c][0];
    Expected {
        bounds: [by_channel(&of_y), by_channel(&of_x), vectors(&of_weight), vectors(&of_bias)],
        values: [y, gradients.grad_inputs, gradients.grad_weights, gradients.grad_biases],
    }
}

fn compare_step(problem: &Problem, found: &Step) -> Result<f64, String> {
    let Expected { values, bounds } = expected(problem);
    let names = ["y", "grad_input", "grad_weight", "grad_bias"];
    let mut worst = 0f64;
    for part in 0..4 {
        for rank in 0..problem.batches.len() {
            let name = format!("{}[{rank}]", names[part]);
            let found = &found[part][rank];
            let expected = &values[part][rank];
            worst = worst.max(worst_share(&name, found, expected, |i| bounds[part][rank][i])?);
        }
    }
    Ok(worst)
}

fn step(layer: &SyncBatchNorm, x: &[Tensor], g: &[Tensor]) -> Step {
    let forward = block_on(layer.forward_train(x)).unwrap();
    let gradients = block_on(layer.backward(&forward.saved, Backward::of(x, g))).unwrap();
    let [weight, bias] = [gradients.weight, gradients.bias].map(Option::unwrap);
    [read(&forward.output), read(&gradients.input), read(&weight), read(&bias)]
}

#[test]
fn forward_and_backward_follow_the_definition_and_the_limits_may_change() {
    for kind in Kind::ALL {
        for seed in 1..4 {
            let mut problem = problem(LIMITS[0], seed);
            let mut layer = problem.layer(kind);
            let x = problem.inputs(&layer);
            let g = problem.upstream(&layer);
            for limits in LIMITS {
                layer.set_renorm(Some(limits)).unwrap();
                problem.config = problem.config.with_renorm(Some(limits));
                problem.running = layer.running_stats().unwrap();
                let found = step(&layer, &x, &g);
                let share = compare_step(&problem, &found);
                let share = share.unwrap_or_else(|error| panic!("{kind:?}, {limits:?}: {error}"));
                println!("{kind:?}, {limits:?}: {share:.2} of the bound");
                // The running statistics move as without it.
                let of = definition(&problem.batches, None, problem.config.eps).statistics;
                let mut moved = running(&problem.running);
                moved.update(&of, 0.1, reference::Divisor::CountMinusOne).unwrap();
                compare_running(&layer.running_stats().unwrap(), &moved, 1.0).unwrap();
            }
        }
    }
}

#[test]
fn a_comparison_finds_a_missing_r_and_a_missing_d() {
    let problem = problem(LIMITS[1], 5);
    for wrong in [[1.0, LIMITS[1].d_max], [LIMITS[1].r_max, 0.0]] {
        let limits = Renorm { r_max: wrong[0], d_max: wrong[1] };
        let mut other = problem.clone();
        other.config = other.config.with_renorm(Some(limits));
        let layer = other.layer(Kind::Host);
        let found = step(&layer, &other.inputs(&layer), &other.upstream(&layer));
        assert!(compare_step(&problem, &found).is_err(), "{limits:?}");
    }
}

#[test]
fn limits_of_1_and_0_give_the_bits_of_batch_normalization() {
    for kind in Kind::ALL {
        let renormalized = problem(LIMITS[2], 7);
        let plain = Problem {
            config: renormalized.config.clone().with_renorm(None),
            ..renormalized.clone()
        };
        let [found, expected] = [&renormalized, &plain].map(|problem| {
            let layer = problem.layer(kind);
            step(&layer, &problem.inputs(&layer), &problem.upstream(&layer)).map(|of| bits(&of))
        });
        assert_eq!(found, expected, "{kind:?}");
    }
}

#[test]
fn an_activation_comes_after_it_and_reproducible_layers_have_it_too() {
    let kinds = Kind::ALL.into_iter().flat_map(|kind| [(kind, false), (kind, true)]);
    for (kind, reproducible) in kinds {
        let mut plain = problem(LIMITS[1], 10);
        plain.config = plain.config.with_reproducible(reproducible);
        let layer = plain.layer(kind);
        let x = plain.inputs(&layer);
        let forward = block_on(layer.forward_train(&x)).unwrap();
        let y = read(&forward.output);
        // What passes ReLU: the sums and gradients are those of a gradient with zeros.
        let mut gated = plain.clone();
        for (g, y) in gated.grad_outputs.iter_mut().zip(&y) {
            g.values.iter_mut().zip(y).for_each(|(g, y)| *g = if *y > 0.0 { *g } else { 0.0 });
        }
        let g_of_relu = gated.upstream(&layer);
        let expected =
            block_on(layer.backward(&forward.saved, Backward::of(&x, &g_of_relu))).unwrap();
        let found = {
            let mut with_relu = plain.clone();
            with_relu.config = with_relu.config.with_activation(Activation::Relu);
            let layer = with_relu.layer(kind);
            let x = with_relu.inputs(&layer);
            let g = with_relu.upstream(&layer);
            assert!(compare_step(&plain, &step(&plain.layer(kind), &x, &g)).is_ok());
            step(&layer, &x, &g)
        };
        let relu = y.iter().map(|y| y.iter().map(|y| y.max(0.0)).collect::<Vec<_>>());
        assert_eq!(bits(&found[0]), bits(&relu.collect::<Vec<_>>()), "{kind:?}, {reproducible}");
        assert_eq!(bits(&found[1]), bits(&read(&expected.input)), "{kind:?}, {reproducible}");
        let weight = read(&expected.weight.unwrap());
        assert_eq!(bits(&found[2]), bits(&weight), "{kind:?}, {reproducible}");
    }
}

#[test]
fn evaluation_is_that_of_the_running_statistics() {
    let renormalized = problem(LIMITS[1], 8);
    let plain =
        Problem { config: renormalized.config.clone().with_renorm(None), ..renormalized.clone() };
    let [found, expected] = [&renormalized, &plain].map(|problem| {
        let layer = problem.layer(Kind::Host);
        let x = problem.inputs(&layer);
        bits(&read(&block_on(layer.forward_eval(&x)).unwrap().output))
    });
    assert_eq!(found, expected);
}

#[test]
fn steps_one_at_a_time_and_ranks_of_a_group_give_the_bits_of_one_call() {
    let problem = problem(LIMITS[1], 9);
    let layer = problem.layer(Kind::Host);
    let x = problem.inputs(&layer);
    let g = problem.upstream(&layer);
    let expected = step(&layer, &x, &g);

    let layer = problem.layer(Kind::Host);
    let x = problem.inputs(&layer);
    let g = problem.upstream(&layer);
    let local = block_on(layer.local_statistics(&x)).unwrap();
    let global = block_on(layer.synchronize(local)).unwrap();
    let forward = block_on(layer.normalize(&x, &global)).unwrap();
    // Once more from what the call has saved: recompute, after the running statistics have moved.
    let again = block_on(layer.normalize(&x, forward.saved.statistics().unwrap())).unwrap();
    assert_eq!(read(&again.output), expected[0]);
    let sums = block_on(layer.local_gradient_sums(&forward.saved, Backward::of(&x, &g))).unwrap();
    let sums = block_on(layer.synchronize(sums)).unwrap();
    let request = Backward::of(&x, &g);
    let gradients = block_on(layer.input_gradients(&forward.saved, request, &sums)).unwrap();
    assert_eq!(
        [read(&forward.output), read(&gradients.input)],
        [0, 1].map(|i| expected[i].clone())
    );

    let groups = process_groups(3, Duration::from_secs(20));
    let found = on_threads(groups, |group| {
        let rank = group.rank();
        let device = Device::host();
        let mut layer = SyncBatchNorm::new(problem.config.clone(), [device.clone()]).unwrap();
        problem.parameters.set(&mut layer);
        layer.set_running_stats(problem.running.clone()).unwrap();
        let layer = layer.in_group(&group).unwrap();
        let x = [problem.batches[rank].upload(&device)];
        let g = [problem.grad_outputs[rank].upload(&device)];
        step(&layer, &x, &g)
    });
    for (rank, found) in found.into_iter().enumerate() {
        assert_eq!(found, [0, 1, 2, 3].map(|part| vec![expected[part][rank].clone()]));
    }
}

#[test]
fn what_renormalization_cannot_do_is_refused_with_the_reason() {
    let config = BatchNormConfig::torch(5);
    let with = |r_max, d_max| config.clone().with_renorm(Some(Renorm { r_max, d_max }));
    for (r_max, d_max, wrong) in [
        (0.5, 1.0, "r_max"),
        (f64::NAN, 1.0, "r_max"),
        (2.0, -1.0, "d_max"),
        (2.0, f64::INFINITY, "d_max"),
        (1e7, 1.0, "r_max"),
        (2.0, 1e7, "d_max"),
    ] {
        let error = with(r_max, d_max).validate().unwrap_err();
        assert!(matches!(error, ConfigError::OutOfRange { name, .. } if name == wrong), "{error}");
    }
    for config in [
        with(2.0, 1.0).with_eps(0.0),
        with(2.0, 1.0).with_track_running_stats(false),
        with(2.0, 1.0).with_use_batch_statistics(Some(false)),
    ] {
        let error = config.validate().unwrap_err();
        assert!(matches!(error, ConfigError::Conflict { setting: "renorm", .. }), "{error}");
    }
    let gpu = &virtual_gpus()[0];
    let refused = |error: Error| {
        assert!(
            matches!(&error, Error::Config(ConfigError::Conflict { setting: "renorm", .. })),
            "{error}"
        );
    };
    refused(BatchNorm::new(with(2.0, 1.0), gpu).unwrap_err());
    let mut norm = BatchNorm::new(config.clone(), gpu).unwrap();
    refused(norm.set_config(with(2.0, 1.0)).unwrap_err());

    let device = Device::host();
    let layer = SyncBatchNorm::new(with(2.0, 1.0), [device.clone()]).unwrap();
    let x = Batch::random(&[4, 5], &mut Random::new(1)).upload(&device);
    let not_wanted = |error: Error, wrong: &str| {
        assert!(
            matches!(
                &error,
                Error::Argument(ArgumentError::NotWanted { argument, .. }) if *argument == wrong
            ),
            "{error}"
        );
    };
    let saved = block_on(layer.forward_train(&x)).unwrap().saved;
    let request = DoubleBackward::of(&x, &x);
    not_wanted(block_on(layer.double_backward(&saved, request)).unwrap_err(), "saved");
    let request = Forward::of(&x).untracked();
    not_wanted(block_on(layer.forward_train(request)).unwrap_err(), "untracked");
    // There is nothing to recompute in evaluation, and `normalize` has what it needs.
    block_on(layer.forward_eval(Forward::of(&x).untracked())).unwrap();
    let statistics = saved.statistics().unwrap();
    block_on(layer.normalize(Forward::of(&x).untracked(), statistics)).unwrap();
    let plain = SyncBatchNorm::new(config.clone(), [device.clone()]).unwrap();
    let of_plain = block_on(plain.forward_train(&x)).unwrap().saved;
    let global = of_plain.statistics().unwrap();
    not_wanted(block_on(layer.normalize(&x, global)).unwrap_err(), "global");
}
