//! A batch that is never in memory at once: statistics and gradient sums of its parts merge,
//! gradients of weight and bias add up part by part, and everything is as if the parts had been one
//! batch.

use std::time::Duration;

use pollster::block_on;
use syncbn::config::AffineGradient;
use syncbn::stats::{GlobalStatistics, LocalGradientSums, LocalStatistics};
use syncbn::{Backward, Device, Error, SyncBatchNorm, Tensor};
use syncbn_reference::{Divisor, Running};

use super::common::*;
use super::compare::compare_gradients;
use super::layer::{assert_same, sums};
use super::problem::{Found, Problem, Uses};

const CHANNELS: usize = 5;

/// Micro-batches of every rank, `[micro-batch][rank]`, and the same as one batch for each rank.
struct Parts {
    x: Vec<Vec<Batch>>,
    g: Vec<Vec<Batch>>,
    whole: Problem,
}

/// What all steps together gave: outputs and gradients of a rank's micro-batches one after the
/// other.
struct Steps {
    global: GlobalStatistics,
    y: Vec<Vec<f32>>,
    gradients: Found,
    /// Gradients of weight and bias of each micro-batch, written by itself.
    alone: Vec<[Vec<Vec<f32>>; 2]>,
}

/// Samples of each rank in each micro-batch, and positions of each rank.
const SAMPLES: [[usize; 4]; 3] = [[3, 1, 0, 2], [2, 0, 4, 7], [1, 5, 2, 1]];
const POSITIONS: [[usize; 2]; 4] = [[4, 5], [1, 7], [40, 101], [1, 1]];

impl Parts {
    /// Values of a mean and deviation for each micro-batch and rank.
    fn new(ranks: usize, seed: u64, moments: impl Fn(usize, usize) -> (f64, f64)) -> Self {
        let mut random = Random::new(seed);
        let mut draw = |moments: &dyn Fn(usize, usize) -> (f64, f64)| -> Vec<Vec<Batch>> {
            let of_part = |(part, samples): (usize, &[usize; 4])| {
                let of_rank = |rank: usize| {
                    let (mean, deviation) = moments(part, rank);
                    let dims = [samples[rank], CHANNELS, POSITIONS[rank][0], POSITIONS[rank][1]];
                    Batch::new(&dims, |_| (mean + deviation * random.next()) as f32)
                };
                (0..ranks).map(of_rank).collect()
            };
            SAMPLES.iter().enumerate().map(of_part).collect()
        };
        // The upstream gradient has a mean, so that no term of the formulas is near 0 for want of
        // it.
        let x = draw(&moments);
        let g = draw(&|_, _| (0.25, 1.0));
        let whole = Problem {
            grad_outputs: joined(&g),
            ..Problem::with_batches(joined(&x), &mut Random::new(seed + 1))
        };
        Self { x, g, whole }
    }

    /// All of it, the ranks of the layer being these of all.
    fn run(&self, layer: &SyncBatchNorm, ranks: std::ops::Range<usize>) -> Result<Steps, Error> {
        let tensors = |parts: &[Vec<Batch>]| -> Vec<Vec<Tensor>> {
            parts.iter().map(|part| upload(layer, &part[ranks.clone()])).collect()
        };
        block_on(by_steps(layer, &tensors(&self.x), &tensors(&self.g)))
    }

    fn run_on(&self, kind: Kind) -> Steps {
        let layer = self.whole.layer(kind);
        self.run(&layer, 0..layer.devices().len()).unwrap()
    }

    /// The worst error of a gradient as a share of its tolerance, or what is wrong with statistics,
    /// outputs or gradients.
    fn compare(&self, found: &Steps) -> Result<f64, String> {
        let whole = &self.whole;
        let expected = definition(&whole.batches, Some(&whole.parameters), whole.config.eps);
        compare_statistics(&found.global, &expected.statistics)?;
        compare(&whole.batches, &found.y, &expected.outputs, TOLERANCE_ULP)?;
        compare_gradients(whole, Uses::Group, &found.gradients, &whole.definition(Uses::Group))
    }
}

/// A rank's micro-batches as one batch.
fn joined(parts: &[Vec<Batch>]) -> Vec<Batch> {
    let of_rank = |rank: usize| {
        let mut dims = parts[0][rank].dims.clone();
        dims[0] = parts.iter().map(|part| part[rank].dims[0]).sum();
        Batch { dims, values: parts.iter().flat_map(|part| part[rank].values.clone()).collect() }
    };
    (0..parts[0].len()).map(of_rank).collect()
}

/// Values of tensors, appended to those of each rank.
fn append(all: &mut [Vec<f32>], tensors: &[Tensor]) {
    all.iter_mut().zip(read(tensors)).for_each(|(all, values)| all.extend(values));
}

