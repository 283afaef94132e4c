//! What a call costs beyond its kernels: memory, bind groups, pipelines, submissions and locks,
//! counted exactly, on a tiny tensor, where they are all that a call costs.
//!
//! The device is wgpu's own that runs nothing: a result is there as soon as it is asked for, so
//! every count is the same in every run. The crate tells of each by a `tracing` event, see
//! [`counter`]. This file counts the passes of a `SyncBatchNorm`, `steps` their steps and what may
//! be asked of a pass, `on_device` the passes of a `BatchNorm`.

mod on_device;
mod steps;

use crate::common::cost as counter;
use crate::common::{self, noop};

use counter::{Cost, counting, spent};
use pollster::block_on;
use syncbn::config::Activation;
use syncbn::low_level::Epilogue;
use syncbn::{
    Backward, BatchNormConfig, DType, Device, Forward, Layout, Saved, SyncBatchNorm, Tensor, joint,
};

const DIMS: [usize; 4] = [8, 16, 8, 8];

/// The tensors of a step on some ranks of one device.
struct Tensors {
    x: Vec<Tensor>,
    residual: Vec<Tensor>,
    y: Vec<Tensor>,
    dy: Vec<Tensor>,
    dx: Vec<Tensor>,
    dr: Vec<Tensor>,
    dw: Vec<Tensor>,
    db: Vec<Tensor>,
    adds_residual: bool,
}

impl Tensors {
    fn new(config: &BatchNormConfig, device: &Device, ranks: usize) -> Self {
        let zeros = |dims: &[usize]| -> Vec<Tensor> {
            (0..ranks).map(|_| device.zeros(dims).unwrap()).collect()
        };
        let [x, residual, y, dy, dx, dr] = [0; 6].map(|_| zeros(&DIMS));
        let [dw, db] = [0; 2].map(|_| zeros(&DIMS[1..2]));
        Self { x, residual, y, dy, dx, dr, dw, db, adds_residual: config.residual }
    }

    fn forward(&mut self) -> Forward<'_, ()> {
        let request = Forward::of(&self.x).write_to(&mut self.y);
        if self.adds_residual { request.residual(&self.residual) } else { request }
    }

    fn in_place(&mut self) -> Forward<'_, ()> {
        let request = Forward::in_place(&mut self.x);
        if self.adds_residual { request.residual(&self.residual) } else { request }
    }

    /// Those of weight and bias alone, of a layer whose mask or activation needs no residual.
    fn of_parameters(&mut self) -> Backward<'_, ()> {
        Backward::of(&self.x, &self.dy).weight_gradient(&mut self.dw).bias_gradient(&mut self.db)
    }

    /// Those of x and of the residual alone.
    fn of_activations(&mut self, saved: &Saved) -> Backward<'_, ()> {
        let request = Backward::of(&self.x, &self.dy).input_gradient(&mut self.dx);
        let request = request.residual_gradient(self.adds_residual.then_some(&mut self.dr));
        if saved.needs_residual() { request.residual(&self.residual) } else { request }
    }

    /// The gradient of x over that of y, and all others.
    fn backward_in_place(&mut self, saved: &Saved) -> Backward<'_, ()> {
        let request = Backward::in_place(&self.x, &mut self.dy);
        let request = request.weight_gradient(&mut self.dw).bias_gradient(&mut self.db);
        let request = request.residual_gradient(self.adds_residual.then_some(&mut self.dr));
        if saved.needs_residual() { request.residual(&self.residual) } else { request }
    }

    /// Every gradient that there is.
    fn backward(&mut self, saved: &Saved) -> Backward<'_, ()> {
        let request = Backward::of(&self.x, &self.dy).input_gradient(&mut self.dx);
        let request = request.weight_gradient(&mut self.dw).bias_gradient(&mut self.db);
        let request = request.residual_gradient(self.adds_residual.then_some(&mut self.dr));
        if saved.needs_residual() { request.residual(&self.residual) } else { request }
    }
}

/// A layer on some ranks of one device, with the tensors of a step.
struct Step {
    bn: SyncBatchNorm,
    tensors: Tensors,
}

impl Step {
    fn new(config: BatchNormConfig, device: &Device, ranks: usize) -> Self {
        let tensors = Tensors::new(&config, device, ranks);
        Self { bn: SyncBatchNorm::new(config, vec![device.clone(); ranks]).unwrap(), tensors }
    }

    fn plain(device: &Device) -> Self {
        Self::new(BatchNormConfig::torch(DIMS[1]), device, 1)
    }

