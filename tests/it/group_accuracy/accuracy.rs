//! How exact y is where others lose it: large means, outliers, ranks far apart, extreme scales, and
//! long channels.
//!
//! The aim is [`TOLERANCE_ULP`] of the channel's largest |y| against the f64 definition, on every
//! kind of group. Each test prints the worst error that it found.

use pollster::block_on;
use syncbn::{BatchNormConfig, SyncBatchNorm};

use super::common::normal;
use super::common::*;

const EPS: f64 = 1e-5;

/// One training step on every kind of group, without weight and bias and with random ones.
fn check(name: &str, batches: &[Batch]) {
    check_with_eps(name, batches, EPS);
}

fn check_case(case: &HardCase) {
    check_with_eps(&case.name, &case.batches, case.eps);
}

fn check_with_eps(name: &str, batches: &[Batch], eps: f64) {
    let channels = batches[0].dims[1];
    let random = Parameters::random(channels, &mut Random::new(70));
    for parameters in [None, Some(&random)] {
        let expected = definition(batches, parameters, eps);
        for kind in Kind::tested() {
            let config =
                BatchNormConfig::torch(channels).with_eps(eps).with_affine(parameters.is_some());
            let mut layer = SyncBatchNorm::new(config, kind.devices(batches.len())).unwrap();
            if let Some(parameters) = parameters {
                parameters.set(&mut layer);
            }
            let forward = block_on(layer.forward_train(&upload(&layer, batches))).unwrap();
            compare_statistics(forward.saved.statistics().unwrap(), &expected.statistics)
                .unwrap_or_else(|error| panic!("{name}, {kind:?}: {error}"));
            let affine = if parameters.is_some() { "affine" } else { "plain" };
            match compare(batches, &read(&forward.output), &expected.outputs, TOLERANCE_ULP) {
                Ok(worst) => println!("{name}, {kind:?}, {affine}: {worst:.2} ulp"),
                Err(error) => panic!("{name}, {kind:?}, {affine}: {error}"),
            }
        }
    }
}

/// One tile, several tiles of 256 lanes, several tiles of few lanes.
const SHAPES: [[&[usize]; 2]; 3] =
    [[&[8, 5, 11, 7], &[3, 5, 11, 7]], [&[4, 5, 9001], &[1, 5, 77]], [&[2001, 5], &[900, 5]]];

#[test]
fn a_mean_of_a_million_deviations_costs_nothing() {
    for (i, dims) in SHAPES.iter().enumerate() {
        large_means(dims, i).iter().for_each(check_case);
    }
}

/// Channels of so few values that a lane has one to three quads, the first value of which is far
/// from the others: what stands in for the missing quads must not count.
#[test]
fn a_first_value_far_from_few_others_costs_nothing() {
    for positions in [4, 8, 12, 20] {
        let value = |index: usize| match index % positions {
            0 => 0.1,
            at => 1.0 + ((index + at * 7919) % 101) as f32 * 1e-4,
        };
        let batches = [[1, 3, positions], [1, 3, positions]].map(|dims| Batch::new(&dims, value));
        check(&format!("{positions} values"), &batches);
    }
}

#[test]
fn a_variance_far_below_eps_costs_nothing() {
    for (i, dims) in SHAPES.iter().enumerate() {
        small_variances(dims, i).iter().for_each(check_case);
    }
}

#[test]
fn a_tile_of_outliers_costs_nothing_wherever_it_is() {
    const OUTLIERS: usize = 5000;
    let values = 1 << 19;
    for start in [0, 100_000, values - OUTLIERS] {
        let mut batches = normal(&[&[1, 2, values], &[2, 2, 1000]], 121, |_, _| (0.0, 1.0));
        for value in &mut batches[0].values[start..start + OUTLIERS] {
            *value += 1e6;
        }
        check(&format!("{OUTLIERS} outliers of 1e6 from {start}"), &batches);
    }
    // One single value, the first of its tile, on the rank that the tree takes first.
    let mut batches = normal(&[&[1, 2, 9001], &[2, 2, 1000]], 122, |_, _| (0.0, 1.0));
    batches[0].values[0] = 1e6;
    check("one outlier of 1e6 at the start", &batches);
}