async fn by_steps(
    layer: &SyncBatchNorm,
    x: &[Vec<Tensor>],
    g: &[Vec<Tensor>],
) -> Result<Steps, Error> {
    let mut local = LocalStatistics::empty(CHANNELS);
    for x in x {
        local.merge(&layer.local_statistics(x).await?)?;
    }
    let global = layer.synchronize(local).await?;

    let ranks = layer.devices().len();
    let zeros = || -> Result<Vec<Tensor>, Error> {
        layer.devices().iter().map(|on| on.zeros(&[CHANNELS])).collect()
    };
    let mut y = vec![Vec::new(); ranks];
    let mut saved = Vec::new();
    let mut alone = Vec::new();
    let mut weight = zeros()?;
    let mut bias = zeros()?;
    let mut local = LocalGradientSums::empty(CHANNELS);
    for (x, g) in x.iter().zip(g) {
        let forward = layer.normalize(x, &global).await?;
        append(&mut y, &forward.output);
        let request =
            Backward::of(x, g).weight_gradient(&mut weight).bias_gradient(&mut bias).accumulate();
        local.merge(&layer.local_gradient_sums(&forward.saved, request).await?)?;
        let mut own_weight = zeros()?;
        let mut own_bias = zeros()?;
        let request =
            Backward::of(x, g).weight_gradient(&mut own_weight).bias_gradient(&mut own_bias);
        layer.local_gradient_sums(&forward.saved, request).await?;
        alone.push([read(&own_weight), read(&own_bias)]);
        saved.push(forward.saved);
    }
    let sums = layer.synchronize(local).await?;

    let mut grad_inputs = vec![Vec::new(); ranks];
    for ((x, g), saved) in x.iter().zip(g).zip(&saved) {
        append(
            &mut grad_inputs,
            &layer.input_gradients(saved, Backward::of(x, g), &sums).await?.input,
        );
    }
    let gradients =
        Found { grad_inputs, grad_weights: Some(read(&weight)), grad_biases: Some(read(&bias)) };
    Ok(Steps { global, y, gradients, alone })
}

/// Batches about 0, whose micro-batches differ, that are a million deviations from 0, and both.
fn problems(ranks: usize) -> [Parts; 4] {
    [
        Parts::new(ranks, 200, |_, _| (0.0, 1.0)),
        Parts::new(ranks, 201, |part, rank| (3.0 * part as f64 - rank as f64, 1.0 + part as f64)),
        Parts::new(ranks, 202, |_, _| (1e4, 1e-2)),
        Parts::new(ranks, 203, |part, rank| (1e6 * (part as f64 - rank as f64), 1.0)),
    ]
}

#[test]
fn micro_batches_by_steps_follow_the_definition_of_one_batch_of_all() {
    for kind in Kind::ALL {
        for ranks in [1, 3, 4] {
            for (number, parts) in problems(ranks).iter().enumerate() {
                let found = parts.run_on(kind);
                let what = format!("{kind:?}, {ranks} ranks, problem {number}");
                match parts.compare(&found) {
                    Ok(worst) => println!("{what}: {worst:.3} of the tolerance of gradients"),
                    Err(error) => panic!("{what}: {error}"),
                }
            }
        }
    }
}

#[test]
fn gradients_of_weight_and_bias_are_the_f32_sums_of_the_micro_batches_own() {
    let parts = &problems(4)[1];
    for kind in Kind::ALL {
        let local = parts.run_on(kind);
        let mut expected = [vec![vec![0.0; CHANNELS]; 4], vec![vec![0.0; CHANNELS]; 4]];
        for [weight, bias] in &local.alone {
            expected = [sums(&expected[0], weight), sums(&expected[1], bias)];
        }
        let Found { grad_weights, grad_biases, .. } = &local.gradients;
        assert_same(&format!("{kind:?}, weight"), grad_weights.as_ref().unwrap(), &expected[0]);
        assert_same(&format!("{kind:?}, bias"), grad_biases.as_ref().unwrap(), &expected[1]);
        // Each rank's own, whatever the layer has them be in a whole pass.
        for affine in [AffineGradient::GroupSum, AffineGradient::GroupMean] {
            let config = parts.whole.config.clone().with_affine_gradient(affine);
            let layer = Problem { config, ..parts.whole.clone() }.layer(kind);
            assert_eq!(
                parts.run(&layer, 0..4).unwrap().gradients.bits(),
                local.gradients.bits(),
                "{kind:?}, {affine:?}"
            );
        }
    }
}

#[test]
fn running_statistics_follow_all_micro_batches_as_one() {
    for parts in problems(3) {
        let Problem { batches, running, config, .. } = &parts.whole;
        let statistics = definition(batches, None, config.eps).statistics;
        let mut expected = Running { mean: widened(&running.mean), var: widened(&running.var) };
        expected.update(&statistics, 0.1, Divisor::CountMinusOne).unwrap();
        let deviation =
            statistics.var_biased.iter().fold(0f64, |largest, var| largest.max(var.sqrt()));
        for kind in Kind::ALL {
            let layer = parts.whole.layer(kind);
            parts.run(&layer, 0..3).unwrap();
            let found = layer.running_stats().unwrap();
            compare_running(&found, &expected, deviation)
                .unwrap_or_else(|error| panic!("{kind:?}: {error}"));
            assert_eq!(found.num_batches_tracked, running.num_batches_tracked + 1);
        }
    }
}

