//! What merges ranks and takes the tiles of a single one has the bits of the kernel that combines
//! tiles and the one that merges, one after the other.

use bytemuck::Pod;
use syncbn::DType;
use syncbn::Layout::{self, ChannelsFirst, ChannelsLast};
use syncbn::config::{Momentum, RunningVariance};
use syncbn::low_level::Shape;
use syncbn::low_level::plan::{
    Activation, CombineParams, DeviceCaps, Dispatch, LayerFlags, ParameterGradients, Role,
    RunningUpdate, SumsPlan,
};

use super::common::Random;
use super::dispatch::run;
use super::finishing::{bits, merge};

const CAPS: DeviceCaps = DeviceCaps::PORTABLE;
/// Channels first: of 16,384 values a tile, of 4,096 single ones, and a last tile that is short.
/// Tiles up to those of a single lane, of every number of lanes, and of batches of 16; more
/// channels than one workgroup has; positions far apart; channels last.
const SHAPES: [([usize; 3], Layout); 22] = [
    ([2, 3, 16_384], ChannelsFirst),
    ([3, 3, 16_384], ChannelsFirst),
    ([4, 3, 16_380], ChannelsFirst),
    ([5, 3, 16_384], ChannelsFirst),
    ([6, 3, 16_384], ChannelsFirst),
    ([7, 3, 16_000], ChannelsFirst),
    ([8, 3, 16_384], ChannelsFirst),
    ([9, 3, 16_384], ChannelsFirst),
    ([17, 70, 16_384], ChannelsFirst),
    ([40, 3, 16_384], ChannelsFirst),
    ([100, 3, 16_384], ChannelsFirst),
    ([250, 3, 16_384], ChannelsFirst),
    ([500, 3, 16_384], ChannelsFirst),
    ([1000, 3, 16_384], ChannelsFirst),
    ([2001, 3, 16_384], ChannelsFirst),
    ([4500, 3, 16_384], ChannelsFirst),
    ([3, 1000, 8_191], ChannelsFirst),
    ([640, 300, 49], ChannelsFirst),
    ([4096, 130, 1], ChannelsFirst),
    ([64, 4096, 30], ChannelsLast),
    ([31, 30, 199], ChannelsLast),
    ([40, 64, 500], ChannelsLast),
];

/// The words of a buffer. Tiles of statistics have means far from 0 and near each other; one
/// channel is not finite, and one leaves f32.
fn contents(
    role: Role,
    combine: &CombineParams,
    of_gradients: bool,
    count: u64,
    seed: u64,
) -> Vec<u32> {
    let channels = combine.channels as usize;
    let mut random = Random::new(seed + 1000 * role as u64);
    let mut values = |count: usize| -> Vec<u32> { bits(random.values(count)) };
    match role {
        Role::Tiles => {
            let mut of_tile = |index: usize| {
                let tile = index / channels;
                let channel = index % channels;
                let [a, b, c] = [0; 3].map(|_| random.next() as f32);
                let is_wrong = channel == 1 && tile == 1;
                let beyond = if channel == 2 { 3e38 } else { 1.0 };
                let flag = f32::from(u8::from(is_wrong));
                if of_gradients {
                    return [a, b * beyond, flag, 0.0];
                }
                // Of padded samples the count, below 0 where a value is not finite.
                let count = (1 + index % combine.tile_values as usize) as f32;
                let count = if is_wrong { -count } else { count };
                let last = if combine.keeps_counts == 0 { flag } else { count };
                [1e4 + a, 1e-3 * b, (1.0 + c.abs()) * beyond, last]
            };
            (0..combine.tiles as usize * channels).flat_map(|index| bits(of_tile(index))).collect()
        }
        Role::RankWeights => bits([count as f32, 1.0]),
        Role::Running => (0..channels).flat_map(|_| [values(2), vec![7, 0]].concat()).collect(),
        Role::Centering if of_gradients => {
            (0..channels).flat_map(|_| [values(3), bits([1.0])].concat()).collect()
        }
        Role::RunningMean | Role::RunningVariance | Role::GradWeight | Role::GradBias => {
            values(channels)
        }
        // A NaN that no kernel writes.
        _ => vec![u32::MAX; 6 * channels],
    }
}

