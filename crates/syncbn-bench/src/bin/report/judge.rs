//! Owns the comparison: outputs by the definition, their errors, and the verdict on these.

use serde::Serialize;
use syncbn::{DType, low_level::Epilogue};
use syncbn_reference::ReferenceError;

use crate::layers::{Merge, Output, Outputs};
use crate::problem::Problem;
use syncbn_bench::check::bounds::{self, Bounded, Definition};
use syncbn_reference::bounds::ulp;
use syncbn_testkit::TOLERANCE_ULP;

/// Every expected output: for each rank the values, as (N, C, L) or (C).
pub type Expected = Vec<(Output, Vec<Vec<Bounded>>)>;

/// Largest error of y if statistics merge on the device, in ulp of the channel's largest |y|.
///
/// On the host 8 are allowed. The device merges in f32, and the pivot is the mean of one rank and
/// not of all. So x − pivot and its product may be twice as large. The rest, the distance of the
/// two means, is rounded and multiplied too. `tests/it/on_device/accuracy.rs` counts 15½ ulp in
/// all. The bounds of gradients hold for both merges. They allow the mean 16 half ulp of the
/// deviation. The rest has up to ranks + 4 roundings of half an ulp of at most √ranks deviations,
/// 12 for three ranks.
const DEVICE_ULPS: f64 = 16.0;

/// Outputs of the definition in f64, with the bounds of the bench tool.
///
/// # Errors
///
/// Where the problem has no statistics: a single value per channel.
pub fn by_definition(problem: &Problem, merge: Merge) -> Result<Expected, ReferenceError> {
    let wide = |values: &[f32]| values.iter().copied().map(f64::from).collect::<Vec<f64>>();
    let residuals =
        || problem.ranks.iter().map(|shard| shard.residual.as_deref().map(wide)).collect();
    let asked = bounds::Problem {
        dims: problem.ranks.iter().map(|shard| shard.dims).collect(),
        x: problem.ranks.iter().map(|shard| wide(&shard.x)).collect(),
        residuals: if problem.epilogue.adds_residual() { residuals() } else { None },
        grad_outputs: problem.ranks.iter().map(|shard| wide(&shard.grad_output)).collect(),
        weight: wide(&problem.weight),
        bias: wide(&problem.bias),
        eps: problem.eps,
        form: problem.form(),
        ulps: match merge {
            Merge::Host => TOLERANCE_ULP,
            Merge::Device => DEVICE_ULPS,
        },
    };
    let definition = Definition::of_batch(&asked)?;
    let mut y = definition.y();
    constant_channels_are_exact(problem, &mut y);
    let [grad_weights, grad_biases] = definition.parameter_gradients()?;
    let mut expected = vec![
        (Output::Y, y),
        (Output::GradInput, definition.grad_inputs()?),
        (Output::GradWeight, grad_weights),
        (Output::GradBias, grad_biases),
    ];
    if asked.residuals.is_some() {
        expected.push((Output::GradResidual, definition.grad_residuals()));
    }
    Ok(expected)
}

/// Takes of two bounds of the same outputs the narrower one, value by value.
pub fn narrowed(mut expected: Expected, other: &Expected) -> Expected {
    for (output, ranks) in &mut expected {
        let Some((_, others)) = other.iter().find(|(other, _)| other == output) else { continue };
        for (bounded, other) in ranks.iter_mut().flatten().zip(others.iter().flatten()) {
            // Of a NaN and a number, `min` takes the number.
            bounded.allowed = bounded.allowed.min(other.allowed);
        }
    }
    expected
}

