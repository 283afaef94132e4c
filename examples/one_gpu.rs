//! Batch normalization inside an application's submission: forward, a kernel of the application's
//! and backward in one encoder, with a kept workspace, so that no step makes a buffer. Nothing is
//! read back before the end, and checked against the host.
//!
//! `cargo run --release --example one_gpu`: on the first GPU, or a software driver where there is
//! none.

use std::error::Error;

use pollster::block_on;
use syncbn::wgpu::{self, BindGroupEntry, BindingResource, ShaderSource};
use syncbn::{Backward, BatchNorm, BatchNormConfig, Device, Forward, SyncBatchNorm, Workspace};

const DIMS: [usize; 3] = [8, 3, 50];
const STEPS: usize = 5;
/// The application's own kernel: the gradient of the loss Σ y⁴/4.
const KERNEL: &str = "
    @group(0) @binding(0) var<storage, read> y: array<f32>;
    @group(0) @binding(1) var<storage, read_write> dy: array<f32>;
    @compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
        if id.x < arrayLength(&y) { dy[id.x] = y[id.x] * y[id.x] * y[id.x]; }
    }";

fn main() -> Result<(), Box<dyn Error>> {
    // The list begins with GPUs and ends with software drivers.
    let adapters = block_on(Device::adapters());
    let adapter = adapters
        .first()
        .ok_or("no adapter: neither a GPU nor a software driver such as llvmpipe or WARP")?;
    println!("on {} ({:?})", adapter.get_info().name, adapter.get_info().device_type);
    // The application opens its device as it always does.
    let (gpu, queue) = block_on(adapter.request_device(&wgpu::DeviceDescriptor {
        required_features: adapter.features() & Device::optional_features(),
        required_limits: Device::required_limits(),
        ..Default::default()
    }))?;
    let device = Device::from_wgpu(gpu.clone(), queue.clone())?;
    let norm = BatchNorm::new(BatchNormConfig::torch(DIMS[1]), &device)?;
    let values: Vec<f32> =
        (0..DIMS.iter().product()).map(|i| 3.0 + (1.7 * i as f32).sin()).collect();
    let x = device.upload(&DIMS, &values)?;
    let (mut y, dy, mut dx) = (device.zeros(&DIMS)?, device.zeros(&DIMS)?, device.zeros(&DIMS)?);

    let source = ShaderSource::Wgsl(KERNEL.into());
    let module = &gpu.create_shader_module(wgpu::ShaderModuleDescriptor { label: None, source });
    let (label, layout, compilation_options) = (None, None, Default::default());
    let pipeline = wgpu::ComputePipelineDescriptor {
        label,
        layout,
        module,
        entry_point: None,
        compilation_options,
        cache: None,
    };
    let pipeline = gpu.create_compute_pipeline(&pipeline);
    let [of_y, of_dy] = [&y, &dy].map(|tensor| tensor.binding().ok_or("a tensor on the host"));
    let entries = [(0, of_y?), (1, of_dy?)]
        .map(|(binding, part)| BindGroupEntry { binding, resource: BindingResource::Buffer(part) });
    let layout = &pipeline.get_bind_group_layout(0);
    let bindings =
        gpu.create_bind_group(&wgpu::BindGroupDescriptor { label, layout, entries: &entries });

    let mut workspace = Workspace::new(&device);
    for _ in 0..STEPS {
        let mut encoder = gpu.create_command_encoder(&Default::default());
        let request = Forward::of(&x).write_to(&mut y).encode(&mut encoder, &mut workspace);
        let saved = norm.forward_train(request)?.saved;
        let mut pass = encoder.begin_compute_pass(&Default::default());
        pass.set_pipeline(&pipeline);
        pass.set_bind_group(0, &bindings, &[]);
        pass.dispatch_workgroups(values.len().div_ceil(64) as u32, 1, 1);
        drop(pass);
        let request =
            Backward::of(&x, &dy).input_gradient(&mut dx).encode(&mut encoder, &mut workspace);
        norm.backward(&saved, request)?;
        queue.submit([encoder.finish()]);
    }
    let running = block_on(norm.running_stats())?.ok_or("no running statistics")?;

    // The plain way: on the host, one call after the other.
    let host = Device::host();
    let plain = SyncBatchNorm::new(BatchNormConfig::torch(DIMS[1]), [host.clone()])?;
    let x = host.upload(&DIMS, &values)?;
    for _ in 1..STEPS {
        block_on(plain.forward_train(&x))?;
    }
    let forward = block_on(plain.forward_train(&x))?;
    let expected = block_on(forward.output.to_vec())?;
    let dy = host.upload(&DIMS, &expected.iter().map(|y| y * y * y).collect::<Vec<_>>())?;
    let backward = block_on(plain.backward(&forward.saved, Backward::of(&x, &dy)))?;
    compare("y", &block_on(y.to_vec())?, &expected)?;
    compare("dx", &block_on(dx.to_vec())?, &block_on(backward.input.to_vec())?)?;
    let expected = plain.running_stats().ok_or("no running statistics")?;
    compare("running mean", &running.mean, &expected.mean)?;
    compare("running variance", &running.var, &expected.var)?;
    Ok(())
}

/// Values are near 1.
fn compare(what: &str, found: &[f32], expected: &[f32]) -> Result<(), String> {
    let differences = || found.iter().zip(expected).map(|(a, b)| (a - b).abs());
    let is_within =
        found.len() == expected.len() && differences().all(|difference| difference <= 2e-5);
    println!("{what}: largest difference {:.1e}, allowed 2e-5", differences().fold(0.0, f32::max));
    if is_within { Ok(()) } else { Err(format!("{what} is wrong")) }
}
