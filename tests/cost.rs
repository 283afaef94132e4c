//! What a call costs beyond its kernels: memory, bind groups, pipelines, submissions and locks, counted exactly, on a tiny
//! tensor, where they are all that a call costs.
//!
//! The device is wgpu's own that runs nothing: a result is there as soon as it is asked for, so every count is the same in
//! every run. The crate tells of each by a `tracing` event, see [`counter`].
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "cost/counter.rs"]
mod counter;

use counter::{Cost, counting, spent};
use pollster::block_on;
use syncbn::{Device, DeviceGroup, Epilogue, GradTargets, Inputs, SavedForward, SyncBatchNormConfig, Tensor};

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

#[test]
fn a_repeated_call_makes_nothing_on_its_device_and_submits_twice() {
    let _counting = counting();
    assert_eq!(Step::plain(&noop()).repeated(), [only(2, 9), only(2, 10)]);
}
