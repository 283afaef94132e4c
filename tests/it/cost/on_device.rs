//! Passes of a `BatchNorm`: one submission each, or none where the application submits them.

use syncbn::config::Activation;
use syncbn::{
    Backward, BatchNorm, BatchNormConfig, DType, Device, DoubleBackward, Forward, Layout, Saved,
    Tensor, Workspace,
};

use super::counter::{Cost, counting, spent};
use super::{DIMS, Tensors, noop, only};

/// Scratch for the statistics that normalized, and bindings for the only kernel; backward needs no
/// scratch then. What was saved is recycled when it is dropped.
const FORWARD_LOCKS: u64 = 1 + 1;
const BACKWARD_LOCKS: u64 = 1;
const DROPPED_LOCKS: u64 = 1;
/// Where another kernel writes the outputs: its bindings.
const OUTPUT_LOCKS: u64 = 1;
/// Where another kernel writes gradients: its bindings, and scratch for what it needs, which is
/// recycled.
const INPUT_LOCKS: u64 = 1 + 2;
/// Where backward forms v again with a residual: scratch for the sums, which is recycled, and the
/// kernel that merges them.
const MERGE_LOCKS: u64 = 3;

/// A layer with the tensors of a step.
struct Step {
    bn: BatchNorm,
    tensors: Tensors,
}

impl Step {
    fn new(config: BatchNormConfig, device: &Device) -> Self {
        let tensors = Tensors::new(&config, device, 1);
        Self { bn: BatchNorm::new(config, device).unwrap(), tensors }
    }

    fn plain(device: &Device) -> Self {
        Self::new(BatchNormConfig::torch(DIMS[1]), device)
    }
}

/// What the third of three passes spends.
fn third(mut pass: impl FnMut()) -> Cost {
    pass();
    pass();
    spent();
    pass();
    spent()
}

#[test]
fn a_repeated_call_makes_nothing_and_submits_once() {
    let _counting = counting();
    let Step { bn, mut tensors } = Step::plain(&noop());
    let mut step = || {
        spent();
        let saved = bn.forward_train(tensors.forward()).unwrap().saved;
        let forward = spent();
        bn.backward(&saved, Backward::of(&tensors.x, &tensors.dy).input_gradient(&mut tensors.dx))
            .unwrap();
        let backward = spent();
        drop(saved);
        [forward, backward, spent()]
    };
    let [forward, backward, _] = step();
    assert_eq!((forward.bind_groups, backward.bind_groups), (1, 1));
    let expected = [only(1, FORWARD_LOCKS), only(1, BACKWARD_LOCKS), only(0, DROPPED_LOCKS)];
    assert_eq!(step(), expected);
    assert_eq!(step(), expected);
}

#[test]
fn all_that_may_be_asked_of_a_call_costs_what_a_plain_one_costs() {
    let _counting = counting();
    let Step { bn, mut tensors } = Step::plain(&noop());
    let forward = only(1, FORWARD_LOCKS + DROPPED_LOCKS);
    assert_eq!(third(|| drop(bn.forward_train(tensors.forward().untracked()).unwrap())), forward);
    assert_eq!(
        third(|| drop(bn.forward_train(tensors.in_place()).unwrap())),
        only(1, FORWARD_LOCKS + OUTPUT_LOCKS + DROPPED_LOCKS)
    );
    // Without sums: what normalizes, two kernels, and it is recycled.
    assert_eq!(
        third(|| drop(bn.forward_eval(tensors.forward()).unwrap())),
        only(1, 1 + 2 + DROPPED_LOCKS)
    );
    let saved = bn.forward_train(tensors.forward()).unwrap().saved;
    let backward = only(1, BACKWARD_LOCKS);
    assert_eq!(third(|| drop(bn.backward(&saved, tensors.backward(&saved)).unwrap())), backward);
    assert_eq!(
        third(|| drop(bn.backward(&saved, tensors.backward(&saved).accumulate()).unwrap())),
        backward
    );
    assert_eq!(
        third(|| drop(bn.backward(&saved, tensors.backward_in_place(&saved)).unwrap())),
        only(1, BACKWARD_LOCKS + INPUT_LOCKS)
    );
}

