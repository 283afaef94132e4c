//! What double backward refuses, and the errors.

use pollster::block_on;
use syncbn::config::Activation;
use syncbn::error::ArgumentError;
use syncbn::{
    BatchNormConfig, DType, Device, DoubleBackward, Error, Forward, Layout, Saved, SyncBatchNorm,
    Tensor,
};

use super::common::*;

const DIMS: [usize; 3] = [4, 3, 2];

fn config() -> BatchNormConfig {
    BatchNormConfig::torch(3)
}

/// A layer on the host after a training step.
struct Stepped {
    device: Device,
    layer: SyncBatchNorm,
    x: Tensor,
    saved: Saved,
}

impl Stepped {
    fn new(config: BatchNormConfig) -> Self {
        let device = Device::host();
        let layer = SyncBatchNorm::new(config, [device.clone()]).unwrap();
        let x = Batch::random(&DIMS, &mut Random::new(3)).upload(&device);
        let forward =
            if layer.config().residual { Forward::of(&x).residual(&x) } else { Forward::of(&x) };
        let saved = block_on(layer.forward_train(forward)).unwrap().saved;
        Self { device, layer, x, saved }
    }

    fn refused(&self, request: DoubleBackward<'_>) -> ArgumentError {
        match block_on(self.layer.double_backward(&self.saved, request)) {
            Err(Error::Argument(error)) => error,
            other => panic!("expected an error of an argument, found {other:?}"),
        }
    }

    fn zeros(&self, dims: &[usize]) -> Tensor {
        self.device.zeros(dims).unwrap()
    }
}

#[test]
fn a_reproducible_layer_is_refused_with_the_reason() {
    let of = Stepped::new(config().with_reproducible(true));
    let error = of.refused(DoubleBackward::of(&of.x, &of.x));
    assert!(matches!(error, ArgumentError::NotWanted { argument: "double_backward", .. }));
    assert!(error.to_string().contains("reproducible"), "{error}");
}

#[test]
fn an_activation_with_a_second_derivative_is_refused_with_the_reason() {
    let of = Stepped::new(config().with_activation(Activation::Gelu));
    let error = of.refused(DoubleBackward::of(&of.x, &of.x));
    assert!(matches!(error, ArgumentError::NotWanted { argument: "double_backward", .. }));
    assert!(error.to_string().contains("second derivative"), "{error}");
}

#[test]
fn padded_samples_are_refused_with_the_reason() {
    let mut of = Stepped::new(config());
    let padded = Forward::of(&of.x).lengths(&[2, 1, 0, 2]);
    of.saved = block_on(of.layer.forward_train(padded)).unwrap().saved;
    let error = of.refused(DoubleBackward::of(&of.x, &of.x));
    assert!(matches!(error, ArgumentError::NotWanted { argument: "double_backward", .. }));
    assert!(error.to_string().contains("padded"), "{error}");
}

#[test]
fn cotangents_of_another_form_are_refused_by_name() {
    let of = Stepped::new(config());
    let request = || DoubleBackward::of(&of.x, &of.x);
    let other = of.zeros(&[4, 3, 5]);
    assert!(matches!(
        of.refused(request().input_cotangent(&other)),
        ArgumentError::Dims { argument: "input_cotangent", rank: None, .. }
    ));
    let half = of.device.zeros_of(&DIMS, DType::F16).unwrap();
    let error = of.refused(request().input_cotangent(&half));
    assert!(
        matches!(&error, ArgumentError::DType { argument, .. } if argument == "input_cotangent")
    );
    let last = of.zeros(&[4, 2, 3]).with_layout(Layout::ChannelsLast);
    assert!(matches!(
        of.refused(request().input_cotangent(&last)),
        ArgumentError::Layout { argument: "input_cotangent", rank: None, .. }
    ));
    let long = of.zeros(&[4]);
    assert!(matches!(
        of.refused(request().weight_cotangent(&long)),
        ArgumentError::Dims { argument: "weight_cotangent", .. }
    ));
    assert!(matches!(
        of.refused(request().bias_cotangent(&long)),
        ArgumentError::Dims { argument: "bias_cotangent", .. }
    ));
}

