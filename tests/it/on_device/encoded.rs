//! What may be asked of a pass within the application's encoder: a chain with kernels of the
//! application's own between, in place, and forward once more.

use pollster::block_on;
use syncbn::error::ArgumentError;
use syncbn::low_level::Epilogue;
use syncbn::{Backward, BatchNorm, BatchNormConfig, Device, Error, Forward, Tensor, Workspace};

use super::application::{DIMS, Given, config};
use super::common::*;

/// y = 2·x + 1 for each value: a kernel of the application's, which binds tensors where they lie.
struct Affine {
    device: Device,
    pipeline: wgpu::ComputePipeline,
}

const AFFINE: &str = "
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
    if id.x < arrayLength(&x) { y[id.x] = 2.0 * x[id.x] + 1.0; }
}
";

impl Affine {
    fn new(device: &Device) -> Self {
        let pipeline = kernel::pipeline(device.wgpu().unwrap().0, AFFINE, None);
        Self { device: device.clone(), pipeline }
    }

    fn record(&self, encoder: &mut wgpu::CommandEncoder, x: &Tensor, y: &Tensor) {
        let bound = [x, y].map(|tensor| tensor.binding().unwrap());
        let workgroups = [x.element_count().div_ceil(64) as u32, 1];
        let raw = self.device.wgpu().unwrap().0;
        kernel::record(raw, encoder, &self.pipeline, &bound, workgroups);
    }

    /// In a submission of its own.
    fn run(&self, x: &Tensor, y: &Tensor) {
        let (raw, queue) = self.device.wgpu().unwrap();
        let mut encoder = raw.create_command_encoder(&Default::default());
        self.record(&mut encoder, x, y);
        queue.submit([encoder.finish()]);
    }
}

/// Two layers and the kernel between them: z = affine(bn(x)), v = bn(z); backward with the kernel
/// between the gradients.
struct Chain {
    device: Device,
    layers: [BatchNorm; 2],
    kernel: Affine,
    x: Tensor,
    y: Tensor,
    z: Tensor,
    v: Tensor,
    dx: Tensor,
    dy: Tensor,
    dz: Tensor,
    dv: Tensor,
    dw: [Tensor; 2],
}

impl Chain {
    fn new(config: &BatchNormConfig, device: &Device) -> Self {
        let random = |seed: u64| Batch::random(&DIMS[0], &mut Random::new(seed)).upload(device);
        let [y, z, v, dx, dy, dz] = [0; 6].map(|_| device.zeros(&DIMS[0]).unwrap());
        let dw = [0; 2].map(|_| {
            device.upload(&[config.num_features], &vec![0.5; config.num_features]).unwrap()
        });
        let layers = [0, 1].map(|_| BatchNorm::new(config.clone(), device).unwrap());
        let kernel = Affine::new(device);
        let device = device.clone();
        Self { layers, kernel, x: random(1), y, z, v, dx, dy, dz, dv: random(2), dw, device }
    }

    /// Every pass, and the kernel, in a submission of its own.
    fn one_by_one(&mut self) {
        let Self {
            layers: [first, second],
            kernel,
            x,
            y,
            z,
            v,
            dx,
            dy,
            dz,
            dv,
            dw: [dw_first, dw_second],
            ..
        } = self;
        let of_first = first.forward_train(Forward::of(&*x).write_to(&mut *y)).unwrap().saved;
        kernel.run(y, z);
        let of_second = second.forward_train(Forward::of(&*z).write_to(v)).unwrap().saved;
        let request = Backward::of(&*z, &*dv).input_gradient(&mut *dz).weight_gradient(dw_second);
        second.backward(&of_second, request.accumulate()).unwrap();
        kernel.run(dz, dy);
        let request = Backward::of(&*x, &*dy).input_gradient(dx).weight_gradient(dw_first);
        first.backward(&of_first, request.accumulate()).unwrap();
    }

