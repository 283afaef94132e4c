//! A mask in the order of addresses has the bits that its formula says, by every kernel that writes
//! it, and backward reads them as what forward saw.

use std::collections::HashMap;

use syncbn::DType;
use syncbn::Layout::ChannelsFirst;
use syncbn::low_level::plan::{
    Activation, ApplyPlan, DeviceCaps, Gradient, LayerFlags, MaskOrder, Role,
};
use syncbn::low_level::{Epilogue, Shape};

use super::common::storage::Types;
use super::dispatch::run;
use super::flat::{SHAPES, WIDE, contents, values};
use super::mask_words::mask_of;

/// Bindings so small that a mask is of several runs, each of whole groups of its words, where many
/// invocations run in step: short planes of whole quads have such a mask there only.
const SMALL: DeviceCaps = DeviceCaps { max_binding_bytes: 40_000, ..WIDE };
/// What the kernels are given for a tensor of a role: finite centers, because of a NaN a mask says
/// nothing.
struct Given<'a> {
    shape: &'a Shape,
    types: Types,
    seed: u64,
    /// Whether it is for kernels of backward.
    is_backward: bool,
    mask: Vec<u32>,
}

impl Given<'_> {
    fn of_role(&self, role: Role) -> Vec<u32> {
        let Self { shape, types, seed, is_backward, ref mask } = *self;
        let words = contents(role, shape, types, seed, 4);
        match role {
            Role::Mask => mask.clone(),
            // Backward's begin as those of forward, and v is the same.
            Role::Centering => {
                let mean_and_projection = [0.25f32, 0.5].map(f32::to_bits);
                let behind = if is_backward { &mean_and_projection[..] } else { &[] };
                let of_channel = |center: &[u32]| {
                    let [pivot, rest, _, unit] = [0, 1, 2, 3].map(|word| center[word]);
                    [&[pivot, rest, 1.25f32.to_bits(), unit][..], behind].concat()
                };
                words.chunks(4).flat_map(of_channel).collect()
            }
            _ => words,
        }
    }

    /// What the dispatches of a plan leave in these tensors, one after the other.
    fn written<const R: usize>(&self, plan: &ApplyPlan, roles: [Role; R]) -> [Vec<u32>; R] {
        let mut tensors: HashMap<Role, Vec<u32>> =
            roles.iter().map(|&role| (role, self.of_role(role))).collect();
        for dispatch in &plan.dispatches {
            let part = |role: Role, words: usize| match dispatch.parts.of_role(role) {
                Some(bytes) => bytes.start as usize / 4..bytes.end as usize / 4,
                None => 0..words,
            };
            let found = run(dispatch, &dispatch.variant.source(), |role| {
                let words = tensors.get(&role).cloned().unwrap_or_else(|| self.of_role(role));
                words[part(role, words.len())].to_vec()
            });
            for (role, words) in &mut tensors {
                let part = part(*role, words.len());
                words[part].copy_from_slice(&found[role]);
            }
        }
        roles.map(|role| tensors[&role].clone())
    }
}

/// Which values of y are above 0: those of which v is, where a slope below 0 keeps the sign or
/// makes 0 of it.
fn active(y: &[u32], dtype: DType) -> Vec<bool> {
    let sign = if dtype == DType::F32 { 1 << 31 } else { 1 << 15 };
    values(y, dtype).iter().map(|&bits| bits != 0 && bits & sign == 0).collect()
}

