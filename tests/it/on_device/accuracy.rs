//! How exact y is where the merge on the device has no f64: large means, ranks far apart, outliers,
//! extreme scales.

use approx::abs_diff_ne;
use pollster::block_on;
use syncbn::{Backward, BatchNorm, BatchNormConfig, Saved};
use syncbn_reference as reference;

use super::common::normal;
use super::common::*;

const EPS: f64 = 1e-5;

/// How far y may be from the definition, in ulp of the largest |y| of its channel.
///
/// Let Y be that and M the largest |weight·(x − mean)·inv_std|; the normalized values average to 0,
/// so that M and twice |bias| are at most 2Y. The pivot is the mean of one rank, and some x of this
/// rank is at least as far from the mean of all as it, so that scale·|x − pivot| ≤ 2M and
/// scale·|rest| ≤ M. Half an ulp each: x − pivot 2 ulp of Y, product 2, rest·scale 1, shift 2, last
/// sum ½. Both products have one scale, whose error moves y by its share of M: inv_std and weight
/// half an ulp each, var up to 4 half ulp of which a half counts: 4 half ulp, at most 4 ulp of Y.
/// The rest has up to ranks + 4 roundings of half an ulp of M, of which shares and sums of like
/// sign make about half: 4 for three ranks. Together 15½.
pub const RESIDENT_ULP: f64 = 16.0;

fn check(name: &str, batches: &[Batch]) {
    check_with_eps(name, batches, EPS);
}

fn check_case(case: &HardCase) {
    check_with_eps(&case.name, &case.batches, case.eps);
}

fn check_with_eps(name: &str, batches: &[Batch], eps: f64) {
    let channels = batches[0].dims[1];
    let random = Parameters::random(channels, &mut Random::new(70));
    let device = &virtual_gpus()[0];
    for parameters in [None, Some(&random)] {
        let expected = definition(batches, parameters, eps);
        let config =
            BatchNormConfig::torch(channels).with_eps(eps).with_affine(parameters.is_some());
        let mut layer = BatchNorm::new(config, device).unwrap();
        if let Some(parameters) = parameters {
            layer.set_parameters(Some(&parameters.weight), Some(&parameters.bias)).unwrap();
        }
        let inputs: Vec<_> = batches.iter().map(|batch| batch.upload(device)).collect();
        let forward = layer.forward_train(&inputs).unwrap();
        for rank in 0..batches.len() {
            let compared = compare_normalization(&forward.saved, rank, &expected.statistics, eps);
            compared.unwrap_or_else(|error| panic!("{name}, rank {rank}: {error}"));
        }
        let affine = if parameters.is_some() { "affine" } else { "plain" };
        match compare(batches, &read(&forward.output), &expected.outputs, RESIDENT_ULP) {
            Ok(worst) => println!("{name}, {affine}: {worst:.2} ulp"),
            Err(error) => panic!("{name}, {affine}: {error}"),
        }
    }
}

/// The mean to within rounding of the deviation, the inverse deviation of itself, by the bounds of
/// statistics that merge on the host: those are for sums along a tree, to which a few ranks add
/// little. The mean is reported as one f32, which is half an ulp.
fn compare_normalization(
    saved: &Saved,
    rank: usize,
    expected: &reference::BatchStatistics,
    eps: f64,
) -> Result<(), String> {
    let [mean, inv_std] =
        saved.mean_and_inv_std(rank).ok_or("none")?.map(|of| block_on(of.to_vec()).unwrap());
    for (channel, (mean, inv_std)) in widened(&mean).into_iter().zip(widened(&inv_std)).enumerate()
    {
        let wanted = expected.mean[channel];
        let var = expected.var_biased[channel];
        let wanted_inv_std = if var + eps == 0.0 { 0.0 } else { 1.0 / (var + eps).sqrt() };
        let allowed = STATISTICS_TOLERANCE * var.sqrt() + 0.5 * ulp(wanted);
        let allowed_inv_std = STATISTICS_TOLERANCE * wanted_inv_std;
        if abs_diff_ne!(mean, wanted, epsilon = allowed)
            || abs_diff_ne!(inv_std, wanted_inv_std, epsilon = allowed_inv_std)
        {
            return Err(format!(
                "channel {channel}: {mean}, {inv_std}, expected {wanted}, {wanted_inv_std}"
            ));
        }
    }
    Ok(())
}

/// One tile, several tiles of 256 lanes, several tiles of few lanes; one rank is empty in the
/// first.
const SHAPES: [[&[usize]; 3]; 3] = [
    [&[0, 5, 3], &[8, 5, 11, 7], &[3, 5, 11, 7]],
    [&[4, 5, 9001], &[1, 5, 77], &[1, 5, 1]],
    [&[2001, 5], &[900, 5], &[901, 5]],
];

#[test]
fn a_mean_of_a_million_deviations_costs_little() {
    for (i, dims) in SHAPES.iter().enumerate() {
        large_means(dims, i).iter().for_each(check_case);
    }
}

#[test]
fn a_variance_far_below_eps_costs_little() {
    for (i, dims) in SHAPES.iter().enumerate() {
        small_variances(dims, i).iter().for_each(check_case);
    }
}

