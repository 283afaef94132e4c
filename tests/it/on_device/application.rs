//! Passes within the application's own submissions, and calls that neither wait nor read back.

use std::time::Duration;

use pollster::block_on;
use syncbn::{
    Backward, BatchNorm, BatchNormConfig, Device, Error, Forward, SyncBatchNorm, Tensor, Workspace,
    config::Activation, error::GpuError, stats::RunningStats,
};
use wgpu::BufferUsages;

use super::common::*;

pub const CHANNELS: usize = 3;
pub const DIMS: [[usize; 3]; 2] = [[4, CHANNELS, 2049], [1, CHANNELS, 77]];

pub fn config() -> BatchNormConfig {
    BatchNormConfig::torch(CHANNELS).with_residual(true).with_activation(Activation::Relu)
}

pub fn tensors(device: &Device, seed: u64) -> Vec<Tensor> {
    let mut random = Random::new(seed);
    DIMS.iter().map(|dims| Batch::random(dims, &mut random).upload(device)).collect()
}

/// What the tests give to a layer.
pub struct Given {
    pub x: Vec<Tensor>,
    pub residuals: Vec<Tensor>,
    pub g: Vec<Tensor>,
}

impl Given {
    pub fn new(device: &Device) -> Self {
        Self::of(device, [1, 2, 3])
    }

    pub fn of(device: &Device, seeds: [u64; 3]) -> Self {
        let [x, residuals, g] = seeds.map(|seed| tensors(device, seed));
        Self { x, residuals, g }
    }

    pub fn forward(&self) -> Forward<'_, Vec<Tensor>> {
        Forward::of(&self.x).residual(&self.residuals)
    }

    pub fn backward(&self) -> Backward<'_, Vec<Tensor>> {
        Backward::of(&self.x, &self.g).residual(&self.residuals)
    }
}

/// The bits of y, of the gradients of inputs and weights, and the running statistics of one step of
/// its own.
fn step(device: &Device) -> ([Vec<Vec<u32>>; 3], RunningStats) {
    let given = Given::new(device);
    let layer = BatchNorm::new(config(), device).unwrap();
    let forward = layer.forward_train(given.forward()).unwrap();
    let backward = layer.backward(&forward.saved, given.backward()).unwrap();
    let all = [forward.output, backward.input, backward.weight.unwrap()];
    (all.map(|tensors| bits(&read(&tensors))), block_on(layer.running_stats()).unwrap().unwrap())
}

#[test]
fn a_step_within_the_application_s_submission_gives_the_bits_of_one_by_itself() {
    let (raw, queue) = own_device(&adapter(), |_| {});
    let device = Device::from_wgpu(raw.clone(), queue.clone()).unwrap();
    let expected = step(&device);
    let given = Given::new(&device);
    let layer = BatchNorm::new(config(), &device).unwrap();
    let bytes = 4 * DIMS[0].iter().product::<usize>() as u64;
    let buffer = |usage| {
        raw.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: bytes,
            usage,
            mapped_at_creation: false,
        })
    };
    let y = buffer(BufferUsages::STORAGE | BufferUsages::COPY_SRC);
    let mut outputs =
        vec![device.wrap(y.clone(), 0, &DIMS[0]).unwrap(), device.zeros(&DIMS[1]).unwrap()];
    let mut grad_inputs: Vec<Tensor> =
        DIMS.iter().map(|dims| device.zeros(dims).unwrap()).collect();
    let mut grad_weights: Vec<Tensor> =
        DIMS.iter().map(|_| device.zeros(&[CHANNELS]).unwrap()).collect();

    let mut encoder = raw.create_command_encoder(&Default::default());
    let mut workspace = Workspace::new(&device);
    let request = given.forward().write_to(&mut outputs).encode(&mut encoder, &mut workspace);
    let saved = layer.forward_train(request).unwrap().saved;
    // A command of the application between forward and backward reads y.
    let seen = buffer(BufferUsages::COPY_DST | BufferUsages::MAP_READ);
    encoder.copy_buffer_to_buffer(&y, 0, &seen, 0, bytes);
    let request =
        given.backward().input_gradient(&mut grad_inputs).weight_gradient(&mut grad_weights);
    layer.backward(&saved, request.encode(&mut encoder, &mut workspace)).unwrap();
    assert_eq!(
        block_on(layer.running_stats()).unwrap().unwrap().num_batches_tracked,
        0,
        "nothing is submitted yet"
    );
    queue.submit([encoder.finish()]);

    seen.map_async(wgpu::MapMode::Read, .., |result| result.unwrap());
    raw.poll(wgpu::PollType::wait_indefinitely()).unwrap();
    let copied: Vec<f32> = bytemuck::pod_collect_to_vec(&seen.get_mapped_range(..).unwrap());
    let found = [outputs, grad_inputs, grad_weights].map(|tensors| bits(&read(&tensors)));
    assert_eq!(bits(&[copied])[0], found[0][0]);
    assert_eq!((found, block_on(layer.running_stats()).unwrap().unwrap()), expected);
}

