//! What a training step keeps and allocates on a device, over the layers of ResNet-50 at a batch of
//! 32.
//!
//! The device is wgpu's own that runs nothing: memory is asked of it as of any other, and no shader
//! costs time.

use std::cell::Cell;

use crate::common::events::hear;
use crate::common::noop;
use pollster::block_on;
use syncbn::{
    Backward, BatchNormConfig, Device, Forward, SyncBatchNorm, Tensor, low_level::Epilogue,
};
use tracing::field::{Field, Visit};

thread_local! {
    /// Bytes allocated on devices by this thread since they were last taken: all of them, and the
    /// largest at once.
    static TAKEN: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
}

/// Adds up what the crate says it allocates, on this thread until it is dropped.
fn counting() -> tracing::subscriber::DefaultGuard {
    hear(&["syncbn::memory"], |event| event.record(&mut Size))
}

struct Size;

impl Visit for Size {
    fn record_u64(&mut self, field: &Field, value: u64) {
        assert_eq!(field.name(), "size_bytes");
        TAKEN.with(|taken| {
            let (total, largest) = taken.get();
            taken.set((total + value, largest.max(value)));
        });
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}

/// What was allocated since this was last called: in all, and the largest at once.
fn taken() -> (u64, u64) {
    TAKEN.take()
}

/// (channels, height and width, epilogue) of the 53 layers.
fn resnet50() -> Vec<(usize, usize, Epilogue)> {
    let mut layers = vec![(64, 112, Epilogue::RELU)];
    for (blocks, width, size) in [(3, 64, 56), (4, 128, 28), (6, 256, 14), (3, 512, 7)] {
        for block in 0..blocks {
            // The first block of a stage halves the size after its first convolution, and projects
            // its input.
            let before = if block == 0 && width > 64 { 2 * size } else { size };
            layers.push((width, before, Epilogue::RELU));
            layers.push((width, size, Epilogue::RELU));
            layers.push((4 * width, size, Epilogue::ADD_RELU));
            if block == 0 {
                layers.push((4 * width, size, Epilogue::NONE));
            }
        }
    }
    layers
}

#[test]
fn a_step_of_resnet_50_keeps_no_output_and_allocates_nothing_near_the_size_of_an_input() {
    let _counting = counting();
    let layers = resnet50();
    assert_eq!(layers.len(), 53);
    let device = noop();
    // The largest input, sliced for every layer: activations are the caller's.
    let elements =
        layers.iter().map(|&(channels, size, _)| 32 * channels * size * size).max().unwrap();
    let buffers: Vec<wgpu::Buffer> = (0..5).map(|_| page(&device, 4 * elements as u64)).collect();
    for mask in [false, true] {
        let mut activations = 0;
        let mut with_residual = 0;
        let mut kept = 0;
        let mut peak = 0;
        // Until the step ends, so that no layer uses the mask of another again.
        let mut all_saved = Vec::new();
        for &(channels, size, epilogue) in &layers {
            let config = BatchNormConfig::torch(channels)
                .with_residual(epilogue.residual)
                .with_activation(epilogue.activation)
                .with_activation_mask(mask);
            let layer = SyncBatchNorm::new(config, [device.clone()]).unwrap();
            let tensor = |index: usize| -> Tensor {
                device.wrap(buffers[index].clone(), 0, &[32, channels, size, size]).unwrap()
            };
            let [x, residual, mut y, g, mut grad_residual] = [0, 1, 2, 3, 4].map(tensor);
            let adds = epilogue.adds_residual();
            let [mut grad_weight, mut grad_bias] =
                [0, 1].map(|_| device.zeros(&[channels]).unwrap());
            taken();
            let request = if adds { Forward::of(&x).residual(&residual) } else { Forward::of(&x) };
            let saved = block_on(layer.forward_train(request.write_to(&mut y))).unwrap().saved;
            let (forward, forward_largest) = taken();
            // y becomes the gradient of x, as it is not needed again.
            let request =
                Backward::of(&x, &g).input_gradient(&mut y).weight_gradient(&mut grad_weight);
            let request = request
                .bias_gradient(&mut grad_bias)
                .residual_gradient(adds.then_some(&mut grad_residual));
            let request =
                if saved.needs_residual() { request.residual(&residual) } else { request };
            block_on(layer.backward(&saved, request)).unwrap();
            let (backward, backward_largest) = taken();

            let bytes = 4 * (32 * channels * size * size) as u64;
            let keeps_mask = mask && epilogue == Epilogue::ADD_RELU;
            // One bit per value. Planes of 7·7: of whole groups of 4096 values in the order of
            // addresses. Others: of whole tiles, of 64 values, as quads, of each lane; up
            // to 256 lanes, or as many as 64 values each would take.
            let values = 32 * size * size;
            let tile = 64 * values.div_ceil(64usize).next_power_of_two().min(256);
            let mask_bytes = if size % 2 == 1 {
                ((channels * values).div_ceil(4096) * 512) as u64
            } else {
                (channels * values.div_ceil(tile) * tile / 8) as u64
            };
            assert_eq!(
                saved.mask_bytes(),
                if keeps_mask { mask_bytes } else { 0 },
                "{channels} x {size}"
            );
            // Everything that a pass allocates but the mask (which may be scratch of an earlier
            // call), even if none of it were given back before its end: sums of tiles of 4096
            // values and of channels, there and back, and parameters of kernels.
            for (pass, allocated, largest) in [
                ("forward", forward.saturating_sub(saved.mask_bytes()), forward_largest),
                ("backward", backward, backward_largest),
            ] {
                let allowed = bytes / 64 + 128 * channels as u64 + 4096;
                assert!(
                    allocated <= allowed,
                    "{channels} x {size}, {pass}: {allocated} bytes of scratch"
                );
                let allowed = (bytes / 64).max(saved.mask_bytes()) + 128 * channels as u64;
                assert!(
                    largest <= allowed,
                    "{channels} x {size}, {pass}: {largest} bytes at once for {bytes} of x"
                );
                peak = peak.max(allocated);
            }
            activations += bytes;
            with_residual += if adds { bytes } else { 0 };
            kept += saved.mask_bytes();
            all_saved.push(saved);
        }
        println!(
            "mask {mask}: {} MB of inputs are the caller's, {} MB kept, at most {} kB of scratch \
            in a pass",
            activations >> 20,
            kept >> 20,
            peak >> 10
        );
        // 1/32 and what tiles lack that are not full, most in the layers of 7 x 7.
        assert!(kept <= with_residual / 24, "{kept} bytes kept for {with_residual}");
    }
}

#[test]
fn the_output_of_an_allocating_call_is_noticed() {
    // That the count above can fail.
    let _counting = counting();
    let device = noop();
    let layer = SyncBatchNorm::new(BatchNormConfig::torch(64), [device.clone()]).unwrap();
    let x = device.zeros(&[32, 64, 56, 56]).unwrap();
    taken();
    block_on(layer.forward_train(&x)).unwrap();
    let (total, largest) = taken();
    let bytes = 4 * 32 * 64 * 56 * 56;
    assert!(largest == bytes && total >= bytes, "{total}, {largest}");
}

/// A buffer of the application.
fn page(device: &Device, size: u64) -> wgpu::Buffer {
    let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST;
    device.wgpu().unwrap().0.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size,
        usage,
        mapped_at_creation: false,
    })
}
