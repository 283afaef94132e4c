//! Forward of a layer over several devices against the f64 definition: on GPUs, on the host, and on
//! both at once.
//!
//! `group_forward/rows.rs` holds the rows of "what happens when", `group_forward/modes.rs` the
//! table of modes.

mod modes;
mod rows;

use crate::common;

use common::*;
use pollster::block_on;
use syncbn::stats::{GlobalStatistics, Moments, RunningStats};
use syncbn::{BatchNormConfig, SyncBatchNorm};
use syncbn_reference::{Divisor, Running};

const EPS: f64 = 1e-5;

fn layer(kind: Kind, ranks: usize, channels: usize) -> SyncBatchNorm {
    SyncBatchNorm::new(BatchNormConfig::torch(channels), kind.devices(ranks)).unwrap()
}

/// One training step on these batches, compared with the definition; the worst error in ulp.
fn check(kind: Kind, batches: &[Batch], random: &mut Random) -> Result<f64, String> {
    let channels = batches[0].dims[1];
    let parameters = Parameters::random(channels, random);
    let mut layer = layer(kind, batches.len(), channels);
    parameters.set(&mut layer);
    let inputs = upload(&layer, batches);
    let forward = block_on(layer.forward_train(&inputs)).map_err(|error| error.to_string())?;
    let expected = definition(batches, Some(&parameters), EPS);
    compare_statistics(forward.saved.statistics().unwrap(), &expected.statistics)?;
    for (output, batch) in forward.output.iter().zip(batches) {
        assert_eq!(output.dims(), batch.dims);
    }
    compare(batches, &read(&forward.output), &expected.outputs, TOLERANCE_ULP)
}

/// Checks one list of batches on every kind of group and prints the worst error.
fn check_all(shapes: &[&[usize]], seed: u64) {
    for kind in Kind::ALL {
        let mut random = Random::new(seed);
        let batches: Vec<Batch> =
            shapes.iter().map(|dims| Batch::random(dims, &mut random)).collect();
        match check(kind, &batches, &mut random) {
            Ok(worst) => println!("{kind:?} {shapes:?} seed {seed}: {worst:.2} ulp"),
            Err(error) => panic!("{kind:?} {shapes:?} seed {seed}: {error}"),
        }
    }
}

#[test]
fn one_position_per_sample_follows_the_definition() {
    shapes::one_position_per_sample(&check_all);
}

#[test]
fn sizes_that_no_workgroup_divides_follow_the_definition() {
    shapes::sizes_that_no_workgroup_divides(&check_all);
}

#[test]
fn tiles_side_by_side_follow_the_definition() {
    shapes::tiles_side_by_side(&check_all);
}

#[test]
fn several_tiles_per_channel_follow_the_definition() {
    shapes::several_tiles_per_channel(&check_all);
}

#[test]
fn more_channels_or_samples_than_65535_follow_the_definition() {
    shapes::more_than_one_dispatch_dimension(&check_all);
}

#[test]
fn generated_shapes_of_two_to_five_dimensions_follow_the_definition() {
    let mut worst = 0f64;
    for seed in 1000..1200 {
        let mut random = Random::new(seed);
        let channels = 1 + random.below(40);
        let spatial = random.below(4);
        let ranks = 1 + random.below(4);
        let mut batches: Vec<Batch> = Vec::new();
        for _ in 0..ranks {
            let mut dims = vec![random.below(7), channels];
            // Each rank has spatial sizes of its own.
            dims.extend((0..spatial).map(|_| 1 + random.below([200, 21, 9][spatial - 1])));
            batches.push(Batch::random(&dims, &mut random));
        }
        // One more sample, so that no seed draws a group with fewer than two values.
        let mut dims = batches[0].dims.clone();
        dims[0] = 2;
        batches[0] = Batch::random(&dims, &mut random);
        for kind in Kind::ALL {
            let dims: Vec<_> = batches.iter().map(|batch| &batch.dims).collect();
            let error = check(kind, &batches, &mut random);
            worst = worst.max(
                error.unwrap_or_else(|error| panic!("seed {seed}, {kind:?} {dims:?}: {error}")),
            );
        }
    }
    println!("seeds 1000 to 1199: worst error {worst:.2} ulp");
}

#[test]
fn any_split_of_a_batch_over_ranks_equals_the_whole() {
    let mut worst = 0f64;
    for seed in 2000..2200 {
        let mut random = Random::new(seed);
        let samples = 2 + random.below(40);
        let channels = 1 + random.below(20);
        let inner = 1 + random.below(60);
        let whole = Batch::random(&[samples, channels, inner], &mut random);
        let parameters = Parameters::random(channels, &mut random);
        let expected = definition(std::slice::from_ref(&whole), Some(&parameters), EPS);
        let ranks = 1 + random.below(8);
        let cuts = random.cuts(samples, ranks);
        let parts: Vec<Batch> = cuts.windows(2).map(|cut| whole.samples(cut[0]..cut[1])).collect();

        let kind = Kind::ALL[random.below(3)];
        let mut layer = layer(kind, parts.len(), channels);
        parameters.set(&mut layer);
        let forward = block_on(layer.forward_train(&upload(&layer, &parts))).unwrap();
        let joined = [read(&forward.output).concat()];
        let error = compare(&[whole], &joined, &expected.outputs, TOLERANCE_ULP)
            .unwrap_or_else(|error| panic!("seed {seed}, {kind:?}, cuts {cuts:?}: {error}"));
        compare_statistics(forward.saved.statistics().unwrap(), &expected.statistics).unwrap();
        let mut running = Running { mean: vec![0.0; channels], var: vec![1.0; channels] };
        running.update(&expected.statistics, 0.1, Divisor::CountMinusOne).unwrap();
        compare_running(&layer.running_stats().unwrap(), &running, 1.0).unwrap();
        worst = worst.max(error);
    }
    println!("seeds 2000 to 2199: worst error {worst:.2} ulp");
}