#[test]
fn lanes_whose_first_values_are_all_on_one_side_cost_nothing() {
    // A GPU's lane takes its pivot from a quarter of its values or more: where all of its 16 count,
    // the first 64 of 256 single values, or 128 of 512 where they are loaded by quads. Then the
    // pivot lies √3 deviations from the mean, which is as far as it can be.
    const LONG: [[&[usize]; 2]; 2] =
        [[&[3, 3, 12_285], &[1, 3, 77]], [&[4, 3, 16_384], &[1, 3, 80]]];
    for (i, dims) in LONG.iter().enumerate() {
        for (period, first) in [(256, 64), (512, 128)] {
            for side in [1.0, 1e3, 1e6] {
                let mut batches = normal(dims, 126 + i as u64, |_, _| (1e4, 1.0));
                for batch in &mut batches {
                    let length = batch.dims[2];
                    for (index, value) in batch.values.iter_mut().enumerate() {
                        if index % length % period < first {
                            *value += side;
                        }
                    }
                }
                check(&format!("{first} of {period} beside by {side}, {dims:?}"), &batches);
            }
        }
    }
}

/// So many values that those of f32 are summed by the quads that cover a plane: short planes, whose
/// quads are mostly shared with neighbours, and long ones.
const COVERED: [[usize; 3]; 2] = [[28_000, 3, 13], [88, 3, 4_099]];

#[test]
fn neighbours_of_planes_of_odd_sizes_cost_nothing() {
    for (seed, dims) in (130..).zip(COVERED) {
        let of_channel = |_, channel: usize| [(1e6, 1.0), (0.0, 1e-3), (-1e4, 1e-2)][channel];
        let batches = normal(&[&dims, &[3, 3, 77]], seed, of_channel);
        check(&format!("channels far from each other, {dims:?}"), &batches);
    }
}

#[test]
fn the_ends_of_planes_of_odd_sizes_and_the_first_half_of_a_lane_cost_nothing() {
    for (seed, [batch, channels, length]) in (133..).zip(COVERED) {
        // Values of a lane's first eight of 16 quads: eight lanes go side by side.
        let is_first_half = |at: usize| length > 512 && at % 512 < 256;
        for beside in [1e3, 1e6] {
            let dims = [batch, channels, length];
            let mut batches = normal(&[&dims, &[3, 3, 77]], seed, |_, _| (1e4, 1.0));
            for (index, value) in batches[0].values.iter_mut().enumerate() {
                let at = index % length;
                if at == 0 || at == length - 1 || is_first_half(at) {
                    *value += beside;
                }
            }
            check(&format!("the ends of planes beside by {beside}, {dims:?}"), &batches);
        }
    }
}

#[test]
fn one_spike_over_a_constant_costs_nothing() {
    // Its square takes part in every sum on its way, and every other term is below or near half an
    // ulp of it: roundings of one sign, found by search over sizes and heights. The shorter the
    // way, the fewer of them.
    for (values, spike) in [
        (51_741, 191_532.72),
        (65_109, 1502.4112),
        (55_128, 200_253.03),
        (59_644, 4211.1333),
        (11_428, 11_901.163),
        (109_021, 528.67),
        (4096, 1e6),
    ] {
        for at in [0, values / 2] {
            let batch = Batch::new(&[1, 1, values], |index| if index == at { spike } else { 0.0 });
            check(&format!("{spike} at {at} of {values} zeros"), &[batch]);
        }
    }
}

#[test]
fn ranks_a_million_deviations_apart_cost_nothing() {
    for (i, dims) in SHAPES.iter().enumerate() {
        let three = [dims[0], dims[1], dims[0]];
        let batches = normal(&three, 131 + i as u64, |rank, _| (1e6 * rank as f64, 1.0));
        check(&format!("ranks at 0, 1e6, 2e6, {dims:?}"), &batches);
        // Their own statistics about the same mean, their means opposite.
        let batches = normal(&three, 141 + i as u64, |rank, _| (1e6 * (rank as f64 - 1.0), 1.0));
        check(&format!("ranks at -1e6, 0, 1e6, {dims:?}"), &batches);
    }
}