/// The y of a channel whose values are all the same is the bias, to the bit.
fn constant_channels_are_exact(problem: &Problem, y: &mut [Vec<Bounded>]) {
    if problem.dtype != DType::F32 || problem.epilogue != Epilogue::NONE {
        return;
    }
    let mut first = vec![None; problem.channels()];
    let mut is_constant = vec![true; problem.channels()];
    for (rank, shard) in problem.ranks.iter().enumerate() {
        for (index, &x) in shard.x.iter().enumerate() {
            let channel = channel_of(problem, rank, index);
            is_constant[channel] &= x.is_finite() && x == *first[channel].get_or_insert(x);
        }
    }
    for (rank, y) in y.iter_mut().enumerate() {
        for (index, bounded) in y.iter_mut().enumerate() {
            let channel = channel_of(problem, rank, index);
            if is_constant[channel] {
                *bounded = Bounded { value: problem.bias[channel].into(), allowed: 0.0 };
            }
        }
    }
}

/// The channel of a value of (N, C, L).
fn channel_of(problem: &Problem, rank: usize, index: usize) -> usize {
    let [_, channels, positions] = problem.ranks[rank].dims;
    index / positions % channels
}

/// A value that is too far from the expected one.
#[derive(Clone, Debug, Serialize, thiserror::Error)]
#[error(
    "{} of rank {rank}, value {index} (channel {channel}): {found:e}, expected {expected:e} within \
    {allowed:.2e}",
    output.name()
)]
pub struct Wrong {
    pub output: Output,
    pub rank: usize,
    /// Within the rank's (N, C, L), or (C).
    pub index: usize,
    pub channel: usize,
    pub found: f64,
    pub expected: f64,
    pub allowed: f64,
}

/// The largest errors of one output.
#[derive(Clone, Debug, Serialize)]
pub struct Worst {
    pub output: Output,
    /// In ulp of the channel's largest magnitude; absent for 16-bit storage.
    pub ulps: Option<f64>,
    /// As a share of what is allowed.
    pub share: f64,
}

/// Of many, the largest errors of each output.
pub fn largest(all: Vec<Worst>) -> Vec<Worst> {
    let mut largest: Vec<Worst> = Vec::new();
    for worst in all {
        match largest.iter_mut().find(|other| other.output == worst.output) {
            Some(other) => {
                other.share = other.share.max(worst.share);
                other.ulps = other.ulps.zip(worst.ulps).map(|(one, two)| one.max(two));
            }
            None => largest.push(worst),
        }
    }
    largest
}

/// The largest error of every output, and the first value that is wrong.
///
/// # Errors
///
/// Where outputs are absent, or of another size.
pub fn judge(
    problem: &Problem,
    found: &Outputs,
    expected: &Expected,
) -> Result<(Vec<Worst>, Option<Wrong>), String> {
    let mut all_worst = Vec::new();
    let mut first = None;
    for (output, expected) in expected {
        let name = output.name();
        let found = found
            .iter()
            .find(|(other, _)| other == output)
            .ok_or_else(|| format!("{name} is absent"))?;
        let sizes = |values: Vec<usize>| format!("{name} has {values:?} values");
        let lengths: Vec<usize> = found.1.iter().map(Vec::len).collect();
        if lengths != expected.iter().map(Vec::len).collect::<Vec<_>>() {
            return Err(sizes(lengths));
        }
        let (worst, wrong) = judge_output(problem, *output, &found.1, expected);
        all_worst.push(worst);
        first = first.or(wrong);
    }
    Ok((all_worst, first))
}

