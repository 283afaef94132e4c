//! What sums a rank whose channels have one tile each and makes its statistics has the bits of the
//! kernel that sums and the one that merges, one after the other.

use bytemuck::Pod;
use syncbn::DType;
use syncbn::Layout::{self, ChannelsFirst, ChannelsLast};
use syncbn::config::{Activation as Act, Momentum, RunningVariance};
use syncbn::low_level::plan::{
    Activation, ApplyPlan, DeviceCaps, Dispatch, LayerFlags, Merge, ParameterGradients, Role,
    RunningUpdate, SumsPlan, TileParams, lengths_of,
};
use syncbn::low_level::{Epilogue, Shape};

use super::common::Random;
use super::dispatch::run_padded;

/// Of a device that may finish however many workgroups there are.
pub const CAPS: DeviceCaps = DeviceCaps { step_lanes: 16, ..DeviceCaps::PORTABLE };
const CURVE: Epilogue = Epilogue { activation: Act::Silu, ..Epilogue::NONE };
/// Single values, quads, quads of four channels; channels from less than a workgroup to several;
/// tiles of a lane and of all; one value, a tile that is full, and one sample that is padded.
const SHAPES: [([usize; 3], Layout, Option<u32>); 15] = [
    ([4, 5, 49], ChannelsFirst, None),
    ([8, 16, 64], ChannelsFirst, None),
    ([2, 70, 1], ChannelsFirst, None),
    ([3, 700, 1], ChannelsFirst, None),
    ([1, 6, 1], ChannelsFirst, None),
    ([32, 3, 400], ChannelsFirst, None),
    ([1, 3, 16_384], ChannelsFirst, None),
    ([1, 4, 4096], ChannelsFirst, None),
    ([3, 64, 12], ChannelsLast, None),
    ([5, 7, 9], ChannelsLast, None),
    ([1, 5, 41], ChannelsFirst, Some(17)),
    ([1, 4, 44], ChannelsFirst, Some(0)),
    ([1, 4, 44], ChannelsFirst, Some(17)),
    ([1, 8, 44], ChannelsLast, Some(17)),
    ([2, 12, 30], ChannelsLast, None),
];
/// What is written of statistics, the running ones of the layer or vectors of the application; and
/// of gradients.
const WRITTEN: [Role; 9] = [
    Role::Running,
    Role::Centering,
    Role::Mean,
    Role::InvStd,
    Role::NextMean,
    Role::NextVariance,
    Role::GradCentering,
    Role::GradWeight,
    Role::GradBias,
];

pub fn bits(values: impl IntoIterator<Item = f32>) -> Vec<u32> {
    values.into_iter().map(f32::to_bits).collect()
}

/// x, with a mean far from 0; one channel has a NaN, the sums of one leave f32, one is constant.
fn input(shape: &Shape, dtype: DType, seed: u64) -> Vec<u32> {
    let mut random = Random::new(seed);
    let elements = shape.elements() as usize;
    let strides = shape.strides();
    let channel_of = |at: usize| at / strides.channel % shape.channels();
    let value = |at: usize, random: f32| match channel_of(at) {
        1 if at.is_multiple_of(3) => f32::NAN,
        2 => 3e38 * random.clamp(-1.0, 1.0),
        3 => 0.1,
        _ => 100.0 + random,
    };
    let values: Vec<f32> =
        random.values(elements).into_iter().enumerate().map(|(at, r)| value(at, r)).collect();
    match dtype {
        DType::F32 => bits(values),
        // The upper half of an f32 is a bf16; as a f16 it is a number as well.
        _ => {
            let half = |at: usize| values.get(at).map_or(0, |value| value.to_bits() >> 16);
            (0..elements.div_ceil(2))
                .map(|word| half(2 * word) | half(2 * word + 1) << 16)
                .collect()
        }
    }
}