#[test]
fn a_cotangent_that_cannot_be_read_is_refused_by_its_usage() {
    let device = &virtual_gpus()[0];
    let layer = SyncBatchNorm::new(config(), [device.clone()]).unwrap();
    let x = Batch::random(&DIMS, &mut Random::new(3)).upload(device);
    let saved = block_on(layer.forward_train(&x)).unwrap().saved;
    let descriptor = wgpu::BufferDescriptor {
        label: None,
        size: 12,
        usage: wgpu::BufferUsages::STORAGE,
        mapped_at_creation: false,
    };
    let buffer = device.wgpu().expect("a GPU").0.create_buffer(&descriptor);
    let cotangent = device.wrap(buffer, 0, &[3]).unwrap();
    let request = DoubleBackward::of(&x, &x).weight_cotangent(&cotangent);
    let error = block_on(layer.double_backward(&saved, request)).expect_err("no COPY_SRC");
    assert_eq!(
        error.to_string(),
        "weight_cotangent has usage BufferUsages(STORAGE), expected it to contain \
         BufferUsages(COPY_SRC)"
    );
}

#[test]
fn grad_output_lies_and_is_stored_as_x() {
    let of = Stepped::new(config());
    let half = of.device.zeros_of(&DIMS, DType::F16).unwrap();
    let error = of.refused(DoubleBackward::of(&of.x, &half));
    assert!(matches!(&error, ArgumentError::DType { argument, .. } if argument == "grad_output"));
    let last = of.zeros(&[4, 2, 3]).with_layout(Layout::ChannelsLast);
    assert!(matches!(
        of.refused(DoubleBackward::of(&of.x, &last)),
        ArgumentError::Dims { argument: "grad_output", .. } | ArgumentError::Layout { .. }
    ));
}

#[test]
fn tensors_written_since_and_other_tensors_are_refused() {
    let mut of = Stepped::new(config());
    let other = of.zeros(&DIMS);
    let error = of.refused(DoubleBackward::of(&other, &other));
    assert!(matches!(&error, ArgumentError::NotSaved { argument, .. } if argument == "x"));
    of.x.write(&[0.5f32; 24]).unwrap();
    let x = of.zeros(&DIMS);
    let error = of.refused(DoubleBackward::of(&of.x, &x));
    assert!(
        matches!(&error, ArgumentError::NotSaved { reason, .. } if reason.contains("written")),
        "{error}"
    );
    // Said to hold the same values it is accepted.
    let request = DoubleBackward::of(&other, &x).recomputed();
    assert!(block_on(of.layer.double_backward(&of.saved, request)).is_ok());
}

#[test]
fn parameters_that_are_absent_or_frozen_have_no_cotangent() {
    for (config, name) in [
        (config().with_weight(false), "weight_cotangent"),
        (config().with_bias(false), "bias_cotangent"),
    ] {
        let of = Stepped::new(config);
        let zeros = of.zeros(&[3]);
        let request = DoubleBackward::of(&of.x, &of.x);
        let request = if name == "weight_cotangent" {
            request.weight_cotangent(&zeros)
        } else {
            request.bias_cotangent(&zeros)
        };
        let error = of.refused(request);
        assert!(
            matches!(error, ArgumentError::NoSuchParameter { argument, .. } if argument == name)
        );
    }
    let of = Stepped::new(config().with_freeze_affine(true));
    let zeros = of.zeros(&[3]);
    let error = of.refused(DoubleBackward::of(&of.x, &of.x).weight_cotangent(&zeros));
    assert_eq!(error, ArgumentError::Frozen { argument: "weight_cotangent" });
}

#[test]
fn a_residual_is_given_where_it_is_needed_and_nowhere_else() {
    let of = Stepped::new(config().with_residual(true).with_activation(Activation::Relu));
    let error = of.refused(DoubleBackward::of(&of.x, &of.x));
    assert!(matches!(error, ArgumentError::NoResidual));
    let of = Stepped::new(config());
    let error = of.refused(DoubleBackward::of(&of.x, &of.x).residual(&of.x));
    assert!(matches!(error, ArgumentError::ResidualNotAdded { argument: "residual", .. }));
}

