//! An application's own kernel on the memory of tensors, and its own device with what this crate
//! asks for.

use pollster::block_on;
use syncbn::{
    Backward, BatchNorm, BatchNormConfig, Device, Forward, SyncBatchNorm, Tensor, Workspace,
};

use super::common::*;

const DIMS: [usize; 3] = [3, 2, 5];

/// An application's kernel that doubles f32 values in place.
struct Double {
    device: wgpu::Device,
    pipeline: wgpu::ComputePipeline,
}

impl Double {
    const SOURCE: &str = "
@group(0) @binding(0) var<storage, read_write> values: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x < arrayLength(&values)) {
        values[id.x] *= 2.0;
    }
}
";

    fn new(device: &wgpu::Device) -> Self {
        Self { device: device.clone(), pipeline: kernel::pipeline(device, Self::SOURCE, None) }
    }

    fn record(&self, encoder: &mut wgpu::CommandEncoder, values: wgpu::BufferBinding<'_>) {
        let workgroups = (values.size.unwrap().get() / 4).div_ceil(64) as u32;
        kernel::record(&self.device, encoder, &self.pipeline, &[values], [workgroups, 1]);
    }
}

/// Twice each value, which is exact.
fn doubled(values: &[f32]) -> Vec<f32> {
    values.iter().map(|value| 2.0 * value).collect()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    block_on(tensor.to_vec()).unwrap()
}

#[test]
fn a_kernel_of_the_application_doubles_y_in_place_in_the_same_encoder() {
    let device = &virtual_gpus()[0];
    let (gpu, queue) = device.wgpu().unwrap();
    let kernel = Double::new(gpu);
    let norm = BatchNorm::new(BatchNormConfig::torch(DIMS[1]), device).unwrap();
    let [x, g] = [350, 351].map(|seed| Batch::random(&DIMS, &mut Random::new(seed)).upload(device));
    let expected = norm.forward_train(&x).unwrap();
    let gradient = values(&norm.backward(&expected.saved, Backward::of(&x, &g)).unwrap().input);

    let mut workspace = Workspace::new(device);
    let [mut y, mut dx] = [(); 2].map(|()| device.zeros(&DIMS).unwrap());
    let mut encoder = gpu.create_command_encoder(&Default::default());
    let request = Forward::of(&x).write_to(&mut y).encode(&mut encoder, &mut workspace);
    let saved = norm.forward_train(request).unwrap().saved;
    kernel.record(&mut encoder, y.binding().unwrap());
    let request = Backward::of(&x, &g).input_gradient(&mut dx).encode(&mut encoder, &mut workspace);
    norm.backward(&saved, request).unwrap();
    kernel.record(&mut encoder, dx.binding().unwrap());
    queue.submit([encoder.finish()]);
    assert_eq!(bits(&[values(&y)]), bits(&[doubled(&values(&expected.output))]));
    assert_eq!(bits(&[values(&dx)]), bits(&[doubled(&gradient)]));
}

#[test]
fn a_kernel_of_the_application_works_on_what_a_layer_has_submitted_by_itself() {
    let device = &virtual_gpus()[0];
    let (gpu, queue) = device.wgpu().unwrap();
    let layer = SyncBatchNorm::new(BatchNormConfig::torch(DIMS[1]), [device.clone()]).unwrap();
    let x = Batch::random(&DIMS, &mut Random::new(352)).upload(device);
    let expected = values(&block_on(layer.forward_train(&x)).unwrap().output);
    let y = block_on(layer.forward_train(&x)).unwrap().output;
    let mut encoder = gpu.create_command_encoder(&Default::default());
    Double::new(gpu).record(&mut encoder, y.binding().unwrap());
    queue.submit([encoder.finish()]);
    assert_eq!(bits(&[values(&y)]), bits(&[doubled(&expected)]));
}