/// Runs both ways, and compares all that they write.
fn assert_same<P: Pod>(
    what: &str,
    (shape, plan): (&Shape, &SumsPlan),
    finalize: &Dispatch<P>,
    finishing: Option<Vec<Dispatch<TileParams>>>,
    contents: impl Fn(Role) -> Vec<u32>,
) {
    let lengths = shape.padding().map(|padding| lengths_of(padding)).unwrap_or_default();
    let run = |dispatch: &Dispatch<TileParams>| {
        run_padded(dispatch, &dispatch.variant.source(), &contents, &lengths)
    };
    let [partial] = &*plan.partials else { panic!("{what}: {} windows", plan.partials.len()) };
    let finishing = finishing.unwrap_or_else(|| panic!("{what}: several tiles"));
    let locals = run(partial)[&Role::Tiles].clone();
    let of_ranks = |role| if role == Role::Locals { locals.clone() } else { contents(role) };
    let expected = run_padded(finalize, &finalize.variant.source(), of_ranks, &[]);
    let found = run(&finishing[0]);
    let written: Vec<Role> =
        WRITTEN.into_iter().filter(|role| expected.contains_key(role)).collect();
    assert!(written.len() >= 3, "{what}: {written:?}");
    for &role in &written {
        assert_eq!(found[&role], expected[&role], "{what}: {role:?}");
    }
    let changed = |role: &Role| expected[role] != contents(*role);
    assert!(written.iter().any(changed), "{what}: nothing is written");
}

/// Every shape in every storage type that has a value, what it is, and a number.
pub fn each_input(mut check: impl FnMut(&str, Activation<'_>, u64)) {
    for (seed, (dims, layout, length)) in (0..).zip(SHAPES) {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let mut shape = Shape::new(&dims, layout).expect("a shape");
            if let Some(length) = length {
                shape = shape.with_lengths(&[length]);
            }
            let x = Activation { shape: &shape, dtype };
            if shape.values_per_channel() > 0 {
                check(&format!("{dims:?}, {layout:?}, {dtype:?}"), x, seed);
            }
        }
    }
}

/// What kernels find in a buffer.
pub fn contents_of(x: Activation<'_>, role: Role, seed: u64) -> Vec<u32> {
    let channels = x.shape.channels();
    let mut random = Random::new(1000 * role as u64 + seed);
    match role {
        Role::Input => input(x.shape, x.dtype, seed),
        Role::GradOutput => input(x.shape, x.dtype, seed + 1),
        Role::RankWeights => bits([x.shape.values_per_channel() as f32, 1.0]),
        Role::Running => {
            (0..channels).flat_map(|_| [bits(random.values(2)), vec![7, 0]].concat()).collect()
        }
        Role::Centering => {
            (0..channels).flat_map(|_| [bits(random.values(3)), bits([1.0])].concat()).collect()
        }
        Role::Mask => {
            let order = ApplyPlan::mask_order(x, x.dtype, &CAPS);
            let words = ApplyPlan::mask_bytes(x, order, &CAPS) / 4;
            bits(random.values(words as usize))
        }
        Role::RunningMean
        | Role::RunningVariance
        | Role::Weight
        | Role::Bias
        | Role::GradWeight
        | Role::GradBias => bits(random.values(channels)),
        // A NaN that no kernel writes.
        _ => vec![u32::MAX; 6 * channels],
    }
}

/// Every input with its plan.
fn each(
    plan: impl Fn(Activation<'_>, u64) -> Option<SumsPlan>,
    check: impl Fn(&str, &Shape, &SumsPlan, &dyn Fn(Role) -> Vec<u32>, u64),
) {
    each_input(|what, x, seed| {
        let plan = plan(x, seed).unwrap_or_else(|| panic!("{what}: no plan"));
        check(what, x.shape, &plan, &|role| contents_of(x, role, seed), seed);
    });
}

/// What merges the only rank.
pub fn merge(shape: &Shape) -> Merge {
    let merge = Merge::new(vec![shape.values_per_channel()], shape.channels(), false, &CAPS);
    merge.expect("within the limits")
}

#[test]
fn statistics_of_the_only_tile_of_a_channel_have_the_bits_of_two_kernels() {
    let plan = |x: Activation<'_>, _| SumsPlan::statistics(x, &CAPS).expect("within the limits");
    each(plan, |what, shape, plan, contents, seed| {
        let variance = [RunningVariance::Unbiased, RunningVariance::Biased][seed as usize % 2];
        let momentum = [Momentum::Cumulative, Momentum::Decay(0.875)][seed as usize / 2 % 2];
        let eps = [1e-5, 0.0][seed as usize / 4 % 2];
        let update = RunningUpdate { momentum, variance };
        let entries = merge(shape).statistics(0, eps, (seed % 5 != 0).then_some(update));
        assert_same(what, (shape, plan), &entries, plan.finishing(&entries), contents);
        let update = RunningUpdate { momentum: Momentum::Decay(0.75), variance };
        let vectors = merge(shape).statistics_to_vectors(eps, update);
        assert_same(what, (shape, plan), &vectors, plan.finishing(&vectors), contents);
    });
}

#[test]
fn gradient_sums_of_the_only_tile_of_a_channel_have_the_bits_of_two_kernels() {
    // Without an activation, formed again, a curve, and by a mask.
    for (kind, epilogue) in
        [Epilogue::NONE, Epilogue::RELU, CURVE, Epilogue::RELU].iter().enumerate()
    {
        let plan = |x: Activation<'_>, seed: u64| {
            let mask = if kind == 3 { ApplyPlan::mask_order(x, x.dtype, &CAPS) } else { None };
            let [weight, bias] = [3, 5].map(|period| !seed.is_multiple_of(period));
            let layer = LayerFlags { weight, bias, epilogue: *epilogue, mask };
            SumsPlan::gradient(x, x, &CAPS, layer).expect("within the limits")
        };
        each(plan, |what, shape, plan, contents, seed| {
            let wanted = ParameterGradients {
                weight: seed % 3 != 1,
                bias: seed % 5 != 1,
                of_all: [None, Some(2.0)][seed as usize % 2],
                accumulate: seed.is_multiple_of(3),
            };
            let gradient = merge(shape).gradient(0, seed % 7 != 0, wanted);
            let what = format!("{what}, {epilogue:?}, {wanted:?}");
            assert_same(
                &what,
                (shape, plan),
                &gradient,
                plan.finishing_gradient(&gradient),
                contents,
            );
        });
    }
}