    /// All of it in one encoder; what is saved is dropped before that is submitted.
    fn in_one_encoder(&mut self, workspace: &mut Workspace) {
        let Self { device, layers: [first, second], kernel, x, y, z, v, dx, dy, dz, dv, dw } = self;
        let [dw_first, dw_second] = dw;
        let (raw, queue) = device.wgpu().unwrap();
        let mut encoder = raw.create_command_encoder(&Default::default());
        let request = Forward::of(&*x).write_to(&mut *y).encode(&mut encoder, workspace);
        let of_first = first.forward_train(request).unwrap().saved;
        kernel.record(&mut encoder, y, z);
        let request = Forward::of(&*z).write_to(v).encode(&mut encoder, workspace);
        let of_second = second.forward_train(request).unwrap().saved;
        let request = Backward::of(&*z, &*dv).input_gradient(&mut *dz).weight_gradient(dw_second);
        second.backward(&of_second, request.accumulate().encode(&mut encoder, workspace)).unwrap();
        kernel.record(&mut encoder, dz, dy);
        let request = Backward::of(&*x, &*dy).input_gradient(dx).weight_gradient(dw_first);
        first.backward(&of_first, request.accumulate().encode(&mut encoder, workspace)).unwrap();
        drop((of_first, of_second));
        queue.submit([encoder.finish()]);
    }

    /// The bits of what it wrote, and the running statistics.
    fn outcome(&self) -> (Vec<Vec<u32>>, [Option<syncbn::stats::RunningStats>; 2]) {
        let all =
            [&self.y, &self.z, &self.v, &self.dx, &self.dy, &self.dz, &self.dw[0], &self.dw[1]];
        let values: Vec<Vec<f32>> = all.map(|of| block_on(of.to_vec()).unwrap()).into();
        (
            bits(&values),
            self.layers.each_ref().map(|layer| block_on(layer.running_stats()).unwrap()),
        )
    }
}

#[test]
fn two_layers_and_a_kernel_of_the_application_s_are_one_submission_with_the_bits_of_many() {
    let device = &virtual_gpus()[0];
    for epilogue in [Epilogue::NONE, Epilogue::leaky_relu(0.25)] {
        let config = BatchNormConfig::torch(DIMS[0][1])
            .with_residual(epilogue.residual)
            .with_activation(epilogue.activation);
        let [mut expected, mut found] = [0, 1].map(|_| Chain::new(&config, device));
        let mut workspace = Workspace::new(device);
        // Gradients of weights add up, and running statistics move, over three steps.
        for step in 0..3 {
            expected.one_by_one();
            found.in_one_encoder(&mut workspace);
            let found = found.outcome();
            let expected = expected.outcome();
            assert_eq!(found, expected, "{epilogue:?}, step {step}");
            assert!(
                found.0.iter().all(|bits| bits.iter().any(|&bits| bits != 0)),
                "nothing was written"
            );
        }
    }
}

/// A layer, and what it gives of a call with its gradients where x and residuals stay.
fn expected(
    config: BatchNormConfig,
    given: &Given,
    device: &Device,
) -> (BatchNorm, [Vec<Vec<u32>>; 2]) {
    let layer = BatchNorm::new(config, device).unwrap();
    let forward = layer.forward_train(given.forward()).unwrap();
    let backward = layer.backward(&forward.saved, given.backward()).unwrap();
    (layer, [forward.output, backward.input].map(|tensors| bits(&read(&tensors))))
}