#[test]
fn a_prepared_call_compiles_nothing() {
    let _counting = counting();
    let Step { bn, mut tensors } = Step::plain(&noop());
    bn.prepare(&DIMS, Layout::ChannelsFirst, DType::F32).unwrap();
    // What merges ranks is prepared for their sums and for the tiles of one; what sums a single
    // tile besides, with and without what writes.
    assert_eq!(spent().pipelines, 5 + 1 + 2 * 2 + 2 * 2);
    let saved = bn.forward_train(tensors.forward()).unwrap().saved;
    bn.backward(&saved, Backward::of(&tensors.x, &tensors.dy)).unwrap();
    bn.backward(&saved, tensors.backward(&saved).accumulate()).unwrap();
    let saved = bn.forward_eval(tensors.forward()).unwrap().saved;
    bn.backward(&saved, Backward::of(&tensors.x, &tensors.dy)).unwrap();
    assert_eq!(spent().pipelines, 0);
    let plain = BatchNormConfig::torch(DIMS[1]).with_affine(false);
    let Step { bn: plain, mut tensors } = Step::new(plain, bn.device());
    plain.prepare(&DIMS, Layout::ChannelsFirst, DType::F32).unwrap();
    spent();
    let saved = plain.forward_train(tensors.forward()).unwrap().saved;
    let request = Backward::of(&tensors.x, &tensors.dy).input_gradient(&mut tensors.dx);
    plain.backward(&saved, request).unwrap();
    assert_eq!(spent().pipelines, 0, "of a layer without weight and bias");
    bn.prepare(&TILED, Layout::ChannelsFirst, DType::F32).unwrap();
    assert!(spent().pipelines > 0, "what combines tiles, for several ranks");
    assert_eq!(first_step(&bn, &[&TILED]).map(|cost| cost.pipelines), [0; 2]);
}

/// Two layers, the second of which reads what the first writes, and an application that submits all
/// passes of a step at once.
struct Net {
    layers: [Step; 2],
    device: Device,
    workspace: Workspace,
}

impl Net {
    fn new(config: &BatchNormConfig) -> Self {
        let device = noop();
        let layers = [0, 1].map(|_| Step::new(config.clone(), &device));
        let workspace = Workspace::new(&device);
        Self { layers, device, workspace }
    }

    /// Forward and backward of both in one encoder, and what it spent.
    fn step(&mut self) -> ([Saved; 2], Cost) {
        let Self { layers: [first, second], device, workspace } = self;
        let (raw, queue) = device.wgpu().unwrap();
        spent();
        let mut encoder = raw.create_command_encoder(&Default::default());
        let request = first.tensors.forward().encode(&mut encoder, workspace);
        let of_first = first.bn.forward_train(request).unwrap().saved;
        std::mem::swap(&mut first.tensors.y, &mut second.tensors.x);
        let request = second.tensors.forward().encode(&mut encoder, workspace);
        let of_second = second.bn.forward_train(request).unwrap().saved;
        let request = second.tensors.backward(&of_second).encode(&mut encoder, workspace);
        second.bn.backward(&of_second, request).unwrap();
        std::mem::swap(&mut first.tensors.y, &mut second.tensors.x);
        std::mem::swap(&mut first.tensors.dy, &mut second.tensors.dx);
        let request =
            first.tensors.backward(&of_first).accumulate().encode(&mut encoder, workspace);
        first.bn.backward(&of_first, request).unwrap();
        std::mem::swap(&mut first.tensors.dy, &mut second.tensors.dx);
        queue.submit([encoder.finish()]);
        ([of_first, of_second], spent())
    }
}

