//! Batch normalization between an application's own kernels: in its encoder, on its buffers.
//! `cargo run --release --example embed_in_wgpu` runs it on a GPU or a software driver.
use pollster::block_on;
use syncbn::{Backward, BatchNorm, BatchNormConfig, Device, Forward, Workspace, wgpu};

const DIMS: [usize; 3] = [8, 3, 64]; // (N, C, L)
const KERNEL: &str = "
    @group(0) @binding(0) var<storage, read_write> v: array<f32>;
    @compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
        v[id.x] = v[id.x] * v[id.x] * v[id.x] + f32(id.x % 4); }";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let adapter = block_on(Device::adapters()).into_iter().next().ok_or("no GPU, no driver")?;
    let (gpu, queue) = block_on(adapter.request_device(&Default::default()))?;
    let size = 4 * DIMS.iter().product::<usize>() as u64;
    let usage = wgpu::BufferUsages::STORAGE;
    let buffer = wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false };
    let [x_buffer, y_buffer] = [(); 2].map(|()| gpu.create_buffer(&buffer));
    let source = wgpu::ShaderSource::Wgsl(KERNEL.into());
    let kernel = gpu.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: None,
        layout: None,
        module: &gpu.create_shader_module(wgpu::ShaderModuleDescriptor { label: None, source }),
        entry_point: None,
        compilation_options: Default::default(),
        cache: None,
    });
    let run_kernel = |encoder: &mut wgpu::CommandEncoder, buffer: &wgpu::Buffer| {
        let bindings = gpu.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &kernel.get_bind_group_layout(0),
            entries: &[wgpu::BindGroupEntry { binding: 0, resource: buffer.as_entire_binding() }],
        });
        let mut pass = encoder.begin_compute_pass(&Default::default());
        pass.set_pipeline(&kernel);
        pass.set_bind_group(0, &bindings, &[]);
        pass.dispatch_workgroups(buffer.size() as u32 / 256, 1, 1);
    };
    let device = Device::from_wgpu(gpu.clone(), queue.clone())?;
    let norm = BatchNorm::new(BatchNormConfig::torch(DIMS[1]), &device)?;
    let mut workspace = Workspace::new(&device); // kept: one for all layers and all steps
    let x = device.wrap(x_buffer.clone(), 0, &DIMS)?;
    let mut y = device.wrap(y_buffer.clone(), 0, &DIMS)?;
    let mut dx = device.zeros(&DIMS)?;
    let mut encoder = gpu.create_command_encoder(&Default::default());
    run_kernel(&mut encoder, &x_buffer); // x = 0, 1, 2, 3, 0, 1 …
    let forward = Forward::of(&x).write_to(&mut y).encode(&mut encoder, &mut workspace);
    let saved = norm.forward_train(forward)?.saved;
    run_kernel(&mut encoder, &y_buffer); // dy = y³ + x, where y was
    let backward = Backward::of(&x, &y).input_gradient(&mut dx);
    norm.backward(&saved, backward.encode(&mut encoder, &mut workspace))?;
    queue.submit([encoder.finish()]);
    let y = [-1.5f32, -0.5, 0.5, 1.5].map(|deviation| deviation / 1.25f32.sqrt());
    let expected = y.map(|y| (y * y * y - 1.64 * y) / 1.25f32.sqrt()); // 1.64 is the mean of y⁴
    let dx = block_on(dx.to_vec())?;
    println!("{device}: dx = {:.4?} …, expected {expected:.4?} …", &dx[..4]);
    approx::assert_abs_diff_eq!(dx[..], expected.repeat(dx.len() / 4)[..], epsilon = 1e-4);
    Ok(())
}
