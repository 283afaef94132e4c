//! Gradients of parameters that are added to what earlier calls have left.

use syncbn::low_level::plan::{DeviceCaps, Merge, ParameterGradients, Role, accumulation};

use super::dispatch::run;
use super::sources;

/// What has to meet every other: what is not finite, what leaves f32 where it is doubled, and
/// numbers.
const MEETING: [f32; 6] =
    [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, -1.5e-3, 16_777_217.0];

/// What is there, and what comes: every two of those, then numbers of all sizes.
fn vectors(len: usize) -> [Vec<f32>; 2] {
    let number =
        |index: usize| ((index * 7919 % 4093) as f32 - 2046.0) * [1e-6, 1e-3, 1.0, 1e4][index % 4];
    let old = |index: usize| if index < 36 { MEETING[index % 6] } else { number(index) };
    let new = |index: usize| if index < 36 { MEETING[index / 6] } else { number(5 * index + 1) };
    [(0..len).map(old).collect(), (0..len).map(new).collect()]
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// One f32 addition each.
fn assert_sums(what: &str, found: &[u32], [old, new]: [&[f32]; 2]) {
    assert_eq!((found.len(), old.len()), (new.len(), new.len()), "{what}");
    for (index, found) in found.iter().map(|&found| f32::from_bits(found)).enumerate() {
        let expected = old[index] + new[index];
        let is_right =
            found.to_bits() == expected.to_bits() || (found.is_nan() && expected.is_nan());
        assert!(
            is_right,
            "{what}, {index}: {} + {} is {found:e}, expected {expected:e}",
            old[index], new[index]
        );
    }
}

/// Channels whose gradients leave f32, above.
const BEYOND: [usize; 3] = [2, 7, 9];

/// Sums of the ranks, and what normalized: a channel with a NaN, some that overflow, one of zeros,
/// the others ordinary.
fn merged(role: Role, channels: usize, rank_words: usize) -> Vec<u32> {
    let number = |index: usize| (index * 37 % 101) as f32 / 7.0 - 6.3;
    match role {
        Role::RankWeights => bits(&[5.0, 0.5, 5.0, 0.5]),
        Role::Centering => {
            (0..channels).flat_map(|c| bits(&[number(c), 1e-3 * number(c + 3), 1.3, 1.0])).collect()
        }
        Role::Locals => {
            let of_channel = |(rank, c): (usize, usize)| match c {
                1 => bits(&[1.0, 2.0, 1.0, 0.0]),
                _ if BEYOND.contains(&c) => bits(&[3e38, 3e38, 0.0, 0.0]),
                3 => bits(&[0.0, 0.0, 0.0, 0.0]),
                _ => bits(&[number(c + 11 * rank), number(c + 7), 0.0, 0.0]),
            };
            let mut words = Vec::new();
            for rank in 0..2 {
                words.extend((0..channels).map(|c| (rank, c)).flat_map(of_channel));
                words.resize((rank + 1) * rank_words, 0);
            }
            words
        }
        Role::GradCentering => vec![0; 6 * channels],
        _ => bits(&vectors(channels)[0]),
    }
}

#[test]
fn gradients_of_parameters_replace_what_is_there_or_are_added_to_it() {
    let channels = 600;
    let merge = Merge::new(vec![5, 5], channels, false, &DeviceCaps::PORTABLE).unwrap();
    let old = vectors(channels)[0].clone();
    for of_all in [None, Some(3.0)] {
        let gradient = |accumulate| {
            let wanted = ParameterGradients { weight: true, bias: true, of_all, accumulate };
            merge.gradient(1, true, wanted)
        };
        for source in sources(&gradient(true).variant.source()) {
            let contents = |role| merged(role, channels, merge.slot(1).start as usize / 4);
            let [replaced, added] =
                [false, true].map(|accumulate| run(&gradient(accumulate), &source, contents));
            for role in [Role::GradWeight, Role::GradBias] {
                let new: Vec<f32> =
                    replaced[&role].iter().map(|&bits| f32::from_bits(bits)).collect();
                let infinite: &[usize] =
                    if of_all.is_none() && role == Role::GradBias { &[] } else { &BEYOND };
                let is = |what: fn(f32) -> bool| {
                    (0..channels).filter(|&c| what(new[c])).collect::<Vec<_>>()
                };
                assert_eq!(
                    (is(f32::is_nan), is(f32::is_infinite)),
                    (vec![1], infinite.to_vec()),
                    "{role:?}, {of_all:?}"
                );
                assert_sums(&format!("{role:?}, {of_all:?}"), &added[&role], [&old, &new]);
            }
            assert_eq!(replaced[&Role::GradCentering], added[&Role::GradCentering]);
        }
    }
}

#[test]
fn a_gradient_that_nobody_wants_is_left_alone() {
    let channels = 20;
    let merge = Merge::new(vec![5, 5], channels, false, &DeviceCaps::PORTABLE).unwrap();
    let wanted = ParameterGradients { accumulate: true, ..ParameterGradients::default() };
    let gradient = merge.gradient(0, false, wanted);
    for source in sources(&gradient.variant.source()) {
        let found = run(&gradient, &source, |role| {
            merged(role, channels, merge.slot(1).start as usize / 4)
        });
        for role in [Role::GradWeight, Role::GradBias] {
            assert_eq!(found[&role], bits(&vectors(channels)[0]));
        }
    }
}

#[test]
fn a_vector_is_added_to_another_by_one_f32_addition_each() {
    // Workgroups in two dimensions, the last row of them in part beyond the end.
    let caps = DeviceCaps { max_workgroups: 20, ..DeviceCaps::PORTABLE };
    for (len, workgroups) in
        [(1, [1, 1]), (255, [1, 1]), (256, [1, 1]), (257, [2, 1]), (70_000, [20, 14])]
    {
        let accumulation = accumulation(len, &caps).unwrap();
        assert_eq!(accumulation.workgroups, workgroups);
        let [old, new] = vectors(len);
        for source in sources(&accumulation.variant.source()) {
            let found = run(&accumulation, &source, |role| {
                bits(if role == Role::Total { &old } else { &new })
            });
            assert_sums(&format!("{len} values"), &found[&Role::Total], [&old, &new]);
            assert_eq!(found[&Role::Addend], bits(&new));
        }
    }
}
