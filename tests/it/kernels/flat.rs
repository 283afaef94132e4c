//! Quads written in the order of addresses have the bits of values written channel by channel.

use std::ops::Range;

use syncbn::DType;
use syncbn::Layout::ChannelsFirst;
use syncbn::low_level::plan::{
    Activation, ApplyPlan, DeviceCaps, Gradient, LayerFlags, MaskOrder, Role,
};
use syncbn::low_level::{Epilogue, Shape};

use super::common::Random;
use super::common::epilogue::problem::{CURVES, EPILOGUES};
use super::common::storage::Types;
use super::dispatch::run;

/// Planes of every remainder of 4 from a single quad on, and beyond a step of 1024 addresses; one
/// channel, whose end meets its own beginning; an end within a workgroup, and one behind many.
pub(super) const SHAPES: [[usize; 3]; 9] = [
    [4, 3, 49],
    [8, 1, 5],
    [64, 5, 13],
    [12, 1000, 7],
    [3, 2, 196],
    [40, 6, 4],
    [12, 2, 1026],
    [4, 5, 4099],
    [90, 2, 23],
];

/// Bindings and dispatches so small that a tensor is many runs.
const SMALL: DeviceCaps =
    DeviceCaps { max_binding_bytes: 24_000, max_workgroups: 2, ..DeviceCaps::PORTABLE };
const PORTABLE: DeviceCaps = DeviceCaps::PORTABLE;
/// Where long planes go by addresses too.
pub(super) const WIDE: DeviceCaps = DeviceCaps { step_lanes: 16, ..PORTABLE };
/// What takes single values, channel by channel.
const SINGLE: DeviceCaps = DeviceCaps { quads: false, ..DeviceCaps::PORTABLE };

/// Planes of f32 that are long beside a line: of whole quads, which a tile takes too, within a
/// stretch of a workgroup and over many.
const LONG: [[usize; 3]; 4] = [[2, 3, 4096], [3, 5, 1100], [2, 1, 70_000], [3, 2, 3136]];

/// What is there before anything is written, which no kernel makes of values below 2: finite in
/// every type.
const UNTOUCHED: u32 = 0x7b01_7b01;

/// Finite values of a type below 2, as they lie in memory.
fn activation(elements: usize, dtype: DType, random: &mut Random) -> Vec<u32> {
    let values: Vec<u32> = random.values(elements).iter().map(|value| value.to_bits()).collect();
    let half = |bits: &u32| match dtype {
        DType::F16 => (bits >> 31 << 15) | (bits >> 13 & 0x03ff) | (bits >> 4 & 7) << 10 | 0x2000,
        _ => bits >> 16,
    };
    match dtype {
        DType::F32 => values,
        _ => values
            .chunks(2)
            .map(|two| two.iter().rev().fold(0, |word, bits| word << 16 | half(bits)))
            .collect(),
    }
}

/// Words of every buffer: what is read differs by its role and the seed, and a channel is not
/// finite.
pub(super) fn contents(
    role: Role,
    shape: &Shape,
    types: Types,
    seed: u64,
    per_channel: usize,
) -> Vec<u32> {
    let elements = shape.elements() as usize;
    let channels = shape.channels();
    let mut random = Random::new(seed + 1000 * role as u64);
    match role {
        Role::Input | Role::Residual => activation(elements, types.x, &mut random),
        Role::GradOutput => activation(elements, types.other, &mut random),
        Role::Weight | Role::Bias => activation(channels, DType::F32, &mut random),
        Role::Centering => {
            let mut of_channel = |channel: usize| {
                let inv_std = if channel == 1 { f32::NAN } else { 1.25 };
                let mut words = activation(per_channel, DType::F32, &mut random);
                words[2..4]
                    .copy_from_slice(&[inv_std.to_bits(), [1.0f32, 0.5][channel % 2].to_bits()]);
                words
            };
            (0..channels).flat_map(&mut of_channel).collect()
        }
        _ => vec![UNTOUCHED; elements],
    }
}

/// Values of a type, and one NaN for all, whose bits a driver may leave as it likes.
pub(super) fn values(words: &[u32], dtype: DType) -> Vec<u32> {
    let one =
        |bits: u32, most: u32, infinity: u32| if bits & most > infinity { most } else { bits };
    let of_word = |&word: &u32| match dtype {
        DType::F32 => vec![one(word, 0x7fff_ffff, 0x7f80_0000)],
        _ => {
            let infinity = if dtype == DType::F16 { 0x7c00 } else { 0x7f80 };
            [word & 0xffff, word >> 16].map(|bits| one(bits, 0x7fff, infinity)).to_vec()
        }
    };
    words.iter().flat_map(of_word).collect()
}