    fn forward(&mut self) -> Saved {
        block_on(self.bn.forward_train(self.tensors.forward())).unwrap().saved
    }

    fn backward(&mut self, saved: &Saved) {
        block_on(self.bn.backward(saved, self.tensors.backward(saved))).unwrap();
    }

    /// What forward and backward spend after the first of each.
    fn repeated(&mut self) -> [Cost; 2] {
        let saved = self.forward();
        self.backward(&saved);
        drop(saved);
        spent();
        let saved = self.forward();
        let forward = spent();
        self.backward(&saved);
        [forward, spent()]
    }
}

/// Submissions and locks, and nothing else.
fn only(submissions: u64, locks: u64) -> Cost {
    Cost { submissions, locks, ..Cost::default() }
}

/// A call takes the lock of the scratch pool for the sums, that of the bindings for the kernel,
/// that of the staging pool, and that of the answer; then those of both pools again. Normalizing
/// takes three: scratch, bindings, scratch. Backward sends numbers before its sums too, which are
/// scratch once more.
const FORWARD: (u64, u64) = (2, 9);
const BACKWARD: (u64, u64) = (2, 11);

#[test]
fn a_repeated_call_makes_nothing_on_its_device_and_submits_twice() {
    let _counting = counting();
    let device = noop();
    let expected = [only(FORWARD.0, FORWARD.1), only(BACKWARD.0, BACKWARD.1)];
    assert_eq!(Step::plain(&device).repeated(), expected);
    for epilogue in [Epilogue::RELU, Epilogue::ADD, Epilogue::ADD_RELU] {
        let config = BatchNormConfig::torch(DIMS[1])
            .with_residual(epilogue.residual)
            .with_activation(epilogue.activation);
        assert_eq!(Step::new(config, &device, 1).repeated(), expected, "{epilogue:?}");
    }
    // A mask is scratch until its context is dropped: one lock to take it.
    let config = BatchNormConfig::torch(DIMS[1])
        .with_residual(true)
        .with_activation(Activation::Relu)
        .with_activation_mask(true);
    let masked = Step::new(config, &device, 1).repeated();
    assert_eq!(masked, [only(FORWARD.0, FORWARD.1 + 1), only(BACKWARD.0, BACKWARD.1)]);
    // Ranks of one device take turns with its scratch.
    let three = |(submissions, locks): (u64, u64)| only(3 * submissions, 3 * locks);
    let config = BatchNormConfig::torch(DIMS[1]);
    assert_eq!(Step::new(config, &device, 3).repeated(), [three(FORWARD), three(BACKWARD)]);
}

#[test]
fn layers_that_take_turns_keep_what_they_have() {
    let _counting = counting();
    let device = noop();
    let mut steps: Vec<Step> = (0..20).map(|_| Step::plain(&device)).collect();
    let mut round = || {
        let saved: Vec<Saved> = steps.iter_mut().map(Step::forward).collect();
        steps.iter_mut().zip(&saved).rev().for_each(|(step, saved)| step.backward(saved));
        spent()
    };
    assert_eq!(round().bind_groups, 20 * 4, "two for forward, two for backward of each layer");
    assert_eq!(round(), only(20 * 4, 20 * (FORWARD.1 + BACKWARD.1)));
}

#[test]
fn several_layers_at_once_submit_as_often_as_one() {
    let _counting = counting();
    let device = noop();
    let mut steps: Vec<Step> = (0..3).map(|_| Step::plain(&device)).collect();
    let mut forward = || {
        let calls = steps.iter_mut().map(|step| (&step.bn, step.tensors.forward()));
        let saved: Vec<Saved> = block_on(joint::forward_train(calls))
            .unwrap()
            .into_iter()
            .map(|forward| forward.saved)
            .collect();
        (saved, spent())
    };
    forward();
    // Of the sums' nine but the three of normalizing, the bindings' is taken for each layer; of
    // normalizing, all are.
    let (saved, spent_forward) = forward();
    assert_eq!(spent_forward, only(FORWARD.0, 5 + 3 + 3 * 3));
    let mut backward = || {
        let calls = steps.iter_mut().zip(&saved);
        let calls = calls.map(|(step, saved)| (&step.bn, saved, step.tensors.backward(saved)));
        block_on(joint::backward(calls)).unwrap();
        spent()
    };
    backward();
    // As forward, with the scratch of what is sent before the sums for each layer, taken and given
    // back.
    assert_eq!(backward(), only(BACKWARD.0, 5 + 3 + 3 * 3 + 2 * 3));
}

