//! What a call costs beyond its kernels: memory, bind groups, pipelines, submissions and locks, counted exactly, on a tiny
//! tensor, where they are all that a call costs.
//!
//! The device is wgpu's own that runs nothing: a result is there as soon as it is asked for, so every count is the same in
//! every run. The crate tells of each by a `tracing` event, see [`counter`].
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;
#[path = "cost/counter.rs"]
mod counter;

use counter::{Cost, counting, spent};
use pollster::block_on;
use syncbn::{
    DType, Device, DeviceGroup, Epilogue, ForwardRequest, GradTargets, Inputs, Layout, SavedForward, Shape,
    SyncBatchNormConfig, Tensor,
};

const DIMS: [usize; 4] = [8, 16, 8, 8];

fn noop() -> Device {
    let descriptor = wgpu::DeviceDescriptor { required_limits: wgpu::Limits::default(), ..Default::default() };
    let (device, queue) = wgpu::Device::noop(&descriptor);
    Device::from_wgpu(device, queue).unwrap()
}

/// A layer on some ranks of one device, with the tensors of a step.
struct Step {
    group: DeviceGroup,
    x: Vec<Tensor>,
    residuals: Vec<Tensor>,
    y: Vec<Tensor>,
    grad_outputs: Vec<Tensor>,
    /// Of the inputs and, where there are any, the residuals.
    gradients: [Vec<Tensor>; 2],
    /// Of weight and bias.
    vectors: [Vec<Tensor>; 2],
}

impl Step {
    fn new(config: SyncBatchNormConfig, device: &Device, ranks: usize) -> Self {
        let group = DeviceGroup::new(config, vec![device.clone(); ranks]).unwrap();
        let tensors = || -> Vec<Tensor> { (0..ranks).map(|_| device.zeros(&DIMS).unwrap()).collect() };
        let vectors = || -> Vec<Tensor> { (0..ranks).map(|_| device.zeros(&[DIMS[1]]).unwrap()).collect() };
        let ([x, residuals, y, grad_outputs], gradients) = ([0; 4].map(|_| tensors()), [0; 2].map(|_| tensors()));
        Self { group, x, residuals, y, grad_outputs, gradients, vectors: [0; 2].map(|_| vectors()) }
    }

    fn plain(device: &Device) -> Self {
        Self::new(SyncBatchNormConfig::torch(DIMS[1]), device, 1)
    }

    fn inputs<'a>(group: &DeviceGroup, x: &'a [Tensor], residuals: &'a [Tensor]) -> Inputs<'a> {
        let adds = group.config().epilogue.adds_residual();
        if adds { Inputs::with_residuals(x, residuals) } else { x.into() }
    }

    fn forward(&mut self) -> SavedForward {
        let inputs = Self::inputs(&self.group, &self.x, &self.residuals);
        block_on(self.group.forward_train_into(inputs, &mut self.y)).unwrap().0
    }