fn judge_output(
    problem: &Problem,
    output: Output,
    found: &[Vec<f64>],
    expected: &[Vec<Bounded>],
) -> (Worst, Option<Wrong>) {
    let channel =
        |rank, index| if output.is_vector() { index } else { channel_of(problem, rank, index) };
    let mut largest = vec![0f64; problem.channels()];
    for (rank, expected) in expected.iter().enumerate() {
        for (index, bounded) in
            expected.iter().enumerate().filter(|(_, bounded)| bounded.value.is_finite())
        {
            let largest = &mut largest[channel(rank, index)];
            *largest = largest.max(bounded.value.abs());
        }
    }
    let mut worst =
        Worst { output, ulps: (problem.dtype == DType::F32).then_some(0.0), share: 0.0 };
    let mut wrong = None;
    for (rank, (found, expected)) in found.iter().zip(expected).enumerate() {
        for (index, (&found, &Bounded { value, allowed })) in found.iter().zip(expected).enumerate()
        {
            let error = (found - value).abs();
            // Where NaN is expected, only NaN is right. Elsewhere it is never within.
            if value.is_nan() && found.is_nan() || allowed == f64::INFINITY && !value.is_nan() {
                continue;
            }
            let channel = channel(rank, index);
            let within = error <= allowed;
            if !within && wrong.is_none() {
                wrong =
                    Some(Wrong { output, rank, index, channel, found, expected: value, allowed });
            }
            if error > 0.0 {
                worst.share = worst.share.max(error / allowed);
                worst.ulps = worst.ulps.map(|ulps| ulps.max(error / ulp(largest[channel])));
            }
        }
    }
    (worst, wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hard::random;

    fn as_found(expected: &Expected) -> Outputs {
        let values = |ranks: &[Vec<Bounded>]| {
            ranks.iter().map(|rank| rank.iter().map(|b| b.value).collect()).collect()
        };
        expected.iter().map(|(output, ranks)| (*output, values(ranks))).collect()
    }

    #[test]
    fn twice_the_bound_is_wrong_in_every_output_and_half_of_it_is_right() {
        let problem = random(
            DType::F32,
            syncbn::Layout::ChannelsFirst,
            Epilogue::ADD_RELU,
            &[[2, 3, 5], [1, 3, 5]],
            7,
        );
        let expected = by_definition(&problem, Merge::Host).expect("statistics");
        assert_eq!(expected.len(), 5);
        for (place, (output, ranks)) in expected.iter().enumerate() {
            // A value that the activation does not leave open.
            let index =
                ranks[1].iter().position(|bounded| bounded.allowed.is_finite()).expect("a bound");
            for (factor, is_wrong) in [(0.5, false), (2.0, true)] {
                let mut found = as_found(&expected);
                let allowed = ranks[1][index].allowed;
                // Gradients of a residual are exact: any other value is wrong.
                found[place].1[1][index] +=
                    if allowed > 0.0 || factor < 1.0 { factor * allowed } else { 1e-6 };
                let (worst, wrong) = judge(&problem, &found, &expected).expect("outputs");
                assert_eq!(wrong.is_some(), is_wrong, "{output:?}, {factor}");
                assert!(wrong.is_none_or(|wrong| wrong.output == *output
                    && wrong.rank == 1
                    && wrong.index == index));
                assert!(worst[place].share > 0.4 || ranks[1][index].allowed == 0.0);
            }
        }
    }

    #[test]
    fn nan_is_wrong_where_a_number_is_expected_and_the_other_way_round() {
        let problem =
            random(DType::F32, syncbn::Layout::ChannelsFirst, Epilogue::NONE, &[[2, 1, 2]], 7);
        let mut expected = by_definition(&problem, Merge::Host).expect("statistics");
        let mut found = as_found(&expected);
        found[0].1[0][2] = f64::NAN;
        assert!(judge(&problem, &found, &expected).expect("outputs").1.is_some());
        expected[0].1[0][2] = Bounded { value: f64::NAN, allowed: f64::INFINITY };
        assert!(judge(&problem, &found, &expected).expect("outputs").1.is_none());
        found[0].1[0][2] = 0.0;
        assert!(judge(&problem, &found, &expected).expect("outputs").1.is_some());
        found.remove(0);
        assert!(judge(&problem, &found, &expected).is_err());
    }

    #[test]
    fn a_constant_channel_allows_nothing() {
        let mut problem =
            random(DType::F32, syncbn::Layout::ChannelsFirst, Epilogue::NONE, &[[2, 2, 3]], 7);
        for index in [0, 1, 2, 6, 7, 8] {
            problem.ranks[0].x[index] = 10_000.1;
        }
        let expected = by_definition(&problem, Merge::Device).expect("statistics");
        let y = &expected[0].1[0];
        assert_eq!((y[6].value, y[6].allowed), (problem.bias[0].into(), 0.0));
        assert!(y[3].allowed > 0.0);
    }
}