/// What a configuration costs beyond the plain one.
struct Extra {
    config: BatchNormConfig,
    /// Scratch for a mask that is kept.
    mask: u64,
    /// Locks of other kernels in forward and in backward.
    kernels: [u64; 2],
    /// Dispatches of a step.
    dispatches: u64,
}

impl Extra {
    /// What a step of two layers costs.
    fn step(&self) -> Cost {
        let [forward, backward] = self.kernels;
        only(0, 2 * (FORWARD_LOCKS + self.mask + forward + BACKWARD_LOCKS + backward))
    }
}

fn configs() -> [Extra; 3] {
    let plain = BatchNormConfig::torch(DIMS[1]);
    let adds = plain.clone().with_residual(true).with_activation(Activation::Relu);
    let masked = adds.clone().with_activation_mask(true);
    let merged = [OUTPUT_LOCKS, INPUT_LOCKS + MERGE_LOCKS];
    [
        Extra { config: plain, mask: 0, kernels: [0; 2], dispatches: 2 },
        Extra { config: adds, mask: 0, kernels: merged, dispatches: 5 },
        Extra { config: masked, mask: 1, kernels: [OUTPUT_LOCKS, INPUT_LOCKS], dispatches: 4 },
    ]
}

#[test]
fn five_encoded_steps_make_nothing_from_the_second_on() {
    let _counting = counting();
    for extra in configs() {
        let Extra { config, mask, dispatches, .. } = &extra;
        let mut net = Net::new(config);
        for step in 0..5 {
            let (saved, cost) = net.step();
            drop(saved);
            let dropped = spent();
            assert_eq!(dropped, only(0, 2 * (DROPPED_LOCKS + mask)), "{config:?}, step {step}");
            if step == 0 {
                // That the counts below can fail.
                assert_eq!(cost.bind_groups, 2 * dispatches, "{config:?}");
                assert!(cost.allocations > 0 && cost.pipelines > 0, "{config:?}: {cost:?}");
            } else {
                assert_eq!(cost, extra.step(), "{config:?}, step {step}");
            }
        }
    }
}

#[test]
fn what_is_saved_may_outlive_the_step_that_follows() {
    let _counting = counting();
    for extra in configs() {
        let mut net = Net::new(&extra.config);
        let mut kept = None;
        for step in 0..5 {
            let (saved, cost) = net.step();
            // What the step before has saved is recycled now.
            drop(kept.replace(saved));
            if step > 1 {
                assert_eq!(cost, extra.step(), "{:?}, step {step}", extra.config);
            }
        }
    }
}

#[test]
fn a_workspace_that_is_made_anew_is_noticed() {
    let _counting = counting();
    let mut net = Net::new(&configs()[0].config);
    drop(net.step());
    net.workspace = Workspace::new(&net.device);
    let (_saved, cost) = net.step();
    assert!(cost.allocations > 0 && cost.bind_groups > 0, "{cost:?}");
}

#[test]
fn encoded_passes_that_evaluate_write_over_their_input_or_follow_nothing_make_nothing() {
    let _counting = counting();
    let device = noop();
    let Step { bn, mut tensors } = Step::plain(&device);
    let mut workspace = Workspace::new(&device);
    let (raw, _) = device.wgpu().unwrap();
    let mut encoder = raw.create_command_encoder(&Default::default());
    let mut pass =
        |request: &mut dyn FnMut(
            &mut Tensors,
            &mut wgpu::CommandEncoder,
            &mut Workspace,
        ) -> Saved| { third(|| drop(request(&mut tensors, &mut encoder, &mut workspace))) };
    let forward = only(0, FORWARD_LOCKS + DROPPED_LOCKS);
    let spent = pass(&mut |tensors, encoder, workspace| {
        bn.forward_train(tensors.forward().untracked().encode(encoder, workspace)).unwrap().saved
    });
    assert_eq!(spent, forward);
    let spent = pass(&mut |tensors, encoder, workspace| {
        bn.forward_train(tensors.in_place().encode(encoder, workspace)).unwrap().saved
    });
    assert_eq!(spent, only(0, FORWARD_LOCKS + OUTPUT_LOCKS + DROPPED_LOCKS));
    let spent = pass(&mut |tensors, encoder, workspace| {
        bn.forward_eval(tensors.forward().encode(encoder, workspace)).unwrap().saved
    });
    assert_eq!(spent, only(0, 1 + 2 + DROPPED_LOCKS));
    let spent = pass(&mut |tensors, encoder, workspace| {
        let saved = bn.forward_train(tensors.forward().encode(encoder, workspace)).unwrap().saved;
        bn.backward(&saved, tensors.backward_in_place(&saved).encode(encoder, workspace)).unwrap();
        saved
    });
    assert_eq!(spent, only(0, FORWARD_LOCKS + BACKWARD_LOCKS + INPUT_LOCKS + DROPPED_LOCKS));
}