#[test]
fn ranks_a_million_deviations_apart_cost_little() {
    for (i, dims) in SHAPES.iter().enumerate() {
        let batches = normal(dims, 131 + i as u64, |rank, _| (1e6 * rank as f64, 1.0));
        check(&format!("ranks at 0, 1e6, 2e6, {dims:?}"), &batches);
        // Their own statistics about the same mean, their means opposite.
        let batches = normal(dims, 141 + i as u64, |rank, _| (1e6 * (rank as f64 - 1.0), 1.0));
        check(&format!("ranks at -1e6, 0, 1e6, {dims:?}"), &batches);
        // One value far off on the rank that gives the pivot, on top of a mean that is large
        // itself.
        let mut batches =
            normal(&[&[1, 5, 1], dims[1], dims[2]], 145 + i as u64, |_, _| (1e4, 1.0));
        batches[0].values.fill(1e6);
        check(&format!("the first rank one value of 1e6, {dims:?}"), &batches);
    }
}

#[test]
fn outliers_and_spikes_cost_little() {
    const OUTLIERS: usize = 5000;
    let values = 1 << 18;
    for start in [0, values - OUTLIERS] {
        let mut batches = normal(&[&[1, 2, values], &[2, 2, 1000]], 121, |_, _| (0.0, 1.0));
        for value in &mut batches[0].values[start..start + OUTLIERS] {
            *value += 1e6;
        }
        check(&format!("{OUTLIERS} outliers of 1e6 from {start}"), &batches);
    }
    for (values, spike) in
        [(51_741, 191_532.72), (65_109, 1502.4112), (109_021, 528.67), (4096, 1e6)]
    {
        for at in [0, values / 2] {
            let batch = Batch::new(&[1, 1, values], |index| if index == at { spike } else { 0.0 });
            check(&format!("{spike} at {at} of {values} zeros"), &[batch]);
        }
    }
}

#[test]
fn a_channel_s_scale_costs_nothing_from_1e_minus_15_to_1e15() {
    let scales = [1e-15, 1e-10, 1e-5, 1.0, 1e5, 1e10, 1e15];
    let dims: [&[usize]; 3] = [&[3, 7, 9001], &[1, 7, 4097], &[2, 7, 5]];
    let batches = normal(&dims, 151, |_, c| (0.5 * scales[c], scales[c]));
    check("scales 1e-15 to 1e15", &batches);
    check_with_eps("scales 1e-15 to 1e15, eps 0", &batches, 0.0);
}

#[test]
fn a_constant_channel_gives_exactly_the_bias() {
    let device = &virtual_gpus()[0];
    for eps in [0.0, EPS] {
        let config = BatchNormConfig::torch(2).with_eps(eps);
        let mut layer = BatchNorm::new(config, device).unwrap();
        layer.set_parameters(Some(&[3.0, -2.0]), Some(&[0.1, 0.7])).unwrap();
        let dims: [&[usize]; 3] = [&[5, 2, 9001], &[1, 2, 3], &[7, 2]];
        let inputs = dims.map(|dims| Batch::new(dims, |_| 10_000.1).upload(device));
        let forward = layer.forward_train(&inputs).unwrap();
        let outputs = read(&forward.output);
        for (dims, y) in dims.iter().zip(&outputs) {
            let batch = Batch { dims: dims.to_vec(), values: y.clone() };
            assert!(
                y.iter().enumerate().all(|(i, &y)| y == [0.1, 0.7][batch.channel(i)]),
                "eps {eps}, {dims:?}"
            );
        }
        let g = dims.map(|dims| Batch::random(dims, &mut Random::new(9)).upload(device));
        let backward = layer.backward(&forward.saved, Backward::of(&inputs, &g)).unwrap();
        if eps == 0.0 {
            assert!(read(&backward.input).concat().iter().all(|&dx| dx == 0.0));
        }
    }
}

#[test]
fn the_comparison_finds_an_error_of_twice_the_tolerance() {
    let batches = normal(&[&[4, 2, 9]], 170, |_, _| (0.0, 1.0));
    let expected = definition(&batches, None, EPS).outputs;
    let mut found: Vec<Vec<f32>> =
        expected.iter().map(|y| y.iter().map(|&y| y as f32).collect()).collect();
    assert!(compare(&batches, &found, &expected, RESIDENT_ULP).is_ok());
    let largest = expected[0].iter().enumerate().filter(|(i, _)| batches[0].channel(*i) == 0);
    let largest = largest.fold(0f64, |largest, (_, y)| largest.max(y.abs()));
    found[0][0] += (2.0 * RESIDENT_ULP * ulp(largest)) as f32;
    assert!(compare(&batches, &found, &expected, RESIDENT_ULP).is_err());
}

#[test]
fn a_channel_whose_squares_leave_f32_is_nan_and_moves_no_running_statistics() {
    let device = &virtual_gpus()[0];
    for dims in [[4, 2, 9, 7], [4, 2, 8, 8]] {
        let layer = BatchNorm::new(BatchNormConfig::torch(2), device).unwrap();
        let mut batch = Batch::random(&dims, &mut Random::new(77));
        for index in
            (0..batch.values.len()).filter(|&index| batch.channel(index) == 1).collect::<Vec<_>>()
        {
            batch.values[index] *= 1e20;
        }
        let forward = layer.forward_train(&[batch.upload(device)]).unwrap();
        let outputs = read(&forward.output);
        for (index, y) in outputs[0].iter().enumerate() {
            assert_eq!(y.is_nan(), batch.channel(index) == 1, "value {index} is {y}");
        }
        let running = block_on(layer.running_stats()).unwrap().unwrap();
        assert_eq!((running.mean[1], running.var[1], running.num_batches_tracked), (0.0, 1.0, 1));
        assert!(running.mean[0] != 0.0 && running.var[0] != 1.0, "{running:?}");
    }
}
