//! The memory of encoded calls: it is recycled when what was saved is dropped, and no call has that
//! of another.

use syncbn::{Backward, BatchNorm, BatchNormConfig, Device, Saved, Tensor, Workspace};

use super::application::{DIMS, Given, config};
use super::common::*;

/// The buffer that the statistics of a call lie in.
fn buffer_of(saved: &Saved) -> wgpu::Buffer {
    saved.mean_and_inv_std(0).unwrap()[0].binding().unwrap().buffer.clone()
}

/// A layer, its workspace, and where its outputs go.
struct Encoding {
    device: Device,
    layer: BatchNorm,
    workspace: Workspace,
    y: [Tensor; 2],
}

impl Encoding {
    fn new(config: BatchNormConfig, device: &Device) -> Self {
        let layer = BatchNorm::new(config, device).unwrap();
        let workspace = Workspace::new(device);
        Self {
            device: device.clone(),
            layer,
            workspace,
            y: DIMS.map(|dims| device.zeros(&dims).unwrap()),
        }
    }

    fn encoder(&self) -> wgpu::CommandEncoder {
        self.device.wgpu().unwrap().0.create_command_encoder(&Default::default())
    }

    fn submit(&self, encoder: wgpu::CommandEncoder) {
        self.device.wgpu().unwrap().1.submit([encoder.finish()]);
    }

    fn forward(&mut self, encoder: &mut wgpu::CommandEncoder, given: &Given) -> Saved {
        let request = given.forward().write_to(&mut self.y).encode(encoder, &mut self.workspace);
        self.layer.forward_train(request).unwrap().saved
    }

    fn backward(
        &mut self,
        encoder: &mut wgpu::CommandEncoder,
        saved: &Saved,
        given: &Given,
    ) -> Vec<Tensor> {
        let request = if saved.needs_residual() {
            given.backward()
        } else {
            Backward::of(&given.x, &given.g)
        };
        self.layer.backward(saved, request.encode(encoder, &mut self.workspace)).unwrap().input
    }
}

/// The bits of the gradient of x of a call by itself.
fn expected(config: &BatchNormConfig, given: &Given, device: &Device) -> Vec<Vec<u32>> {
    let layer = BatchNorm::new(config.clone(), device).unwrap();
    let saved = layer.forward_train(given.forward()).unwrap().saved;
    let request =
        if saved.needs_residual() { given.backward() } else { Backward::of(&given.x, &given.g) };
    bits(&read(&layer.backward(&saved, request).unwrap().input))
}

/// Statistics of the batch alone, and a mask beside them.
fn configs() -> [BatchNormConfig; 2] {
    [config(), config().with_activation_mask(true)]
}

#[test]
fn a_step_uses_the_memory_of_what_the_step_before_has_dropped() {
    let device = &virtual_gpus()[0];
    for config in configs() {
        let mut encoding = Encoding::new(config.clone(), device);
        let mut buffers = Vec::new();
        for seed in 0..3 {
            let given = Given::of(device, [seed, seed + 10, seed + 20]);
            let mut encoder = encoding.encoder();
            let saved = encoding.forward(&mut encoder, &given);
            buffers.push(buffer_of(&saved));
            let dx = encoding.backward(&mut encoder, &saved, &given);
            // Before it is submitted: the next step is, too, and after it.
            drop(saved);
            encoding.submit(encoder);
            assert_eq!(
                bits(&read(&dx)),
                expected(&config, &given, device),
                "{config:?}, step {seed}"
            );
        }
        assert_eq!(buffers, vec![buffers[0].clone(); 3], "{config:?}");
    }
}

#[test]
fn what_two_calls_have_saved_at_once_is_disjoint() {
    let device = &virtual_gpus()[0];
    for config in configs() {
        let mut encoding = Encoding::new(config.clone(), device);
        let given = [3, 4].map(|seed| Given::of(device, [seed, seed + 10, seed + 20]));
        let expected = given.each_ref().map(|given| expected(&config, given, device));
        // Twice, so that the second time memory is there already, in one encoder and in one for
        // each pass.
        for encoders in [1, 4] {
            let mut recorded: Vec<wgpu::CommandEncoder> =
                (0..encoders).map(|_| encoding.encoder()).collect();
            let place = |pass: usize| pass % encoders;
            let saved =
                [0, 1].map(|call| encoding.forward(&mut recorded[place(call)], &given[call]));
            assert_ne!(buffer_of(&saved[0]), buffer_of(&saved[1]), "{config:?}");
            // The earlier one first, as of two micro-batches.
            let dx = [0, 1].map(|call| {
                encoding.backward(&mut recorded[place(2 + call)], &saved[call], &given[call])
            });
            recorded.into_iter().for_each(|encoder| encoding.submit(encoder));
            assert_eq!(
                dx.map(|dx| bits(&read(&dx))),
                expected,
                "{config:?}, {encoders} encoder(s)"
            );
        }
    }
}

