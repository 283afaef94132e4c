//! What is refused, with the errors of a layer that merges on the host and before anything is
//! submitted.

use std::fmt::Debug;

use pollster::block_on;
use syncbn::{
    Backward, BatchNorm, BatchNormConfig, Device, Error, Forward, SyncBatchNorm, Tensor, Workspace,
};
use syncbn::{config::Activation, error::ArgumentError, error::BatchError};

use super::common::*;
use super::one_gpu::on_host;

const CHANNELS: usize = 3;
const DIMS: [usize; 3] = [2, CHANNELS, 5];

fn config() -> BatchNormConfig {
    BatchNormConfig::torch(CHANNELS)
}

fn random(device: &Device, dims: &[usize]) -> Tensor {
    Batch::random(dims, &mut Random::new(5)).upload(device)
}

fn error<T: Debug>(result: Result<T, Error>) -> Error {
    result.expect_err("an error")
}

fn not_saved(argument: &str, reason: &'static str) -> Error {
    ArgumentError::NotSaved { argument: argument.to_owned(), reason }.into()
}

#[test]
fn a_call_that_is_refused_where_the_host_merges_is_refused_alike_and_changes_nothing() {
    let [device, other] = [0, 1].map(|index| virtual_gpus()[index].clone());
    let on_host = on_host(&config(), &device, 2);
    let mut layer = BatchNorm::new(config(), &device).unwrap();
    let before = block_on(layer.state()).unwrap();
    let good = || [random(&device, &DIMS), random(&device, &DIMS)];
    let lists: [[Tensor; 2]; 4] = [
        [random(&device, &DIMS), random(&other, &DIMS)],
        [random(&device, &DIMS), random(&Device::host(), &DIMS)],
        [random(&device, &DIMS), random(&device, &[2, 4, 5])],
        [random(&device, &[1, CHANNELS, 1]), random(&device, &[0, CHANNELS, 5])],
    ];
    for x in &lists {
        let expected = error(block_on(on_host.forward_train(x)));
        assert_eq!(error(layer.forward_train(x)), expected);
        assert_eq!(error(layer.forward_train(Forward::of(x).untracked())), expected);
    }
    assert_eq!(error(layer.forward_train(&lists[3])), BatchError::OneValue.into());
    let none = ArgumentError::RankCount { argument: "x", found: 0, expected: 1 };
    assert_eq!(error(layer.forward_train(&Vec::<Tensor>::new())), none.into());
    let x = good();
    let with_residual = || Forward::of(&x).residual(&x);
    assert_eq!(
        error(layer.forward_train(with_residual())),
        error(block_on(on_host.forward_train(with_residual())))
    );

    // Outputs where inputs lie, and gradients where upstream gradients lie.
    let (raw, _) = device.wgpu().unwrap();
    let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST;
    let buffer = raw.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: 4096,
        usage,
        mapped_at_creation: false,
    });
    let wrapped = || [0, 256].map(|offset| device.wrap(buffer.clone(), offset, &DIMS).unwrap());
    let x_and_y = wrapped();
    let expected =
        error(block_on(on_host.forward_train(Forward::of(&x_and_y).write_to(&mut wrapped()))));
    assert!(matches!(expected, Error::Argument(ArgumentError::Overlap { .. })), "{expected:?}");
    assert_eq!(
        error(layer.forward_train(Forward::of(&x_and_y).write_to(&mut wrapped()))),
        expected
    );
    let mut encoder = raw.create_command_encoder(&Default::default());
    let mut workspace = Workspace::new(&device);
    let mut same = wrapped();
    let encoded = Forward::of(&x_and_y).write_to(&mut same).encode(&mut encoder, &mut workspace);
    assert_eq!(error(layer.forward_train(encoded)), expected);
    assert_eq!(
        block_on(layer.state()).unwrap(),
        before,
        "a call that was refused left something behind"
    );

    let saved = layer.forward_train(&x).unwrap().saved;
    let of_host = block_on(on_host.forward_train(&x)).unwrap().saved;
    let g = wrapped();
    let mut same = wrapped();
    let expected =
        error(block_on(on_host.backward(&of_host, Backward::of(&x, &g).input_gradient(&mut same))));
    assert_eq!(
        error(layer.backward(&saved, Backward::of(&x, &g).input_gradient(&mut same))),
        expected
    );
    let short = [random(&device, &DIMS)];
    assert_eq!(
        error(layer.backward(&saved, Backward::of(&x, &short))),
        error(block_on(on_host.backward(&of_host, Backward::of(&x, &short))))
    );
    let others = good();
    let expected = error(block_on(on_host.backward(&of_host, Backward::of(&others, &g))));
    assert_eq!(
        expected,
        not_saved(
            "x[0]",
            "it is another tensor; give that one, or say `recomputed()` if this one holds the same \
            values"
        )
    );
    assert_eq!(error(layer.backward(&saved, Backward::of(&others, &g))), expected);
    // The call of another layer, and parameters set since.
    let another = BatchNorm::new(config(), &device).unwrap();
    let refused = error(another.backward(&saved, Backward::of(&x, &g)));
    assert_eq!(
        refused,
        not_saved(
            "saved",
            "it is of another layer; give what a forward call of this layer returned"
        )
    );
    layer.set_parameters(Some(&[1.0; CHANNELS]), None).unwrap();
    let refused = error(layer.backward(&saved, Backward::of(&x, &g)));
    assert_eq!(
        refused,
        not_saved("weight or bias", "parameters were set since; run forward again")
    );
}