#[test]
fn a_pass_in_place_within_an_encoder_gives_the_bits_of_one_out_of_place() {
    let device = &virtual_gpus()[0];
    let (raw, queue) = device.wgpu().unwrap();
    let mut given = Given::new(device);
    let (reference, [y, dx]) = expected(config(), &given, device);
    let layer = BatchNorm::new(config(), device).unwrap();
    let mut workspace = Workspace::new(device);
    let mut encoder = raw.create_command_encoder(&Default::default());
    // Backward in place of the gradient of y, then forward in place of x.
    let mut outputs = DIMS.map(|dims| device.zeros(&dims).unwrap());
    let request = given.forward().write_to(&mut outputs).encode(&mut encoder, &mut workspace);
    let saved = layer.forward_train(request).unwrap().saved;
    let request = Backward::in_place(&given.x, &mut given.g).residual(&given.residuals);
    layer.backward(&saved, request.encode(&mut encoder, &mut workspace)).unwrap();
    let request = Forward::in_place(&mut given.x).residual(&given.residuals).untracked();
    let in_place = layer.forward_train(request.encode(&mut encoder, &mut workspace)).unwrap().saved;
    queue.submit([encoder.finish()]);
    assert_eq!(bits(&read(&given.g)), dx);
    assert_eq!(bits(&read(&given.x)), y);
    assert_eq!(bits(&read(&outputs)), y);
    assert_eq!(
        block_on(layer.running_stats()).unwrap(),
        block_on(reference.running_stats()).unwrap()
    );
    // x is gone, for the call that wrote to it and for the one before.
    for saved in [in_place, saved] {
        let error = layer.backward(&saved, given.backward()).unwrap_err();
        let reason = "it was written since, as a forward call in place does; run forward again";
        assert_eq!(
            error,
            Error::from(ArgumentError::NotSaved { argument: "x[0]".to_owned(), reason })
        );
    }
}

#[test]
fn forward_may_be_encoded_once_more_and_then_be_differentiated() {
    let device = &virtual_gpus()[0];
    let (raw, queue) = device.wgpu().unwrap();
    for mask in [false, true] {
        let given = Given::new(device);
        let config = config().with_activation_mask(mask);
        let (reference, [y, dx]) = expected(config.clone(), &given, device);
        let layer = BatchNorm::new(config, device).unwrap();
        let mut workspace = Workspace::new(device);
        let zeros = || DIMS.map(|dims| device.zeros(&dims).unwrap());
        let [mut first, mut second, mut gradients] = [zeros(), zeros(), zeros()];
        let mut encoder = raw.create_command_encoder(&Default::default());
        // As checkpointing does, which keeps nothing of the first pass.
        drop(
            layer
                .forward_train(
                    given.forward().write_to(&mut first).encode(&mut encoder, &mut workspace),
                )
                .unwrap(),
        );
        let request =
            given.forward().untracked().write_to(&mut second).encode(&mut encoder, &mut workspace);
        let saved = layer.forward_train(request).unwrap().saved;
        let request = if saved.needs_residual() {
            given.backward()
        } else {
            Backward::of(&given.x, &given.g)
        };
        assert_eq!(saved.needs_residual(), !mask);
        let request = request.input_gradient(&mut gradients).encode(&mut encoder, &mut workspace);
        layer.backward(&saved, request).unwrap();
        queue.submit([encoder.finish()]);
        assert_eq!(
            [first, second, gradients].map(|of| bits(&read(&of))),
            [y.clone(), y, dx],
            "mask {mask}"
        );
        // It counts once.
        assert_eq!(
            block_on(layer.running_stats()).unwrap(),
            block_on(reference.running_stats()).unwrap()
        );
    }
}

#[test]
fn what_an_encoded_call_makes_is_the_caller_s() {
    let device = &virtual_gpus()[0];
    let (raw, queue) = device.wgpu().unwrap();
    let given = Given::new(device);
    let (_, [y, dx]) = expected(config(), &given, device);
    let layer = BatchNorm::new(config(), device).unwrap();
    let mut workspace = Workspace::new(device);
    let mut encoder = raw.create_command_encoder(&Default::default());
    let forward =
        layer.forward_train(given.forward().encode(&mut encoder, &mut workspace)).unwrap();
    let backward = layer
        .backward(&forward.saved, given.backward().encode(&mut encoder, &mut workspace))
        .unwrap();
    assert!(backward.weight.is_some() && backward.bias.is_some() && backward.report.is_none());
    queue.submit([encoder.finish()]);
    assert_eq!([forward.output, backward.input].map(|of| bits(&read(&of))), [y, dx]);
}