#[test]
fn a_channel_s_scale_costs_nothing_from_1e_minus_15_to_1e15() {
    let scales = [1e-15, 1e-10, 1e-5, 1.0, 1e5, 1e10, 1e15];
    for (i, dims) in
        [[[6, 7, 33], [2, 7, 5]], [[3, 7, 9001], [1, 7, 4097]], [[1001, 7, 1], [3, 7, 1]]]
            .iter()
            .enumerate()
    {
        let dims: Vec<&[usize]> = dims.iter().map(|dims| dims.as_slice()).collect();
        let batches = normal(&dims, 151 + i as u64, |_, c| (0.5 * scales[c], scales[c]));
        check(&format!("scales 1e-15 to 1e15, {dims:?}"), &batches);
        check_with_eps(&format!("scales 1e-15 to 1e15, eps 0, {dims:?}"), &batches, 0.0);
    }
}

#[test]
fn a_million_values_per_channel_cost_nothing() {
    let inner = (1 << 20) + 3;
    check("2^20 + 3 values on one rank", &normal(&[&[1, 1, inner]], 161, |_, _| (3.0, 1.0)));
    // All of one sign: nothing cancels out in the sums.
    let mut random = Random::new(162);
    let ramp = Batch::new(&[1, 1, inner], |index| {
        (index as f64 / inner as f64 + 1e-3 * random.next()) as f32
    });
    check("a ramp of 2^20 + 3 values", &[ramp]);
    let samples = normal(&[&[(1 << 19) + 3, 2], &[1 << 19, 2]], 163, |_, _| (1e3, 1.0));
    check("2^20 + 3 samples on two ranks", &samples);
}

/// Scales from near the smallest normal f32 to its largest: squares vanish below 1e-19 and overflow
/// beyond 1e19.
const SCALES: [f32; 9] = [1e-36, 1e-30, 1e-24, 1e-19, 1.1e19, 1e24, 1e30, 1e37, 3.3e38];

/// 0 for a subnormal: some devices take it for that.
fn normal_or_0(value: f32) -> f32 {
    if value.is_subnormal() { 0.0 } else { value }
}

#[test]
fn every_scale_of_f32_is_as_exact_as_one() {
    for (i, dims) in SHAPES.iter().enumerate() {
        for scale in SCALES {
            let eps = if scale < 1.0 { 0.0 } else { EPS };
            // With this seed no value is further than 3.4e38 from the mean of its channel, which is
            // the border of the host.
            let mut random = Random::new(300 + i as u64);
            // Around 0, to one side of it, and channels of one group at scales of their own beside
            // an ordinary one.
            let mut value = |at: f64, spread: f64| {
                normal_or_0(((at + spread * random.next()) * f64::from(scale)) as f32)
            };
            let mut batches =
                |at: f64, spread: f64| dims.map(|dims| Batch::new(dims, |_| value(at, spread)));
            check_with_eps(&format!("within {scale:e}, {dims:?}"), &batches(0.0, 1.0), eps);
            check_with_eps(&format!("at 0.8 of {scale:e}, {dims:?}"), &batches(0.8, 0.1), eps);
            check_with_eps(&format!("all {scale:e}, {dims:?}"), &batches(1.0, 0.0), 0.0);
            let mut mixed = batches(0.0, 1.0);
            for batch in &mut mixed {
                let ordinary = Batch::random(&batch.dims, &mut Random::new(210));
                for (index, value) in ordinary
                    .values
                    .iter()
                    .enumerate()
                    .filter(|(index, _)| ordinary.channel(*index) == 1)
                {
                    batch.values[index] = *value;
                }
            }
            check_with_eps(
                &format!("one channel within 1, others within {scale:e}, {dims:?}"),
                &mixed,
                eps,
            );
        }
    }
}