#[test]
fn what_is_kept_until_later_steps_have_run_is_still_what_it_was() {
    let device = &virtual_gpus()[0];
    for config in configs() {
        let mut encoding = Encoding::new(config.clone(), device);
        let kept = Given::of(device, [5, 6, 7]);
        let mut encoder = encoding.encoder();
        let saved = encoding.forward(&mut encoder, &kept);
        encoding.submit(encoder);
        for seed in 10..13 {
            let given = Given::of(device, [seed, seed + 10, seed + 20]);
            let mut encoder = encoding.encoder();
            let of_step = encoding.forward(&mut encoder, &given);
            assert_ne!(buffer_of(&of_step), buffer_of(&saved));
            encoding.backward(&mut encoder, &of_step, &given);
            drop(of_step);
            encoding.submit(encoder);
        }
        let mut encoder = encoding.encoder();
        let dx = encoding.backward(&mut encoder, &saved, &kept);
        encoding.submit(encoder);
        assert_eq!(bits(&read(&dx)), expected(&config, &kept, device), "{config:?}");
    }
}

#[test]
fn calls_that_are_submitted_have_no_memory_of_a_workspace() {
    let device = &virtual_gpus()[0];
    let mut encoding = Encoding::new(config(), device);
    let [encoded, submitted] = [20, 30].map(|seed| Given::of(device, [seed, seed + 1, seed + 2]));
    let mut encoder = encoding.encoder();
    let saved = encoding.forward(&mut encoder, &encoded);
    let first = buffer_of(&saved);
    let dx = encoding.backward(&mut encoder, &saved, &encoded);
    drop(saved);
    // Recorded, not yet submitted: a call that runs at once finds other memory.
    let saved = encoding.layer.forward_train(submitted.forward()).unwrap().saved;
    assert_ne!(buffer_of(&saved), first);
    let dx_submitted = encoding.layer.backward(&saved, submitted.backward()).unwrap().input;
    encoding.submit(encoder);
    assert_eq!(bits(&read(&dx)), expected(&config(), &encoded, device));
    assert_eq!(bits(&read(&dx_submitted)), expected(&config(), &submitted, device));
    // Nor has another workspace.
    encoding.workspace = Workspace::new(device);
    let mut encoder = encoding.encoder();
    assert_ne!(buffer_of(&encoding.forward(&mut encoder, &encoded)), first);
}

#[test]
fn one_workspace_serves_layers_of_other_channels_and_shapes() {
    let device = &virtual_gpus()[0];
    let mut workspace = Workspace::new(device);
    let (raw, queue) = device.wgpu().unwrap();
    let sizes = [[3, 70, 5], [2, 1, 9_001], [40, 7, 1]];
    let layers = sizes.map(|dims| BatchNorm::new(BatchNormConfig::torch(dims[1]), device).unwrap());
    let x: Vec<Tensor> = sizes
        .iter()
        .map(|dims| Batch::random(dims, &mut Random::new(dims[1] as u64)).upload(device))
        .collect();
    let expected: Vec<Vec<Vec<u32>>> = layers
        .iter()
        .zip(&x)
        .map(|(layer, x)| {
            let forward = layer.forward_train(syncbn::Forward::of(x).untracked()).unwrap();
            let dx = layer.backward(&forward.saved, Backward::of(x, x)).unwrap().input;
            bits(&read(&[forward.output, dx]))
        })
        .collect();
    for _ in 0..2 {
        let mut encoder = raw.create_command_encoder(&Default::default());
        let mut saved = Vec::new();
        for (layer, x) in layers.iter().zip(&x) {
            saved.push(
                layer
                    .forward_train(syncbn::Forward::of(x).encode(&mut encoder, &mut workspace))
                    .unwrap(),
            );
        }
        let mut gradients = Vec::new();
        for ((layer, x), forward) in layers.iter().zip(&x).zip(&saved).rev() {
            let request = Backward::of(x, x).encode(&mut encoder, &mut workspace);
            gradients.insert(0, layer.backward(&forward.saved, request).unwrap().input);
        }
        queue.submit([encoder.finish()]);
        let found = saved
            .into_iter()
            .zip(gradients)
            .map(|(forward, dx)| bits(&read(&[forward.output, dx])));
        assert_eq!(found.collect::<Vec<_>>(), expected);
    }
}