/// Runs both ways, and compares all that they write.
fn assert_same<P: Pod>(
    what: &str,
    combine: &Dispatch<CombineParams>,
    [of_ranks, of_tiles]: [&Dispatch<P>; 2],
    contents: impl Fn(Role) -> Vec<u32>,
) {
    let local = run(combine, &combine.variant.source(), &contents)[&Role::Local].clone();
    let mut expected = run(of_ranks, &of_ranks.variant.source(), |role| match role {
        Role::Locals => local.clone(),
        _ => contents(role),
    });
    expected.remove(&Role::Locals);
    let found = run(of_tiles, &of_tiles.variant.source(), &contents);
    assert_eq!(found.len(), expected.len() + 1, "{what}");
    for (role, expected) in &expected {
        let first = found[role].iter().zip(expected).position(|(a, b)| a != b);
        assert_eq!(first, None, "{what}: {role:?} differs there");
    }
    let written = [Role::GradCentering, Role::Centering];
    let written = written.into_iter().find(|role| expected.contains_key(role)).expect("either");
    assert_ne!(expected[&written], contents(written), "{what}: nothing is written");
}

/// Every shape, with storage types in turn and some of them padded, and the plan that combines its
/// tiles.
fn each(
    plan: impl Fn(Activation<'_>) -> SumsPlan,
    mut check: impl FnMut(&str, &Shape, Dispatch<CombineParams>, u64),
) {
    let mut found = Vec::new();
    for (seed, (dims, layout)) in (0..).zip(SHAPES) {
        let dtype = [DType::F32, DType::F16, DType::BF16][seed as usize / 2 % 3];
        let mut shape = Shape::new(&dims, layout).expect("a shape");
        if seed % 3 == 2 && layout == ChannelsFirst && dims[0] < 1000 {
            let length = |n: usize| (n * 37 % (dims[2] + 1)) as u32;
            let lengths: Vec<u32> = (0..dims[0]).map(length).collect();
            shape = shape.with_lengths(&lengths);
        }
        let combine = plan(Activation { shape: &shape, dtype }).combine;
        let combine = combine.unwrap_or_else(|| panic!("{dims:?}: one tile"));
        let lanes = combine.params.lanes_per_channel;
        found.push((combine.params.tiles, lanes));
        check(&format!("{dims:?}, {layout:?}, {dtype:?}, {lanes} lanes"), &shape, combine, seed);
    }
    for few in 2..=8 {
        assert!(found.iter().any(|&(tiles, _)| tiles == few), "no shape of {few} tiles");
    }
    for lanes in (0..=8).map(|log2| 1 << log2) {
        assert!(found.iter().any(|&(_, of_shape)| of_shape == lanes), "none of {lanes} lanes");
    }
}

#[test]
fn statistics_of_the_tiles_of_one_rank_have_the_bits_of_two_kernels() {
    let plan = |x: Activation<'_>| SumsPlan::statistics(x, &CAPS).unwrap().expect("values");
    let mut padded = 0;
    each(plan, |what, shape, combine, seed| {
        padded += combine.params.keeps_counts;
        let variance =
            if seed % 2 == 0 { RunningVariance::Unbiased } else { RunningVariance::Biased };
        let momentum = if seed % 3 == 0 { Momentum::Cumulative } else { Momentum::Decay(0.875) };
        let eps = [1e-5, 0.0][seed as usize % 2];
        let contents =
            |role| contents(role, &combine.params, false, shape.values_per_channel(), seed);
        let merge = merge(shape);
        let update = RunningUpdate { momentum, variance };
        let entries = merge.statistics(0, eps, (seed % 5 != 0).then_some(update));
        assert_same(what, &combine, [&entries, &entries.clone().of_tiles(&combine)], contents);
        let momentum = Momentum::Decay(0.75);
        let vectors = merge.statistics_to_vectors(eps, RunningUpdate { momentum, variance });
        assert_same(what, &combine, [&vectors, &vectors.clone().of_tiles(&combine)], contents);
    });
    assert!(padded > 3, "{padded}");
}

#[test]
fn gradient_sums_of_the_tiles_of_one_rank_have_the_bits_of_two_kernels() {
    let plan = |x: Activation<'_>| {
        SumsPlan::gradient(x, x, &CAPS, LayerFlags::default()).unwrap().expect("values")
    };
    each(plan, |what, shape, combine, seed| {
        let of_all = [None, Some(1.0)][seed as usize % 2];
        let weight = seed % 3 != 0;
        let bias = seed % 5 != 0;
        let wanted =
            ParameterGradients { weight, bias, of_all, accumulate: seed.is_multiple_of(2) };
        let gradient = merge(shape).gradient(0, seed % 7 != 0, wanted);
        assert_same(what, &combine, [&gradient, &gradient.clone().of_tiles(&combine)], |role| {
            contents(role, &combine.params, true, shape.values_per_channel(), seed)
        });
    });
}