#[test]
fn a_residual_is_needed_where_it_decides() {
    let device = &virtual_gpus()[0];
    let layer =
        BatchNorm::new(config().with_residual(true).with_activation(Activation::Relu), device)
            .unwrap();
    let x = random(device, &DIMS);
    let residual = random(device, &DIMS);
    let refused = ArgumentError::NoResidual;
    assert_eq!(error(layer.forward_train(&x)), refused.clone().into());
    let saved = layer.forward_train(Forward::of(&x).residual(&residual)).unwrap().saved;
    assert!(saved.needs_residual() && saved.mask_bytes() == 0);
    assert_eq!(error(layer.backward(&saved, Backward::of(&x, &x))), refused.into());
    // A call decides how many ranks there are, and then all its lists have as many.
    let two = [random(device, &DIMS), random(device, &DIMS)];
    let one = [random(device, &DIMS)];
    let refused = ArgumentError::RankCount { argument: "residual", found: 1, expected: 2 };
    assert_eq!(
        error(layer.forward_train(Forward::of(&two).residual(&one))),
        refused.clone().into()
    );
    let saved = layer.forward_train(Forward::of(&two).residual(&two)).unwrap().saved;
    assert_eq!(
        error(layer.backward(&saved, Backward::of(&two, &two).residual(&one))),
        refused.into()
    );
}

#[test]
fn the_host_and_the_tensors_of_another_gpu_are_refused() {
    let [a, b] = [0, 1].map(|index| virtual_gpus()[index].clone());
    let host = Device::host();
    let refused = error(BatchNorm::new(config(), &host));
    assert!(matches!(refused, Error::Argument(ArgumentError::NotAGpu { .. })), "{refused}");
    let text = "BatchNorm::new needs a GPU, found host; a SyncBatchNorm normalizes on the host too";
    assert_eq!(refused.to_string(), text);
    let layer = BatchNorm::new(config(), &a).unwrap();
    for other in [b, host] {
        let found = other.to_string();
        let expected = a.to_string();
        let refused = ArgumentError::WrongDevice { argument: "x", rank: None, found, expected };
        assert_eq!(error(layer.forward_train(&random(&other, &DIMS))), refused.into());
    }
}