/// What a plan leaves in the tensors that it writes.
fn written<const R: usize>(
    plan: &ApplyPlan,
    of_role: impl Fn(Role) -> Vec<u32>,
    roles: [Role; R],
) -> [Vec<u32>; R] {
    let mut tensors = roles.map(&of_role);
    for dispatch in &plan.dispatches {
        let part = |role: Role| -> Option<Range<usize>> {
            let bytes = dispatch.parts.of_role(role)?;
            Some(bytes.start as usize / 4..bytes.end as usize / 4)
        };
        let found = run(dispatch, &dispatch.variant.source(), |role| match part(role) {
            Some(words) => of_role(role)[words].to_vec(),
            None => of_role(role),
        });
        for (tensor, role) in tensors.iter_mut().zip(roles) {
            let words = part(role).expect("a part of a tensor");
            tensor[words].copy_from_slice(&found[&role]);
        }
    }
    tensors
}

/// Every shape with every pair of storage types; epilogues take turns.
fn each(mut check: impl FnMut(&str, &Shape, Types, LayerFlags, u64)) {
    let epilogues: Vec<Epilogue> = EPILOGUES.into_iter().chain(CURVES).collect();
    let mut seed = 0;
    for dims in SHAPES {
        for types in Types::all() {
            let shape = Shape::new(&dims, ChannelsFirst).expect("a shape");
            let epilogue = epilogues[seed as usize % epilogues.len()];
            let layer =
                LayerFlags { weight: seed % 3 != 0, bias: seed % 5 != 0, epilogue, mask: None };
            check(&format!("{dims:?}, {types:?}, {epilogue:?}"), &shape, types, layer, seed);
            seed += 1;
        }
    }
}

/// Checks the flat plans, of one dispatch and of many, against the one of single values.
fn assert_same_bits<const R: usize>(
    what: &str,
    name: &str,
    plan: impl Fn(&DeviceCaps) -> ApplyPlan,
    of_role: impl Fn(Role) -> Vec<u32>,
    roles: [Role; R],
    dtype: DType,
) {
    let name_of = |plan: &ApplyPlan| plan.dispatches[0].variant.kernel.name();
    let single = plan(&SINGLE);
    assert_ne!(name_of(&single), name, "{what}");
    let expected = written(&single, &of_role, roles);
    for caps in [DeviceCaps::PORTABLE, SMALL] {
        let flat = plan(&caps);
        assert_eq!(name_of(&flat), name, "{what}");
        let found = written(&flat, &of_role, roles);
        for ((found, expected), role) in found.iter().zip(&expected).zip(roles) {
            let [found, expected] = [found, expected].map(|words| values(words, dtype));
            let first = found.iter().zip(&expected).position(|(a, b)| a != b);
            let dispatches = flat.dispatches.len();
            assert_eq!(first, None, "{what}, {role:?}, {dispatches} dispatches: differs there");
        }
    }
}

#[test]
fn outputs_have_the_bits_of_those_of_single_values() {
    each(|what, shape, types, layer, seed| {
        let x = Activation { shape, dtype: types.x };
        let plan = |caps: &DeviceCaps| {
            let plan = ApplyPlan::normalize(x, types.other, caps, layer, false);
            plan.expect("within the limits").expect("values")
        };
        let of_role = |role| contents(role, shape, types, seed, 4);
        assert_same_bits(what, "normalize_flat", plan, of_role, [Role::Output], types.other);
    });
}

#[test]
fn gradients_have_the_bits_of_those_of_single_values() {
    each(|what, shape, types, layer, seed| {
        let [x, g] = [types.x, types.other].map(|dtype| Activation { shape, dtype });
        let wanted =
            |residual| Gradient { batch_statistics: seed % 4 != 3, residual, in_place: false };
        let of_role = |role| contents(role, shape, types, seed, 6);
        let plan = |residual| {
            move |caps: &DeviceCaps| {
                let plan = ApplyPlan::gradient(x, g, caps, layer, wanted(residual));
                plan.expect("within the limits").expect("values")
            }
        };
        let name = "grad_input_flat";
        if seed % 2 == 0 {
            assert_same_bits(what, name, plan(false), of_role, [Role::GradInput], types.x);
        } else {
            let roles = [Role::GradInput, Role::GradResidual];
            assert_same_bits(what, name, plan(true), of_role, roles, types.x);
        }
    });
}

/// Every long shape with every epilogue.
fn each_long(mut check: impl FnMut(&str, &Shape, LayerFlags, u64)) {
    let epilogues = EPILOGUES.into_iter().chain(CURVES).enumerate();
    for (seed, epilogue) in epilogues {
        let dims = LONG[seed % LONG.len()];
        let shape = Shape::new(&dims, ChannelsFirst).expect("a shape");
        let layer = LayerFlags { weight: seed % 3 != 0, bias: seed % 5 != 0, epilogue, mask: None };
        check(&format!("{dims:?}, {epilogue:?}"), &shape, layer, seed as u64);
    }
}