/// Checks a shape in these types; returns how many of its plans had several dispatches.
fn check(shape: &Shape, types: Types, kernel: &str, seed: u64) -> usize {
    let [x, g] = [types.x, types.other].map(|dtype| Activation { shape, dtype });
    let what = format!("{:?}, {types:?}, {kernel}", shape.dims());
    let epilogue =
        if seed.is_multiple_of(2) { Epilogue::ADD_RELU } else { Epilogue::leaky_relu(0.25) };
    let epilogue = epilogue.after_residual();
    let plain = LayerFlags { weight: true, bias: true, epilogue, mask: None };
    let masked = LayerFlags { mask: Some(MaskOrder::ByAddress), ..plain };
    let forward = |caps: &DeviceCaps, layer| {
        let plan = ApplyPlan::normalize(x, types.other, caps, layer, false);
        plan.expect("within the limits").expect("values")
    };
    let given = Given { shape, types, seed, is_backward: false, mask: Vec::new() };
    let [y] = given.written(&forward(&WIDE, plain), [Role::Output]);
    let elements = shape.elements() as usize;
    let expected = mask_of(&active(&y, types.other)[..elements]);
    let mut runs = 0;
    // A tile of single values of f32 reaches over more than a small binding.
    let by_tiles = kernel == "normalize_words" && types.x == DType::F32;
    for caps in [&WIDE, &SMALL].into_iter().take(if by_tiles { 1 } else { 2 }) {
        let plan = forward(caps, masked);
        assert_eq!(plan.dispatches[0].variant.kernel.name(), kernel, "{what}");
        runs += usize::from(plan.dispatches.len() > 1);
        let given = Given { mask: vec![0; expected.len()], ..given };
        let [found_y, mut mask] = given.written(&plan, [Role::Output, Role::Mask]);
        assert!(found_y == y, "{what}: y differs");
        clear_behind(&mut mask, elements);
        assert!(mask == expected, "{what}: the mask differs");

        let wanted = Gradient { batch_statistics: true, residual: true, in_place: false };
        let given = Given { mask: expected.clone(), is_backward: true, ..given };
        let [by_mask, again] = [masked, plain].map(|layer| {
            let plan = ApplyPlan::gradient(x, g, caps, layer, wanted);
            let plan = plan.expect("within the limits").expect("values");
            given.written(&plan, [Role::GradInput, Role::GradResidual])
        });
        assert!(by_mask == again, "{what}: gradients differ");
    }
    runs
}

/// Clears the bits behind the last value, which say nothing.
fn clear_behind(mask: &mut [u32], elements: usize) {
    let all = mask_of(&vec![true; elements]);
    mask.iter_mut().zip(all).for_each(|(word, bits)| *word &= bits);
}

#[test]
fn quads_keep_a_mask_that_gradients_follow() {
    let mut runs = 0;
    let mut seed = 100;
    for dims in SHAPES {
        for types in Types::all() {
            let shape = Shape::new(&dims, ChannelsFirst).expect("a shape");
            runs += check(&shape, types, "normalize_flat", seed);
            seed += 1;
        }
    }
    assert!(runs > 10, "only {runs} plans had several dispatches");
}

#[test]
fn padded_samples_of_one_value_have_runs_of_whole_groups_of_a_mask() {
    let lengths: Vec<u32> = (0..9_000).map(|sample| u32::from(sample % 7 != 0)).collect();
    let shape = Shape::new(&[9_000, 1, 1], ChannelsFirst).expect("a shape");
    let shape = shape.with_lengths(&lengths);
    let x = Activation { shape: &shape, dtype: DType::F16 };
    let mask = ApplyPlan::mask_order(x, DType::F16, &WIDE);
    assert_eq!(mask, Some(MaskOrder::ByAddress));
    let layer = LayerFlags { epilogue: Epilogue::ADD_RELU, mask, ..LayerFlags::default() };
    let plan = ApplyPlan::normalize(x, DType::F16, &WIDE, layer, false);
    let plan = plan.expect("within the limits").expect("values");
    let mut starts: Vec<u64> = plan.dispatches.iter().map(|d| d.parts.output.start / 2).collect();
    starts.sort_unstable();
    assert_eq!(starts, [0, 4096, 8192]);
    // The lengths of its first sample are the first that are bound.
    assert!(plan.dispatches.iter().all(|dispatch| dispatch.params.first_length == 0));
}

#[test]
fn words_of_16_bits_keep_a_mask_that_gradients_follow() {
    let mut runs = 0;
    let mut seed = 300;
    // Elements no multiple of four, odd, fewer than four; several groups of words.
    for dims in [[3, 7, 1_301], [5, 3, 7], [3, 3, 2], [1, 1, 1], [23, 1_201, 1]] {
        for types in Types::all().into_iter().filter(|types| types.other != DType::F32) {
            let shape = Shape::new(&dims, ChannelsFirst).expect("a shape");
            runs += check(&shape, types, "normalize_words", seed);
            seed += 1;
        }
    }
    assert!(runs >= 4, "only {runs} plans had several dispatches");
}