#[test]
fn an_output_that_is_made_in_every_encoded_call_is_noticed() {
    let _counting = counting();
    let device = noop();
    let Step { bn, tensors } = Step::plain(&device);
    let mut workspace = Workspace::new(&device);
    let mut encoder = device.wgpu().unwrap().0.create_command_encoder(&Default::default());
    let mut forward = || -> Vec<Tensor> {
        bn.forward_train(Forward::of(&tensors.x).encode(&mut encoder, &mut workspace))
            .unwrap()
            .output
    };
    let made = third(|| drop(forward()));
    assert_eq!(
        (made.allocations, made.bind_groups),
        (2, 1),
        "the output, and the parameters bound beside it"
    );
}

#[test]
fn double_backward_is_one_submission() {
    let _counting = counting();
    let Step { bn, mut tensors } = Step::plain(&noop());
    let saved = bn.forward_train(tensors.forward()).unwrap().saved;
    let again = third(|| {
        let request = DoubleBackward::of(&tensors.x, &tensors.dy).input_cotangent(&tensors.dy);
        let request = request.weight_cotangent(&tensors.dw).bias_cotangent(&tensors.db);
        drop(bn.double_backward(&saved, request).unwrap());
    });
    assert_eq!((again.submissions, again.pipelines), (1, 0));
    // Of the results alone: two kernels write one each, and the merge the third.
    assert_eq!(again.bind_groups, 3);
}

/// A channel of several tiles.
const TILED: [usize; 4] = [64, 16, 32, 32];

/// What forward and backward of ranks of these shapes spend, on tensors of their own.
fn first_step(bn: &BatchNorm, dims: &[&[usize]]) -> [Cost; 2] {
    let zeros =
        || -> Vec<Tensor> { dims.iter().map(|dims| bn.device().zeros(dims).unwrap()).collect() };
    let x = zeros();
    let dy = zeros();
    spent();
    let saved = bn.forward_train(&x).unwrap().saved;
    let forward = spent();
    bn.backward(&saved, Backward::of(&x, &dy)).unwrap();
    [forward, spent()]
}

#[test]
fn the_tiles_of_one_rank_take_three_dispatches_and_a_single_tile_one() {
    let _counting = counting();
    // A group is bound for each dispatch.
    let dispatches = |dims: &[&[usize]]| {
        let bn = BatchNorm::new(BatchNormConfig::torch(DIMS[1]), &noop()).unwrap();
        first_step(&bn, dims).map(|cost| cost.bind_groups)
    };
    let none = [0, 16, 32, 32];
    assert_eq!(dispatches(&[&DIMS]), [1; 2]);
    assert_eq!(dispatches(&[&TILED]), [3; 2]);
    // What merges two ranks does not combine their tiles; in backward it runs for each.
    assert_eq!(dispatches(&[&TILED, &none]), [4, 5]);
    assert_eq!(dispatches(&[&TILED, &TILED]), [2 * 3 + 1, 2 * 3 + 2]);
}
