//! Statistics from sums that another kernel has taken while it wrote x, as a convolution may, so
//! that x is read once less: from sums on the host, and from tiles that a kernel left on a GPU.
//! Outputs are those of a forward pass that reads x itself.
//!
//! `cargo run --release --example other_kernels_sums`; the second part is on the first GPU, or a
//! software driver.

use std::error::Error;

use pollster::block_on;
use syncbn::stats::{LocalStatistics, Moments};
use syncbn::wgpu::{self, BindGroupEntry, BindingResource, ShaderSource};
use syncbn::{BatchNormConfig, Device, SyncBatchNorm, Tensor};

const DIMS: [usize; 2] = [100, 3];
/// Samples in each tile; the last one has fewer.
const COUNTS: [u64; 4] = [32, 32, 32, 4];
/// An invocation writes a channel of a tile, and its pivot p, Σ(x − p), Σ(x − p)² and 0.
const KERNEL: &str = "
    @group(0) @binding(0) var<storage, read_write> x: array<f32>;       // (N, C)
    @group(0) @binding(1) var<storage, read_write> tiles: array<vec4f>; // (T, C)
    @compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
        if id.x >= arrayLength(&tiles) { return; }
        let first = id.x / 3 * 96 + id.x % 3;
        var sums = vec4f(5.0, 0.0, 0.0, 0.0);
        for (var i = first; i < min(first + 96, arrayLength(&x)); i += 3) {
            x[i] = 5.0 + sin(1.7 * f32(i));
            let deviation = x[i] - sums.x;
            sums += vec4f(0.0, deviation, deviation * deviation, 0.0);
        }
        tiles[id.x] = sums;
    }";

fn main() -> Result<(), Box<dyn Error>> {
    block_on(run())
}

async fn run() -> Result<(), Box<dyn Error>> {
    // On the host: sums about 5 of every channel, taken with the values.
    let mut values = Vec::new();
    let mut sums = [[0.0; 2]; DIMS[1]];
    for i in 0..DIMS[0] * DIMS[1] {
        let x = 5.0 + (1.7 * i as f32).sin();
        let deviation = f64::from(x) - 5.0;
        let [sum, squares] = &mut sums[i % DIMS[1]];
        (*sum, *squares) = (*sum + deviation, *squares + deviation * deviation);
        values.push(x);
    }
    let channels = sums.map(|[sum, squares]| Moments::from_sums(DIMS[0] as u64, 5.0, sum, squares));
    let host = Device::host();
    compare("sums on the host", &host.upload(&DIMS, &values)?, LocalStatistics::of_rank(channels))
        .await?;

    // On a GPU: tiles, which a kernel has written with x.
    let adapters = Device::adapters().await;
    let Some(adapter) = adapters.first() else {
        println!("no adapter: neither a GPU nor a software driver, so nothing of tiles");
        return Ok(());
    };
    let device = Device::from_adapter(adapter).await?;
    let (gpu, queue) = device.wgpu().ok_or("a device without wgpu")?;
    let x = device.zeros(&DIMS)?;
    let tiles = device.zeros(&[COUNTS.len(), DIMS[1], 4])?;
    run_kernel(gpu, queue, [&x, &tiles])?;
    let local = LocalStatistics::from_tiles(&tiles, &COUNTS).await?;
    compare(&format!("tiles on {device}"), &x, local).await
}

/// y with given statistics, beside y of the plain way, which takes them itself.
async fn compare(what: &str, x: &Tensor, local: LocalStatistics) -> Result<(), Box<dyn Error>> {
    let bn = SyncBatchNorm::new(BatchNormConfig::torch(DIMS[1]), [x.device().clone()])?;
    let global = bn.synchronize(local).await?;
    let y = bn.normalize(x, &global).await?.output.to_vec().await?;
    let plain = bn.forward_train(x).await?.output.to_vec().await?;
    let differences = || y.iter().zip(&plain).map(|(a, b)| (a - b).abs());
    println!(
        "{what}: largest difference of y {:.1e}, allowed 2e-6",
        differences().fold(0.0, f32::max)
    );
    if differences().all(|difference| difference <= 2e-6) {
        Ok(())
    } else {
        Err(format!("{what}: y is wrong").into())
    }
}

fn run_kernel(
    gpu: &wgpu::Device,
    queue: &wgpu::Queue,
    tensors: [&Tensor; 2],
) -> Result<(), Box<dyn Error>> {
    let source = ShaderSource::Wgsl(KERNEL.into());
    let module = &gpu.create_shader_module(wgpu::ShaderModuleDescriptor { label: None, source });
    let pipeline = gpu.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: None,
        layout: None,
        module,
        entry_point: None,
        compilation_options: Default::default(),
        cache: None,
    });
    let [x, tiles] = tensors.map(|tensor| tensor.binding().ok_or("a tensor on the host"));
    let entries = [(0, x?), (1, tiles?)]
        .map(|(binding, part)| BindGroupEntry { binding, resource: BindingResource::Buffer(part) });
    let layout = &pipeline.get_bind_group_layout(0);
    let bindings = gpu.create_bind_group(&wgpu::BindGroupDescriptor {
        label: None,
        layout,
        entries: &entries,
    });
    let mut encoder = gpu.create_command_encoder(&Default::default());
    let mut pass = encoder.begin_compute_pass(&Default::default());
    pass.set_pipeline(&pipeline);
    pass.set_bind_group(0, &bindings, &[]);
    pass.dispatch_workgroups(1, 1, 1);
    drop(pass);
    queue.submit([encoder.finish()]);
    Ok(())
}