#[test]
fn the_binding_of_a_slice_is_the_slice_and_nothing_beside_it() {
    let device = &virtual_gpus()[0];
    let (gpu, queue) = device.wgpu().unwrap();
    let align = u64::from(gpu.limits().min_storage_buffer_offset_alignment);
    let usage =
        wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
    let page = gpu.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: 3 * align,
        usage,
        mapped_at_creation: false,
    });
    let words = 3 * align as usize / 4;
    let before: Vec<f32> = (0..words).map(|word| word as f32).collect();
    queue.write_buffer(&page, 0, bytemuck::cast_slice(&before));
    let slice = device.wrap(page.clone(), align, &[1, 2, 3]).unwrap();
    let binding = slice.binding().unwrap();
    assert_eq!((binding.buffer, binding.offset, binding.size.unwrap().get()), (&page, align, 24));
    let mut encoder = gpu.create_command_encoder(&Default::default());
    Double::new(gpu).record(&mut encoder, binding);
    queue.submit([encoder.finish()]);
    let mut expected = before;
    expected[align as usize / 4..][..6].iter_mut().for_each(|value| *value *= 2.0);
    assert_eq!(values(&device.wrap(page, 0, &[1, words]).unwrap()), expected);
}

#[test]
fn a_binding_is_of_whole_words_and_only_what_lies_on_a_gpu_has_one() {
    let device = &virtual_gpus()[0];
    for (count, bytes) in [(1, 4), (2, 4), (5, 12)] {
        let tensor = device.zeros_of(&[1, count], syncbn::DType::F16).unwrap();
        let binding = tensor.binding().unwrap();
        assert_eq!((binding.offset, binding.size.unwrap().get()), (0, bytes));
        assert!(binding.buffer.size() >= bytes);
    }
    assert!(device.zeros(&[0, 3]).unwrap().binding().is_none());
    assert!(Device::host().zeros(&[2, 3]).unwrap().binding().is_none());
}

/// A training step of both kinds of layer on a device: y within the definition, and all bits.
fn train(device: &Device) -> [Vec<Vec<u32>>; 2] {
    let mut random = Random::new(353);
    let batch = Batch::random(&[9, 3, 700], &mut random);
    let g = Batch::random(&[9, 3, 700], &mut random);
    let expected = definition(std::slice::from_ref(&batch), None, 1e-5);
    let x = batch.upload(device);
    let g = g.upload(device);
    let layer = SyncBatchNorm::new(BatchNormConfig::torch(3), [device.clone()]).unwrap();
    let forward = block_on(layer.forward_train(&x)).unwrap();
    let backward = block_on(layer.backward(&forward.saved, Backward::of(&x, &g))).unwrap();
    let norm = BatchNorm::new(BatchNormConfig::torch(3), device).unwrap();
    let on_device = norm.forward_train(&x).unwrap();
    let backward_on_device = norm.backward(&on_device.saved, Backward::of(&x, &g)).unwrap();
    // As `BatchNorm` says of its accuracy, twice that of a `SyncBatchNorm`.
    let calls =
        [(forward, backward, TOLERANCE_ULP), (on_device, backward_on_device, 2.0 * TOLERANCE_ULP)];
    calls.map(|(forward, backward, tolerance)| {
        let y = read(&[forward.output]);
        compare(std::slice::from_ref(&batch), &y, &expected.outputs, tolerance).unwrap();
        bits(
            &[y, read(&[backward.input, backward.weight.unwrap(), backward.bias.unwrap()])]
                .concat(),
        )
    })
}

#[test]
fn a_device_requested_with_exactly_what_is_asked_for_opens_and_trains() {
    let adapter = adapter();
    let optional = Device::optional_features() & adapter.features();
    let opened = train(&virtual_gpus()[0]);
    for required_features in [wgpu::Features::empty(), optional] {
        let required_limits = Device::required_limits();
        let descriptor =
            wgpu::DeviceDescriptor { required_features, required_limits, ..Default::default() };
        let (gpu, queue) = block_on(adapter.request_device(&descriptor)).unwrap();
        assert_eq!(gpu.features(), required_features);
        let device = Device::from_wgpu(gpu, queue).unwrap();
        assert!(train(&device) == opened, "other bits than on a device that this crate has opened");
        // With all of them it is as fast, too.
        assert_eq!(
            device.fast_paths() == virtual_gpus()[0].fast_paths(),
            required_features == optional
        );
    }
    assert!(!optional.is_empty(), "no optional feature is tested");
}