#[test]
fn a_residual_that_forms_v_again_is_a_buffer_too_many() {
    let shape = Shape::new(&[2, 3, 16], ChannelsFirst).expect("a shape");
    let x = Activation { shape: &shape, dtype: DType::F32 };
    let layer = LayerFlags { epilogue: Epilogue::ADD_RELU, ..LayerFlags::default() };
    let plan = SumsPlan::gradient(x, x, &CAPS, layer).expect("within the limits").expect("values");
    let gradient = merge(&shape).gradient(0, true, ParameterGradients::default());
    assert_eq!(plan.finishing_gradient(&gradient), None);
}

#[test]
fn what_has_several_tiles_is_not_finished_by_what_sums_it() {
    let shape = Shape::new(&[2, 3, 16_384], ChannelsFirst).expect("a shape");
    let x = Activation { shape: &shape, dtype: DType::F32 };
    let plan = SumsPlan::statistics(x, &CAPS).expect("within the limits").expect("values");
    let merge = Merge::new(vec![2 * 16_384], 3, false, &CAPS).expect("within the limits");
    assert_eq!(plan.finishing(&merge.statistics(0, 1e-5, None)), None);
}

#[test]
fn many_workgroups_are_finished_where_invocations_that_do_nothing_are_skipped() {
    // Two channels to a workgroup.
    for (channels, expected) in [(32, true), (34, false)] {
        let shape = Shape::new(&[32, channels, 7, 7], ChannelsFirst).expect("a shape");
        let x = Activation { shape: &shape, dtype: DType::F32 };
        let finishes = |caps: &DeviceCaps| {
            let plan = SumsPlan::statistics(x, caps).expect("within the limits").expect("values");
            plan.finishing(&merge(&shape).statistics(0, 1e-5, None)).is_some()
        };
        assert_eq!(finishes(&DeviceCaps::PORTABLE), expected, "{channels}");
        assert!(finishes(&CAPS), "{channels}");
    }
}

#[test]
fn windows_of_one_tile_finish_every_channel_once() {
    let caps = DeviceCaps { max_binding_bytes: 8 << 20, ..CAPS };
    let shape = Shape::new(&[1, 9001, 467], ChannelsFirst).expect("a shape");
    let x = Activation { shape: &shape, dtype: DType::F32 };
    let plan = SumsPlan::statistics(x, &caps).expect("within the limits").expect("values");
    let merge = Merge::new(vec![467], 9001, false, &caps).expect("within the limits");
    let update =
        RunningUpdate { momentum: Momentum::Decay(0.75), variance: RunningVariance::Biased };
    let dispatches = plan.finishing(&merge.statistics(0, 1e-5, Some(update)));
    let dispatches = dispatches.expect("one tile of a channel");
    assert!(dispatches.len() > 1, "one window");
    let mut channels: Vec<u32> = Vec::new();
    for dispatch in &dispatches {
        let TileParams { first_channel, end_channel, count, tracks, tiles, .. } = dispatch.params;
        assert_eq!((count, tracks, tiles), (467.0, 1, 1));
        channels.extend(first_channel..end_channel);
    }
    channels.sort_unstable();
    assert_eq!(channels, (0..9001).collect::<Vec<_>>());
}