    fn backward(&mut self, saved: &SavedForward) {
        let inputs = Self::inputs(&self.group, &self.x, &self.residuals);
        let inputs = if saved.needs_residuals() { inputs } else { (&self.x).into() };
        let ([grad_inputs, grad_residuals], [weights, biases]) = (&mut self.gradients, &mut self.vectors);
        let targets = GradTargets {
            grad_inputs: Some(grad_inputs),
            grad_weights: Some(weights),
            grad_biases: Some(biases),
            grad_residuals: self.group.config().epilogue.adds_residual().then_some(grad_residuals),
        };
        block_on(self.group.backward_into(saved, inputs, &self.grad_outputs, targets)).unwrap();
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

/// A call takes the lock of the scratch pool for the sums, that of the bindings for the kernel, that of the staging pool,
/// and that of the answer; then those of both pools again. Normalizing takes three: scratch, bindings, scratch. Backward
/// sends numbers before its sums too, which are scratch once more.
const FORWARD: (u64, u64) = (2, 9);
const BACKWARD: (u64, u64) = (2, 11);

#[test]
fn a_repeated_call_makes_nothing_on_its_device_and_submits_twice() {
    let _counting = counting();
    let device = noop();
    let expected = [only(FORWARD.0, FORWARD.1), only(BACKWARD.0, BACKWARD.1)];
    assert_eq!(Step::plain(&device).repeated(), expected);
    for epilogue in [Epilogue::Relu, Epilogue::Add, Epilogue::AddRelu] {
        let config = SyncBatchNormConfig::torch(DIMS[1]).with_epilogue(epilogue);
        assert_eq!(Step::new(config, &device, 1).repeated(), expected, "{epilogue:?}");
    }
    // A mask is scratch until its context is dropped: one lock to take it.
    let config = SyncBatchNormConfig::torch(DIMS[1]).with_epilogue(Epilogue::AddRelu).with_activation_mask(true);
    let masked = Step::new(config, &device, 1).repeated();
    assert_eq!(masked, [only(FORWARD.0, FORWARD.1 + 1), only(BACKWARD.0, BACKWARD.1)]);
    // Ranks of one device take turns with its scratch.
    let three = |(submissions, locks): (u64, u64)| only(3 * submissions, 3 * locks);
    let config = SyncBatchNormConfig::torch(DIMS[1]);
    assert_eq!(Step::new(config, &device, 3).repeated(), [three(FORWARD), three(BACKWARD)]);
}

/// Scratch for what normalized, its mean, its deviation, and the sums, bindings for each of three kernels, and the sums come back;
/// in backward the numbers that gradients need are scratch as well, and both come back. What was saved comes back when it
/// is dropped.
const RESIDENT_FORWARD: (u64, u64) = (1, 4 + 3 + 1);
const RESIDENT_BACKWARD: (u64, u64) = (1, 2 + 3 + 2);

#[test]
fn a_repeated_resident_call_makes_nothing_and_submits_once() {
    let _counting = counting();
    let device = noop();
    let Step { group, x, mut y, grad_outputs, gradients: [mut grad_inputs, _], .. } = Step::plain(&device);
    let mut layer = group.into_resident().unwrap();
    let mut step = || {
        spent();
        let saved = layer.forward_train_into(&x, &mut y).unwrap();
        let forward = spent();
        let targets = GradTargets { grad_inputs: Some(&mut grad_inputs), ..GradTargets::default() };
        layer.backward_into(&saved, &x, &grad_outputs, targets).unwrap();
        [forward, spent()]
    };
    let [forward, backward] = step();
    assert_eq!((forward.bind_groups, backward.bind_groups), (3, 3));
    let expected = [RESIDENT_FORWARD, RESIDENT_BACKWARD].map(|(submissions, locks)| only(submissions, locks));
    assert_eq!(step(), expected);
    assert_eq!(step(), expected);
}

#[test]
fn layers_that_take_turns_keep_what_they_have() {
    let _counting = counting();
    let device = noop();
    let mut steps: Vec<Step> = (0..20).map(|_| Step::plain(&device)).collect();
    let mut round = || {
        let saved: Vec<SavedForward> = steps.iter_mut().map(Step::forward).collect();
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
    let mut joint = || {
        let requests = steps.iter_mut().map(|step| ForwardRequest::new(&mut step.group, &step.x, &mut step.y));
        block_on(DeviceGroup::forward_train_many(requests)).unwrap();
        spent()
    };
    joint();
    // Of the sums' nine but the three of normalizing, the bindings' is taken for each layer; of normalizing, all are.
    assert_eq!(joint(), only(FORWARD.0, 5 + 3 + 3 * 3));
}

#[test]
fn a_first_call_makes_what_later_ones_use_unless_it_was_prepared() {
    let _counting = counting();
    // That the counts above can fail.
    let mut step = Step::plain(&noop());
    spent();
    step.forward();
    let made = spent();
    // Sums, which the numbers sent back share their memory with, their staging buffer, and the parameters of two kernels.
    let Cost { allocations, bind_groups, pipelines, submissions, .. } = made;
    assert_eq!((allocations, bind_groups, pipelines, submissions), (4, 2, 2, 2));
    assert!(made.locks > FORWARD.1);

    for epilogue in [Epilogue::None, Epilogue::AddRelu] {
        for mask in [false, true] {
            let config = SyncBatchNormConfig::torch(DIMS[1]).with_epilogue(epilogue).with_activation_mask(mask);
            let mut prepared = Step::new(config, &noop(), 1);
            let shape = Shape::new(&DIMS, Layout::ChannelsFirst).unwrap();
            prepared.group.prepare(&shape, DType::F32).unwrap();
            assert_eq!(spent().pipelines, 6);
            let saved = prepared.forward();
            prepared.backward(&saved);
            assert_eq!(spent().pipelines, 0, "{epilogue:?}, mask {mask}");
        }
    }
}

#[test]
fn a_prepared_resident_call_compiles_nothing() {
    let _counting = counting();
    let Step { group, x, mut y, grad_outputs, .. } = Step::plain(&noop());
    let mut layer = group.into_resident().unwrap();
    layer.prepare(&Shape::new(&DIMS, Layout::ChannelsFirst).unwrap(), DType::F32).unwrap();
    assert_eq!(spent().pipelines, 6 + 3);
    let saved = layer.forward_train_into(&x, &mut y).unwrap();
    layer.backward(&saved, &x, &grad_outputs).unwrap();
    let saved = layer.forward_eval_into(&x, &mut y).unwrap();
    layer.backward(&saved, &x, &grad_outputs).unwrap();
    assert_eq!(spent().pipelines, 0);
}

#[test]
fn an_output_that_is_allocated_in_every_call_is_noticed() {
    let _counting = counting();
    let mut step = Step::plain(&noop());
    step.forward();
    for _ in 0..2 {
        spent();
        drop(block_on(step.group.forward_train(&step.x)).unwrap());
        let Cost { allocations, bind_groups, .. } = spent();
        assert_eq!((allocations, bind_groups), (2, 1), "the output, and the parameters bound beside it");
    }
}

#[test]
fn a_dropped_tensor_is_freed_whatever_was_cached_of_it() {
    // 8 MiB, above every block that a driver's allocator shares between buffers of this size.
    const ELEMENTS: usize = 2 << 20;
    let (device, queue) = common::own_device(&common::adapter(), |_| {});
    let allocated = || {
        device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
        let report = device.generate_allocator_report().expect("a driver that tells what it has allocated");
        report.total_allocated_bytes
    };
    let gpu = Device::from_wgpu(device.clone(), queue).unwrap();
    // The same device taken over twice: a kernel of one may bind memory of the other.
    let again = Device::from_wgpu(gpu.wgpu().unwrap().0.clone(), gpu.wgpu().unwrap().1.clone()).unwrap();
    let mut group = DeviceGroup::new(SyncBatchNormConfig::torch(16), vec![gpu.clone()]).unwrap();
    let tensor = |device: &Device| [device.zeros(&[ELEMENTS / 1024, 16, 64]).unwrap()];
    let kept = tensor(&gpu);
    let before = allocated();
    for output in [&gpu, &again, &gpu] {
        let (mut y, mut z) = (tensor(output), tensor(&gpu));
        block_on(group.forward_train_into(&kept, &mut y)).unwrap();
        // Bound as what is read, too.
        block_on(group.forward_train_into(&y, &mut z)).unwrap();
        assert!(allocated() >= before + 2 * 4 * ELEMENTS as u64, "two tensors");
        drop((y, z));
        let left = allocated() - before;
        assert!(left < ELEMENTS as u64, "{left} bytes left");
    }
}