#[test]
fn lists_of_another_length_and_other_devices_are_refused() {
    let [a, b] = [virtual_gpus()[0].clone(), Device::host()];
    let layer = SyncBatchNorm::new(config(), [a.clone(), b.clone()]).unwrap();
    let batches: Vec<Batch> = (0..2).map(|_| Batch::random(&DIMS, &mut Random::new(3))).collect();
    let x = upload(&layer, &batches);
    let saved = block_on(layer.forward_train(&x)).unwrap().saved;
    // A software driver that still computes when the process ends may crash.
    block_on(a.wait()).unwrap();
    let refused = |request| match block_on(layer.double_backward(&saved, request)) {
        Err(Error::Argument(error)) => error,
        other => panic!("expected an error of an argument, found {other:?}"),
    };
    let swapped = [batches[0].upload(&b), batches[1].upload(&a)];
    let error = refused(DoubleBackward::of(&x, &x).input_cotangent(&swapped));
    assert!(matches!(
        error,
        ArgumentError::WrongDevice { argument: "input_cotangent", rank: Some(0), .. }
    ));
    let vectors = [a.zeros(&[3]).unwrap()];
    let error = refused(DoubleBackward::of(&x, &x).weight_cotangent(&vectors));
    assert!(matches!(
        error,
        ArgumentError::RankCount { argument: "weight_cotangent", found: 1, expected: 2 }
    ));
}

#[test]
fn what_a_layer_on_one_gpu_has_saved_is_refused() {
    let device = virtual_gpus()[0].clone();
    let norm = syncbn::BatchNorm::new(config(), &device).unwrap();
    let layer = SyncBatchNorm::new(config(), [device.clone()]).unwrap();
    let x = Batch::random(&DIMS, &mut Random::new(3)).upload(&device);
    let saved = norm.forward_train(&x).unwrap().saved;
    block_on(device.wait()).unwrap();
    let error = block_on(layer.double_backward(&saved, DoubleBackward::of(&x, &x))).unwrap_err();
    assert!(error.to_string().contains("a BatchNorm saved it"), "{error}");
    let saved = block_on(layer.forward_train(&x)).unwrap().saved;
    let error = norm.double_backward(&saved, DoubleBackward::of(&x, &x)).unwrap_err();
    assert!(error.to_string().contains("a SyncBatchNorm saved it"), "{error}");
}

#[test]
fn a_layer_on_one_gpu_refuses_the_same() {
    let device = virtual_gpus()[0].clone();
    let x = Batch::random(&DIMS, &mut Random::new(3)).upload(&device);
    let refused = |config, forward: Forward<'_>| {
        let norm = syncbn::BatchNorm::new(config, &device).unwrap();
        let saved = norm.forward_train(forward).unwrap().saved;
        norm.double_backward(&saved, DoubleBackward::of(&x, &x)).unwrap_err().to_string()
    };
    let gelu = config().with_activation(Activation::Gelu);
    let error = refused(gelu, Forward::of(&x));
    assert!(error.contains("second derivative"), "{error}");
    let error = refused(config(), Forward::of(&x).lengths(&[2, 1, 0, 2]));
    assert!(error.contains("padded"), "{error}");
    let frozen = config().with_freeze_affine(true);
    let norm = syncbn::BatchNorm::new(frozen, &device).unwrap();
    let saved = norm.forward_train(&x).unwrap().saved;
    let u = device.zeros(&[3]).unwrap();
    let request = DoubleBackward::of(&x, &x).bias_cotangent(&u);
    let error = norm.double_backward(&saved, request).unwrap_err();
    assert!(
        matches!(error, Error::Argument(ArgumentError::Frozen { argument: "bias_cotangent" })),
        "{error}"
    );
    block_on(device.wait()).unwrap();
}

#[test]
fn a_synchronized_layer_refuses_an_encoder() {
    let device = virtual_gpus()[0].clone();
    let layer = SyncBatchNorm::new(config(), [device.clone()]).unwrap();
    let x = Batch::random(&DIMS, &mut Random::new(3)).upload(&device);
    let saved = block_on(layer.forward_train(&x)).unwrap().saved;
    let (raw, _) = device.wgpu().unwrap();
    let mut encoder = raw.create_command_encoder(&Default::default());
    let mut workspace = syncbn::Workspace::new(&device);
    let request = DoubleBackward::of(&x, &x).encode(&mut encoder, &mut workspace);
    let error = block_on(layer.double_backward(&saved, request)).unwrap_err();
    assert!(
        matches!(error, Error::Argument(ArgumentError::NotWanted { argument: "encode", .. })),
        "{error}"
    );
}