#[test]
fn what_is_encoded_and_never_submitted_has_no_effect() {
    let device = &virtual_gpus()[0];
    let (raw, _) = device.wgpu().unwrap();
    let given = Given::new(device);
    let layer = BatchNorm::new(config(), device).unwrap();
    let before = block_on(layer.running_stats()).unwrap();
    let mut outputs = DIMS.map(|dims| device.zeros(&dims).unwrap());
    let mut encoder = raw.create_command_encoder(&Default::default());
    let mut workspace = Workspace::new(device);
    layer
        .forward_train(given.forward().write_to(&mut outputs).encode(&mut encoder, &mut workspace))
        .unwrap();
    drop(encoder);
    assert_eq!(block_on(layer.running_stats()).unwrap(), before);
    assert!(read(&outputs).concat().iter().all(|&y| y == 0.0));
}

#[test]
fn what_an_encoder_uses_is_its_own_until_it_is_submitted() {
    let device = &virtual_gpus()[0];
    let (raw, queue) = device.wgpu().unwrap();
    let given = Given::new(device);
    let other = Given::of(device, [7, 8, 9]);
    let mut workspace = Workspace::new(device);
    // A mask and statistics of the batch: all that a call keeps.
    let layer = BatchNorm::new(config().with_activation_mask(true), device).unwrap();
    let zeros = || DIMS.map(|dims| device.zeros(&dims).unwrap());
    let gradients = |given: &Given| {
        let forward = layer.forward_train(given.forward()).unwrap();
        bits(&read(&layer.backward(&forward.saved, given.backward()).unwrap().input))
    };
    let [expected, expected_other] = [&given, &other].map(gradients);
    let mut outputs = zeros();
    let mut late = zeros();

    // The context of a call that is submitted is dropped before the encoder that reads it is.
    let saved = layer.forward_train(given.forward()).unwrap().saved;
    let mut encoder = raw.create_command_encoder(&Default::default());
    let request = given.backward().input_gradient(&mut late).encode(&mut encoder, &mut workspace);
    layer.backward(&saved, request).unwrap();
    drop(saved);
    assert_eq!(gradients(&other), expected_other);
    queue.submit([encoder.finish()]);
    assert_eq!(bits(&read(&late)), expected);

    // The context of a call that is encoded is dropped, and another call keeps one when the encoder
    // is submitted.
    let mut encoder = raw.create_command_encoder(&Default::default());
    let request = given.forward().write_to(&mut outputs).encode(&mut encoder, &mut workspace);
    drop(layer.forward_train(request).unwrap());
    let saved = layer.forward_train(other.forward()).unwrap().saved;
    queue.submit([encoder.finish()]);
    let found = layer.backward(&saved, other.backward()).unwrap();
    assert_eq!(bits(&read(&found.input)), expected_other);
}

#[test]
fn evaluation_may_be_encoded_too() {
    let device = &virtual_gpus()[0];
    let (raw, queue) = device.wgpu().unwrap();
    let given = Given::new(device);
    let layer = BatchNorm::new(config(), device).unwrap();
    let expected = layer.forward_eval(given.forward()).unwrap();
    let mut outputs = DIMS.map(|dims| device.zeros(&dims).unwrap());
    let mut encoder = raw.create_command_encoder(&Default::default());
    let mut workspace = Workspace::new(device);
    layer
        .forward_eval(given.forward().write_to(&mut outputs).encode(&mut encoder, &mut workspace))
        .unwrap();
    queue.submit([encoder.finish()]);
    assert_eq!(bits(&read(&outputs)), bits(&read(&expected.output)));
}