#[test]
fn the_comparison_fails_at_twice_its_tolerance() {
    let batch = Batch::random(&[4, 3, 5], &mut Random::new(20));
    let expected = definition(std::slice::from_ref(&batch), None, EPS).outputs;
    let exact: Vec<f32> = expected[0].iter().map(|&y| y as f32).collect();
    let compared =
        |found: Vec<f32>| compare(std::slice::from_ref(&batch), &[found], &expected, TOLERANCE_ULP);
    assert!(compared(exact.clone()).unwrap() <= 0.5);
    for index in [0, 7, 59] {
        let largest = (0..60)
            .filter(|&i| batch.channel(i) == batch.channel(index))
            .map(|i| expected[0][i].abs());
        let mut found = exact.clone();
        found[index] += (2.0 * TOLERANCE_ULP * ulp(largest.fold(0.0, f64::max))) as f32;
        let error = compared(found).unwrap_err();
        assert!(error.contains(&format!("value {index} ")), "{error}");
        let mut found = exact.clone();
        found[index] = f32::NAN;
        compared(found).unwrap_err();
    }
    compared(exact[..59].to_vec()).unwrap_err();
}

#[test]
fn the_comparisons_of_statistics_fail_at_twice_their_tolerance() {
    let batch = Batch::random(&[4, 3, 5], &mut Random::new(22));
    let right = definition(&[batch], None, EPS).statistics;
    let found = |mean: f64, m2: f64| {
        let channel = |c: usize| Moments {
            count: right.count,
            mean: right.mean[c] + mean * right.var_biased[c].sqrt(),
            m2: right.var_biased[c] * right.count as f64 * (1.0 + m2),
        };
        compare_statistics(&GlobalStatistics::new((0..3).map(channel)), &right)
    };
    let twice = 2.0 * STATISTICS_TOLERANCE;
    found(0.0, 0.0).unwrap();
    for (mean, m2) in
        [(twice, 0.0), (-twice, 0.0), (0.0, twice), (0.0, -twice), (f64::NAN, 0.0), (0.0, f64::NAN)]
    {
        found(mean, m2).unwrap_err();
    }

    let expected = Running { mean: right.mean.clone(), var: right.var_biased.clone() };
    let found = |mean: f64, var: f64| {
        let narrowed = |values: &[f64], by: f64| {
            values.iter().map(|x| (x + by * (x.abs() + 1.0)) as f32).collect()
        };
        let running = RunningStats {
            mean: narrowed(&right.mean, mean),
            var: narrowed(&right.var_biased, var),
            num_batches_tracked: 1,
        };
        compare_running(&running, &expected, 1.0)
    };
    found(0.0, 0.0).unwrap();
    for (mean, var) in [(twice, 0.0), (0.0, twice), (f64::NAN, 0.0), (0.0, f64::NAN)] {
        found(mean, var).unwrap_err();
    }
}

#[test]
fn wrong_formulas_are_caught() {
    let mut random = Random::new(21);
    let batches = [
        Batch::new(&[5, 2, 7], |_| random.next() as f32),
        Batch::new(&[3, 2, 7], |_| 1.0 + random.next() as f32),
    ];
    let right = definition(&batches, None, EPS);
    let statistics = &right.statistics;
    let local: Vec<_> =
        batches.iter().map(|batch| definition(std::slice::from_ref(batch), None, EPS)).collect();
    let caught = |outputs: &[Vec<f64>], what: &str| {
        let found: Vec<Vec<f32>> =
            outputs.iter().map(|y| y.iter().map(|&y| y as f32).collect()).collect();
        assert!(compare(&batches, &found, &right.outputs, TOLERANCE_ULP).is_err(), "{what} passes");
    };
    let with = |mean: &[f64], var: &[f64]| definition_with(&batches, None, mean, var, EPS);
    let n = statistics.count as f64;
    let unbiased: Vec<f64> = statistics.var_biased.iter().map(|var| var * n / (n - 1.0)).collect();
    caught(&with(&statistics.mean, &unbiased), "the unbiased variance");
    let average = |of: fn(&syncbn_reference::BatchStatistics) -> &Vec<f64>| -> Vec<f64> {
        (0..2)
            .map(|c| local.iter().map(|rank| of(&rank.statistics)[c]).sum::<f64>() / 2.0)
            .collect()
    };
    caught(
        &with(&average(|s| &s.mean), &statistics.var_biased),
        "the mean of means without counts",
    );
    caught(&with(&statistics.mean, &average(|s| &s.var_biased)), "the mean of variances");
    caught(
        &[local[0].outputs[0].clone(), local[1].outputs[0].clone()],
        "each rank's own statistics",
    );
    caught(&definition(&batches, None, 2.0 * EPS).outputs, "another eps");
}