#[test]
fn a_first_call_makes_what_later_ones_use_unless_it_was_prepared() {
    let _counting = counting();
    // That the counts above can fail.
    let mut step = Step::plain(&noop());
    spent();
    step.forward();
    let made = spent();
    // Sums, which the numbers sent back share their memory with, their staging buffer, and the
    // parameters of two kernels.
    let Cost { allocations, bind_groups, pipelines, submissions, .. } = made;
    assert_eq!((allocations, bind_groups, pipelines, submissions), (4, 2, 2, 2));
    assert!(made.locks > FORWARD.1);

    for epilogue in [Epilogue::NONE, Epilogue::ADD_RELU] {
        for mask in [false, true] {
            let config = BatchNormConfig::torch(DIMS[1])
                .with_residual(epilogue.residual)
                .with_activation(epilogue.activation)
                .with_activation_mask(mask);
            let mut prepared = Step::new(config, &noop(), 1);
            prepared.bn.prepare(&DIMS, Layout::ChannelsFirst, DType::F32).unwrap();
            assert_eq!(spent().pipelines, 5);
            let saved = prepared.forward();
            prepared.backward(&saved);
            assert_eq!(spent().pipelines, 0, "{epilogue:?}, mask {mask}");
        }
    }
}

#[test]
fn an_output_that_is_allocated_in_every_call_is_noticed() {
    let _counting = counting();
    let mut step = Step::plain(&noop());
    step.forward();
    for _ in 0..2 {
        spent();
        drop(block_on(step.bn.forward_train(&step.tensors.x)).unwrap());
        let Cost { allocations, bind_groups, .. } = spent();
        assert_eq!(
            (allocations, bind_groups),
            (2, 1),
            "the output, and the parameters bound beside it"
        );
    }
}

#[test]
fn what_a_call_has_saved_keeps_no_activation() {
    // Above every block that a driver's allocator shares between buffers of this size.
    const DIMS: [usize; 3] = [2048, 16, 64];
    let (device, queue) = common::own_device(&common::adapter(), |_| {});
    let allocated = || {
        device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
        device
            .generate_allocator_report()
            .expect("a driver that tells what it has allocated")
            .total_allocated_bytes
    };
    let gpu = Device::from_wgpu(device.clone(), queue).unwrap();
    let bn = SyncBatchNorm::new(BatchNormConfig::torch(16), [gpu.clone()]).unwrap();
    let before = allocated();
    let x = gpu.zeros(&DIMS).unwrap();
    let forward = block_on(bn.forward_train(&x)).unwrap();
    assert!(allocated() >= before + 2 * 8 * (1 << 20), "two tensors");
    let saved = forward.saved.clone();
    drop((x, forward.output, forward.saved));
    let left = allocated() - before;
    assert!(left < 8 << 20, "{left} bytes left");
    // The same values once more.
    let x = gpu.zeros(&DIMS).unwrap();
    block_on(bn.backward(&saved, Backward::of(&x, &x))).unwrap_err();
    block_on(bn.backward(&saved, Backward::of(&x, &x).recomputed())).unwrap();
}

#[test]
fn a_dropped_tensor_is_freed_whatever_was_cached_of_it() {
    // 8 MiB, above every block that a driver's allocator shares between buffers of this size.
    const ELEMENTS: usize = 2 << 20;
    let (device, queue) = common::own_device(&common::adapter(), |_| {});
    let allocated = || {
        device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
        let report =
            device.generate_allocator_report().expect("a driver that tells what it has allocated");
        report.total_allocated_bytes
    };
    let gpu = Device::from_wgpu(device.clone(), queue).unwrap();
    // The same device taken over twice: a kernel of one may bind memory of the other.
    let again =
        Device::from_wgpu(gpu.wgpu().unwrap().0.clone(), gpu.wgpu().unwrap().1.clone()).unwrap();
    let bn = SyncBatchNorm::new(BatchNormConfig::torch(16), [gpu.clone()]).unwrap();
    let tensor = |device: &Device| device.zeros(&[ELEMENTS / 1024, 16, 64]).unwrap();
    let kept = tensor(&gpu);
    let before = allocated();
    for output in [&gpu, &again, &gpu] {
        let mut y = tensor(output);
        let mut z = tensor(&gpu);
        block_on(bn.forward_train(Forward::of(&kept).write_to(&mut y))).unwrap();
        // Bound as what is read, too.
        block_on(bn.forward_train(Forward::of(&y).write_to(&mut z))).unwrap();
        assert!(allocated() >= before + 2 * 4 * ELEMENTS as u64, "two tensors");
        drop((y, z));
        let left = allocated() - before;
        assert!(left < ELEMENTS as u64, "{left} bytes left");
    }
}