/// A deadline of zero passes before much is done on the device: whoever waits for it gets an error,
/// soon or at once.
#[test]
fn no_call_waits_for_the_device_but_those_that_read() {
    const CALLS: usize = 10;
    // On a busy machine work may be done before the host looks; it is not every time.
    const ROUNDS: usize = 500;
    let device = block_on(Device::from_adapter(&adapter())).unwrap().with_deadline(Duration::ZERO);
    // Long enough to be under way still when the host looks.
    let large = || [0, 1].map(|_| device.zeros(&[8, CHANNELS, 40_000]).unwrap());
    let x = large();
    let residuals = large();
    let g = large();
    let request = || Forward::of(&x).residual(&residuals);
    let is_timeout = |result: Result<(), Error>| match result {
        Ok(()) => false,
        Err(Error::Gpu(GpuError::Timeout { .. })) => true,
        Err(error) => panic!("{error}"),
    };
    let on_host = SyncBatchNorm::new(config(), vec![device.clone(); 2]).unwrap();
    let waited =
        (0..ROUNDS).any(|_| is_timeout(block_on(on_host.forward_train(request())).map(drop)));
    assert!(waited, "a merge on the host waits");

    let mut layer = BatchNorm::new(config(), &device).unwrap();
    let mut pass = || {
        let forward = layer.forward_train(request()).unwrap();
        layer.backward(&forward.saved, Backward::of(&x, &g).residual(&residuals)).unwrap();
        layer.forward_eval(request()).unwrap();
        layer.set_parameters(Some(&[1.0, 2.0, 3.0]), None).unwrap();
        layer.forward_train(request().untracked()).unwrap().saved
    };
    let saved = (0..CALLS).map(|_| pass()).last().unwrap();
    // The control: a read waits, for what is queued before it.
    let waits = |read: &dyn Fn() -> Result<(), Error>| {
        (0..ROUNDS).any(|_| {
            layer.forward_train(request()).unwrap();
            layer.forward_train(request()).unwrap();
            is_timeout(read())
        })
    };
    assert!(waits(&|| block_on(saved.mean_and_inv_std(1).unwrap()[0].to_vec()).map(drop)));
    assert!(waits(&|| block_on(layer.running_stats()).map(drop)));
    assert!(waits(&|| block_on(layer.state()).map(drop)));
}

#[test]
fn inputs_and_outputs_may_be_slices_of_one_buffer() {
    let device = &virtual_gpus()[0];
    let (raw, _) = device.wgpu().unwrap();
    let expected = step(device).0;
    let size = DIMS[0].iter().product::<usize>() as u64 * 4;
    let slot = size.next_multiple_of(256);
    let usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST;
    let page = raw.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: 16 * slot,
        usage,
        mapped_at_creation: false,
    });
    let mut used = 0;
    let mut on_page = |dims: &[usize]| {
        used += 1;
        device.wrap(page.clone(), (used - 1) * slot, dims).unwrap()
    };
    let given = Given::new(device);
    let mut copies = [&given.x, &given.residuals, &given.g]
        .map(|tensors| {
            let copy = |tensor: &Tensor| {
                let mut copy = on_page(tensor.dims());
                copy.write(&block_on(tensor.to_vec()).unwrap()).unwrap();
                copy
            };
            tensors.iter().map(copy).collect::<Vec<_>>()
        })
        .into_iter();
    let given = Given {
        x: copies.next().unwrap(),
        residuals: copies.next().unwrap(),
        g: copies.next().unwrap(),
    };
    let mut outputs: Vec<Tensor> = DIMS.iter().map(|dims| on_page(dims)).collect();
    let mut grad_inputs: Vec<Tensor> = DIMS.iter().map(|dims| on_page(dims)).collect();
    let [mut grad_weights, mut grad_biases] =
        [0, 1].map(|_| vec![on_page(&[CHANNELS]), on_page(&[CHANNELS])]);
    let layer = BatchNorm::new(config(), device).unwrap();
    let saved = layer.forward_train(given.forward().write_to(&mut outputs)).unwrap().saved;
    let request =
        given.backward().input_gradient(&mut grad_inputs).weight_gradient(&mut grad_weights);
    layer.backward(&saved, request.bias_gradient(&mut grad_biases)).unwrap();
    assert_eq!([outputs, grad_inputs, grad_weights].map(|tensors| bits(&read(&tensors))), expected);
}

#[test]
fn a_destroyed_device_is_an_error_where_results_are_read() {
    let (raw, queue) = own_device(&adapter(), |_| {});
    let device = Device::from_wgpu(raw.clone(), queue).unwrap();
    let given = Given::new(&device);
    let layer = BatchNorm::new(config(), &device).unwrap();
    let forward = layer.forward_train(given.forward()).unwrap();
    raw.destroy();
    let statistics = forward.saved.mean_and_inv_std(0).unwrap();
    assert!(statistics.iter().all(|of| matches!(block_on(of.to_vec()), Err(Error::Gpu(_)))));
    assert!(matches!(block_on(layer.running_stats()), Err(Error::Gpu(_))));
    assert!(matches!(layer.forward_train(given.forward()).map(drop), Ok(()) | Err(Error::Gpu(_))));
}