#[test]
fn ranks_of_several_callers_have_the_bits_of_one_caller_with_all() {
    let deadline = Duration::from_secs(60);
    let devices = [Kind::Mixed.devices(3), Kind::Gpu.devices(1), vec![Device::host()]];
    for affine in [AffineGradient::Local, AffineGradient::GroupSum] {
        let mut parts = problems(4).into_iter().nth(3).unwrap();
        parts.whole.config = parts.whole.config.clone().with_affine_gradient(affine);
        let layer = |devices: &[Device]| {
            let mut layer =
                SyncBatchNorm::new(parts.whole.config.clone(), devices.to_vec()).unwrap();
            parts.whole.parameters.set(&mut layer);
            layer
        };
        let expected = parts.run(&layer(&devices[..2].concat()), 0..4).unwrap();
        // The third has no batch at all, and takes part in both exchanges.
        let ranks = process_groups(3, deadline).into_iter().zip(&devices).zip([0..3, 3..4, 4..4]);
        let found = on_threads(ranks.collect(), |((group, devices), ranks)| {
            let layer = layer(devices).in_group(&group).unwrap();
            let steps = match ranks.is_empty() {
                true => block_on(by_steps(&layer, &[], &[])),
                false => parts.run(&layer, ranks),
            };
            steps.unwrap()
        });
        assert!(found.iter().all(|steps| steps.global == expected.global));
        let all = |of: fn(&Steps) -> Vec<Vec<f32>>| {
            bits(&found[..2].iter().flat_map(of).collect::<Vec<_>>())
        };
        assert_eq!(all(|steps| steps.y.clone()), bits(&expected.y));
        let gradients = [
            all(|steps| steps.gradients.grad_inputs.clone()),
            all(|steps| steps.gradients.grad_weights.clone().unwrap()),
            all(|steps| steps.gradients.grad_biases.clone().unwrap()),
        ];
        assert_eq!(gradients, expected.gradients.bits());
        // Of no micro-batch nothing was added to what was there.
        assert_eq!(found[2].gradients.grad_weights, Some(vec![vec![0.0; CHANNELS]]));
    }
}

#[test]
fn a_step_that_is_left_out_is_caught_by_the_comparison() {
    let parts = &problems(3)[1];
    let layer = parts.whole.layer(Kind::Host);
    let x = parts.x.iter();
    let g = parts.g.iter();
    let tensors: Vec<[Vec<Tensor>; 2]> =
        x.zip(g).map(|(x, g)| [upload(&layer, x), upload(&layer, g)]).collect();
    let right = parts.run(&layer, 0..3).unwrap();
    parts.compare(&right).unwrap();
    // Statistics of the last micro-batch for all of them.
    let last = block_on(layer.local_statistics(&tensors[2][0])).unwrap();
    let last = block_on(layer.synchronize(last)).unwrap();
    parts
        .compare(&Steps {
            global: last.clone(),
            y: right.y.clone(),
            gradients: right.gradients.clone(),
            alone: vec![],
        })
        .unwrap_err();
    let mut y = vec![Vec::new(); 3];
    for [x, _] in &tensors {
        append(&mut y, &block_on(layer.normalize(x, &last)).unwrap().output);
    }
    parts
        .compare(&Steps {
            global: right.global.clone(),
            y,
            gradients: right.gradients.clone(),
            alone: vec![],
        })
        .unwrap_err();
    // Gradient sums of the last micro-batch for all of them, and gradients of weight and bias of it
    // alone.
    let mut grad_inputs = vec![Vec::new(); 3];
    let mut sums = None;
    for [x, g] in tensors.iter().rev() {
        let saved = block_on(layer.normalize(x, &right.global)).unwrap().saved;
        let local = block_on(layer.local_gradient_sums(&saved, Backward::of(x, g))).unwrap();
        let sums = sums.get_or_insert_with(|| block_on(layer.synchronize(local)).unwrap());
        let input =
            block_on(layer.input_gradients(&saved, Backward::of(x, g), sums)).unwrap().input;
        let found = read(&input);
        grad_inputs
            .iter_mut()
            .zip(found)
            .for_each(|(all, values): (&mut Vec<f32>, _)| drop(all.splice(..0, values)));
    }
    let [weight, bias] = right.alone[2].clone();
    let wrong = [
        Found { grad_inputs, ..right.gradients.clone() },
        Found { grad_weights: Some(weight), ..right.gradients.clone() },
        Found { grad_biases: Some(bias), ..right.gradients.clone() },
    ];
    for gradients in wrong {
        let steps =
            Steps { gradients, global: right.global.clone(), y: right.y.clone(), alone: vec![] };
        parts.compare(&steps).unwrap_err();
    }
}