/// Checks the flat plan against that of tiles of quads.
fn assert_as_by_tiles(
    what: &str,
    [flat, tiles]: [ApplyPlan; 2],
    of_role: impl Fn(Role) -> Vec<u32>,
    role: Role,
) {
    let names = [&flat, &tiles].map(|plan| plan.dispatches[0].variant.kernel.name());
    assert!(names[0].ends_with("_flat") && !names[1].ends_with("_flat"), "{what}: {names:?}");
    let [found, expected] = [flat, tiles].map(|plan| written(&plan, &of_role, [role]));
    let [found, expected] = [found, expected].map(|[words]| values(&words, DType::F32));
    assert!(!found.contains(&UNTOUCHED), "{what}: not all is written");
    let first = found.iter().zip(&expected).position(|(a, b)| a != b);
    assert_eq!(first, None, "{what}, {role:?}: differs there");
}

#[test]
fn long_planes_of_f32_have_the_bits_of_tiles_of_quads() {
    let types = Types { x: DType::F32, other: DType::F32 };
    each_long(|what, shape, layer, seed| {
        let x = Activation { shape, dtype: DType::F32 };
        let normalize = |caps: DeviceCaps| {
            let plan = ApplyPlan::normalize(x, DType::F32, &caps, layer, false);
            plan.expect("within the limits").expect("values")
        };
        let of_role = |role| contents(role, shape, types, seed, 4);
        assert_as_by_tiles(what, [WIDE, PORTABLE].map(normalize), of_role, Role::Output);
        let wanted = Gradient { batch_statistics: seed % 4 != 3, ..Gradient::default() };
        let gradient = |caps: DeviceCaps| {
            let plan = ApplyPlan::gradient(x, x, &caps, layer, wanted);
            plan.expect("within the limits").expect("values")
        };
        let of_role = |role| contents(role, shape, types, seed, 6);
        assert_as_by_tiles(what, [WIDE, PORTABLE].map(gradient), of_role, Role::GradInput);
    });
}

/// The kernel that normalizes a shape.
fn kernel_of(shape: &Shape, layer: LayerFlags) -> &'static str {
    kernel_on(&PORTABLE, shape, DType::F32, layer)
}

fn kernel_on(caps: &DeviceCaps, shape: &Shape, dtype: DType, layer: LayerFlags) -> &'static str {
    let plan = ApplyPlan::normalize(Activation { shape, dtype }, dtype, caps, layer, false);
    plan.expect("within the limits").expect("values").dispatches[0].variant.kernel.name()
}

#[test]
fn what_is_long_padded_or_no_multiple_of_four_is_written_by_tiles() {
    let shape = |dims: &[usize]| Shape::new(dims, ChannelsFirst).expect("a shape");
    let plain = LayerFlags::default();
    for dims in [[32, 2048, 7, 7], [32, 1024, 14, 14], [32, 512, 28, 28], [4, 3, 225, 225]] {
        assert_eq!(kernel_of(&shape(&dims), plain), "normalize_flat", "{dims:?}");
    }
    for dims in [&[32, 256, 56, 56][..], &[3, 3, 7, 7], &[32, 8, 3], &[32, 8]] {
        assert_eq!(kernel_of(&shape(dims), plain), "normalize", "{dims:?}");
    }
    // Where many invocations run in step, of f32 alone.
    let long = shape(&[32, 256, 56, 56]);
    assert_eq!(kernel_on(&WIDE, &long, DType::F32, plain), "normalize_flat");
    assert_eq!(kernel_on(&WIDE, &long, DType::F16, plain), "normalize");
    let short = shape(&[32, 8, 7]);
    let x = Activation { shape: &short, dtype: DType::F32 };
    let mask = ApplyPlan::mask_order(x, DType::F32, &DeviceCaps::PORTABLE);
    assert_eq!(mask, Some(MaskOrder::ByAddress));
    let masked = |mask| LayerFlags { epilogue: Epilogue::RELU, mask: Some(mask), ..plain };
    assert_eq!(kernel_of(&short, masked(MaskOrder::ByAddress)), "normalize_flat");
    assert_eq!(kernel_of(&short, masked(MaskOrder::ByInvocation)), "normalize");
    // A mask of short planes of whole quads lies so where many invocations run in step, and one of
    // long planes never does.
    let order_of = |shape: &Shape, caps: &DeviceCaps| {
        ApplyPlan::mask_order(Activation { shape, dtype: DType::F32 }, DType::F32, caps)
    };
    let whole = shape(&[32, 1024, 14, 14]);
    assert_eq!(order_of(&whole, &PORTABLE), Some(MaskOrder::ByInvocation));
    assert_eq!(order_of(&whole, &WIDE), Some(MaskOrder::ByAddress));
    assert_eq!(order_of(&long, &WIDE), Some(MaskOrder::ByInvocation));
    assert_eq!(kernel_on(&WIDE, &long, DType::F32, masked(MaskOrder::ByInvocation)), "normalize");
    assert_eq!(kernel_of(&short.with_lengths(&[5; 32]), plain), "normalize");
    assert_eq!(
        kernel_of(
            &Shape::new(&[32, 7, 7, 8], syncbn::Layout::ChannelsLast).expect("a shape"),
            plain
        ),
        "normalize"
    );
}