#[test]
fn what_one_kind_of_layer_has_saved_the_other_refuses() {
    let device = &virtual_gpus()[0];
    let on_host = SyncBatchNorm::new(config(), [device.clone()]).unwrap();
    let on_device = BatchNorm::new(config(), device).unwrap();
    let x = random(device, &DIMS);
    let of_host = block_on(on_host.forward_train(&x)).unwrap().saved;
    let of_device = on_device.forward_train(&x).unwrap().saved;
    let refused = error(block_on(on_host.backward(&of_device, Backward::of(&x, &x))));
    assert_eq!(refused, not_saved("saved", "a BatchNorm saved it; give it to that layer"));
    let refused = error(block_on(on_host.local_gradient_sums(&of_device, Backward::of(&x, &x))));
    assert_eq!(refused, not_saved("saved", "a BatchNorm saved it; give it to that layer"));
    let refused = error(on_device.backward(&of_host, Backward::of(&x, &x)));
    assert_eq!(refused, not_saved("saved", "a SyncBatchNorm saved it; give it to that layer"));
    // Each has what it can tell without a wait, and the other has not.
    assert!(
        of_host.statistics().is_some()
            && of_host.report().is_some()
            && of_host.mean_and_inv_std(0).is_none()
    );
    assert!(of_device.statistics().is_none() && of_device.report().is_none());
    assert!(of_device.mean_and_inv_std(0).is_some() && of_device.mean_and_inv_std(1).is_none());
}

#[test]
fn only_a_layer_that_reads_nothing_back_is_encoded() {
    let device = &virtual_gpus()[0];
    let (raw, _) = device.wgpu().unwrap();
    let layer = SyncBatchNorm::new(config(), [device.clone()]).unwrap();
    let x = random(device, &DIMS);
    let mut y = device.zeros(&DIMS).unwrap();
    let saved = block_on(layer.forward_train(&x)).unwrap().saved;
    let mut encoder = raw.create_command_encoder(&Default::default());
    let mut workspace = Workspace::new(device);
    let is_refused = |error: Error| {
        matches!(error, Error::Argument(ArgumentError::NotWanted { argument: "encode", .. }))
    };
    let request = Forward::of(&x).write_to(&mut y).encode(&mut encoder, &mut workspace);
    assert!(is_refused(error(block_on(layer.forward_train(request)))));
    let request = Forward::of(&x).write_to(&mut y).encode(&mut encoder, &mut workspace);
    assert!(is_refused(error(block_on(layer.forward_eval(request)))));
    let request = Forward::of(&x).write_to(&mut y).encode(&mut encoder, &mut workspace);
    let global = saved.statistics().unwrap();
    assert!(is_refused(error(block_on(layer.normalize(request, global)))));
    let request = Backward::of(&x, &x).input_gradient(&mut y).encode(&mut encoder, &mut workspace);
    assert!(is_refused(error(block_on(layer.backward(&saved, request)))));
    assert!(read(&[y]).concat().iter().all(|&y| y == 0.0), "something was written");
    assert_eq!(layer.running_stats().unwrap().num_batches_tracked, 1);
}

#[test]
fn the_workspace_of_another_device_is_refused_and_nothing_is_recorded() {
    let [device, other] = [0, 1].map(|index| &virtual_gpus()[index]);
    let (raw, queue) = device.wgpu().unwrap();
    let layer = BatchNorm::new(config(), device).unwrap();
    let x = random(device, &DIMS);
    let mut y = device.zeros(&DIMS).unwrap();
    let saved = layer.forward_train(&x).unwrap().saved;
    let before = block_on(layer.running_stats()).unwrap();
    for other in [other, &Device::host()] {
        let mut encoder = raw.create_command_encoder(&Default::default());
        let mut workspace = Workspace::new(other);
        let found = other.to_string();
        let expected = device.to_string();
        let refused: Error =
            ArgumentError::WrongDevice { argument: "workspace", rank: None, found, expected }
                .into();
        let request = Forward::of(&x).write_to(&mut y).encode(&mut encoder, &mut workspace);
        assert_eq!(error(layer.forward_train(request)), refused);
        let request = Forward::of(&x).write_to(&mut y).encode(&mut encoder, &mut workspace);
        assert_eq!(error(layer.forward_eval(request)), refused);
        let request =
            Backward::of(&x, &x).input_gradient(&mut y).encode(&mut encoder, &mut workspace);
        assert_eq!(error(layer.backward(&saved, request)), refused);
        queue.submit([encoder.finish()]);
    }
    assert!(read(&[y]).concat().iter().all(|&y| y == 0.0), "something was recorded");
    assert_eq!(block_on(layer.running_stats()).unwrap(), before);
}
