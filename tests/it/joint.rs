//! Several layers in one exchange: the bits of each by itself, one message, and nothing changed
//! when one is refused.
//!
//! This file has layers without peers, `refused` what is refused of them, `processes` layers of
//! several threads, `mismatch` ranks that ask for different things, `tree` those of more processes
//! than a transport gathers from.

mod mismatch;
mod processes;
mod refused;
mod tree;

use crate::common;

use std::time::Duration;

use pollster::block_on;
use syncbn::error::ArgumentError;
use syncbn::low_level::Epilogue;
use syncbn::stats::GlobalStatistics;
use syncbn::{
    Backward, BatchNormConfig, Device, Error, Forward, Gradients, SyncBatchNorm, Tensor, joint,
};

use common::*;

/// Nobody waits in vain here.
const LONG: Duration = Duration::from_secs(20);
/// Channels, and how each layer ends. One uses its running statistics and exchanges nothing.
const LAYERS: [(usize, Epilogue, Option<bool>); 4] = [
    (3, Epilogue::NONE, None),
    (70, Epilogue::ADD_RELU, None),
    (1, Epilogue::RELU, Some(false)),
    (2, Epilogue::leaky_relu(0.1), None),
];

fn config((channels, epilogue, batch): (usize, Epilogue, Option<bool>)) -> BatchNormConfig {
    let mut config = BatchNormConfig::torch(channels)
        .with_residual(epilogue.residual)
        .with_activation(epilogue.activation)
        .with_activation_mask(true);
    config.use_batch_statistics = batch;
    config
}

/// Layers with their inputs.
type Layers = Vec<(SyncBatchNorm, Vec<Tensor>)>;

/// The layers over some devices, with a batch per rank each; the second rank of the last layer is
/// empty.
fn layers(devices: &[Device]) -> Layers {
    let mut random = Random::new(71);
    let layer = |(index, layer): (usize, (usize, Epilogue, Option<bool>))| {
        let bn = SyncBatchNorm::new(config(layer), devices.to_vec()).unwrap();
        let samples = |rank: usize| if index == 3 && rank == 1 { 0 } else { 2 + rank + index };
        let batches: Vec<Batch> = (0..devices.len())
            .map(|rank| Batch::random(&[samples(rank), layer.0, 40 * 40], &mut random))
            .collect();
        let x = upload(&bn, &batches);
        (bn, x)
    };
    LAYERS.into_iter().enumerate().map(layer).collect()
}

/// x is its own residual.
fn request<'a>(bn: &SyncBatchNorm, x: &'a [Tensor]) -> Forward<'a, Vec<Tensor>> {
    let request = Forward::of(x);
    if bn.config().residual { request.residual(x) } else { request }
}

/// y is its own gradient.
fn gradients_of<'a>(
    bn: &SyncBatchNorm,
    x: &'a [Tensor],
    y: &'a [Tensor],
) -> Backward<'a, Vec<Tensor>> {
    let request = Backward::of(x, y);
    if bn.config().residual { request.residual(x) } else { request }
}

fn outputs(layers: &[(SyncBatchNorm, Vec<Tensor>)]) -> Vec<Vec<Tensor>> {
    let like = |tensor: &Tensor| tensor.device().zeros(tensor.dims()).unwrap();
    layers.iter().map(|(_, x)| x.iter().map(like).collect()).collect()
}

fn requests<'a>(
    layers: &'a Layers,
    outputs: &'a mut [Vec<Tensor>],
) -> Vec<(&'a SyncBatchNorm, Forward<'a, ()>)> {
    layers.iter().zip(outputs).map(|((bn, x), y)| (bn, request(bn, x).write_to(y))).collect()
}

/// The bits of all gradients of a call.
fn gradient_bits(gradients: &Gradients<Vec<Tensor>>) -> Vec<Vec<u32>> {
    let Gradients { input, weight, bias, residual, .. } = gradients;
    [Some(input), weight.as_ref(), bias.as_ref(), residual.as_ref()]
        .into_iter()
        .flatten()
        .flat_map(|tensors| bits(&read(tensors)))
        .collect()
}

/// GPUs, the host, both; ranks that share a GPU; the host alone, where each layer is one fused
/// pass.
fn all_devices() -> [Vec<Device>; 4] {
    let [a, b] = [&virtual_gpus()[0], &virtual_gpus()[1]].map(Device::clone);
    [
        vec![a.clone(), b, Device::host()],
        vec![a.clone(), a],
        vec![Device::host(), Device::host()],
        vec![Device::host()],
    ]
}

#[test]
fn layers_that_share_an_exchange_get_the_bits_of_each_by_itself() {
    for devices in all_devices() {
        let jointly = layers(&devices);
        let alone = layers(&devices);
        let [mut y, mut z] = [outputs(&jointly), outputs(&alone)];
        let results = block_on(joint::forward_train(requests(&jointly, &mut y))).unwrap();
        let calls = jointly.iter().zip(&results).zip(&y);
        let calls =
            calls.map(|(((bn, x), forward), y)| (bn, &forward.saved, gradients_of(bn, x, y)));
        let gradients = block_on(joint::backward(calls)).unwrap();
        for (index, ((forward, gradients), (bn, x))) in
            results.iter().zip(&gradients).zip(&alone).enumerate()
        {
            let what = format!("layer {index} on {devices:?}");
            let expected =
                block_on(bn.forward_train(request(bn, x).write_to(&mut z[index]))).unwrap().saved;
            assert_eq!(bits(&read(&y[index])), bits(&read(&z[index])), "{what}");
            assert_eq!(
                forward.saved.report().unwrap().local,
                expected.report().unwrap().local,
                "{what}"
            );
            assert_eq!(forward.saved.statistics(), expected.statistics(), "{what}");
            assert_eq!(jointly[index].0.running_stats(), bn.running_stats(), "{what}");
            let expected =
                block_on(bn.backward(&expected, gradients_of(bn, x, &z[index]))).unwrap();
            assert_eq!(gradient_bits(gradients), gradient_bits(&expected), "{what}");
            let [found, expected] = [gradients, &expected].map(|of| of.report.as_ref().unwrap());
            assert_eq!(
                (&found.local, &found.global),
                (&expected.local, &expected.global),
                "{what}"
            );
        }
    }
}

#[test]
fn what_one_joint_call_has_saved_serves_calls_of_one_layer_and_the_other_way_round() {
    for devices in all_devices() {
        let layers = layers(&devices);
        let mut y = outputs(&layers);
        let saved = block_on(joint::forward_train(requests(&layers, &mut y))).unwrap();
        for ((bn, x), (forward, y)) in layers.iter().zip(saved.iter().zip(&y)) {
            let of_joint = block_on(bn.backward(&forward.saved, gradients_of(bn, x, y))).unwrap();
            let again = block_on(bn.forward_train(request(bn, x).untracked())).unwrap();
            let calls = [(bn, &again.saved, gradients_of(bn, x, y))];
            let of_alone = block_on(joint::backward(calls)).unwrap();
            assert_eq!(gradient_bits(&of_joint), gradient_bits(&of_alone[0]));
        }
    }
}

#[test]
fn evaluation_of_several_layers_gives_the_bits_of_each() {
    for devices in all_devices() {
        let layers = layers(&devices);
        let [mut y, mut z] = [outputs(&layers), outputs(&layers)];
        block_on(joint::forward_train(requests(&layers, &mut y))).unwrap();
        let before: Vec<_> = layers.iter().map(|(bn, _)| bn.running_stats()).collect();
        let results = block_on(joint::forward_eval(requests(&layers, &mut y))).unwrap();
        for (index, (bn, x)) in layers.iter().enumerate() {
            let expected =
                block_on(bn.forward_eval(request(bn, x).write_to(&mut z[index]))).unwrap();
            assert_eq!(
                bits(&read(&y[index])),
                bits(&read(&z[index])),
                "layer {index} on {devices:?}"
            );
            assert_eq!(results[index].saved.statistics(), expected.saved.statistics());
            assert_eq!(bn.running_stats(), before[index]);
        }
    }
}

/// The exchange of several layers, here with nobody, merges what each layer's ranks have.
#[test]
fn statistics_of_several_layers_merge_as_those_of_each() {
    let devices = all_devices();
    // Those that take statistics, each on other devices: nothing but the exchange is shared.
    let layers: Vec<_> = [0, 1, 3]
        .into_iter()
        .zip(&devices)
        .map(|(layer, on)| layers(on).swap_remove(layer))
        .collect();
    let local = || layers.iter().map(|(bn, x)| (bn, block_on(bn.local_statistics(x)).unwrap()));
    let jointly = block_on(joint::synchronize(local())).unwrap();
    let running: Vec<_> = layers.iter().map(|(bn, _)| bn.running_stats()).collect();
    for (index, (bn, local)) in local().enumerate() {
        assert_eq!(running[index].as_ref().unwrap().num_batches_tracked, 1);
        let alone: GlobalStatistics = block_on(bn.synchronize(local).untracked()).unwrap();
        assert_eq!(jointly[index], alone, "layer {index}");
    }
    let untracked = block_on(joint::synchronize(local()).untracked()).unwrap();
    assert_eq!(untracked, jointly);
    assert_eq!(layers.iter().map(|(bn, _)| bn.running_stats()).collect::<Vec<_>>(), running);
}

#[test]
fn a_layer_of_a_joint_call_may_keep_its_running_statistics() {
    let layers = layers(&[Device::host()]);
    let calls = layers.iter().enumerate();
    let calls = calls.map(|(index, (bn, x))| {
        let request = request(bn, x);
        (bn, if index == 1 { request.untracked() } else { request })
    });
    block_on(joint::forward_train(calls)).unwrap();
    let counted = |(bn, _): &(SyncBatchNorm, _)| bn.running_stats().unwrap().num_batches_tracked;
    assert_eq!(layers.iter().map(counted).collect::<Vec<_>>(), [1, 0, 0, 1]);
}

#[test]
fn no_request_is_no_work() {
    let no_forward = Vec::<(&SyncBatchNorm, Forward<'_>)>::new;
    assert!(block_on(joint::forward_train(no_forward())).unwrap().is_empty());
    assert!(block_on(joint::forward_eval(no_forward())).unwrap().is_empty());
    let no_backward: Vec<(&SyncBatchNorm, &syncbn::Saved, Backward<'_>)> = Vec::new();
    assert!(block_on(joint::backward(no_backward)).unwrap().is_empty());
    let no_statistics: Vec<(&SyncBatchNorm, syncbn::stats::LocalStatistics)> = Vec::new();
    assert!(block_on(joint::synchronize(no_statistics)).unwrap().is_empty());
}

#[test]
fn an_output_over_another_layers_parameter_is_refused() {
    let device = &virtual_gpus()[0];
    let make = || SyncBatchNorm::new(BatchNormConfig::torch(2), [device.clone()]).unwrap();
    let b = make();
    let x = device.upload(&[1, 2, 2], &[0.0f32, 1.0, 2.0, 5.0]).unwrap();
    let buffer = b.weight(0).unwrap().binding().unwrap().buffer.clone();
    let x_of_a = device.upload(&[2, 1], &[0.0f32, 1.0]).unwrap();
    let a_of_one = SyncBatchNorm::new(BatchNormConfig::torch(1), [device.clone()]).unwrap();
    let mut of_weight = device.wrap(buffer, 0, &[2, 1]).unwrap();
    let calls = [(&a_of_one, Forward::of(&x_of_a).write_to(&mut of_weight))];
    // By itself it is none of the other layer's business.
    block_on(joint::forward_train(calls)).unwrap();
    let mut z = device.zeros(&[1, 2, 2]).unwrap();
    let calls = [
        (&a_of_one, Forward::of(&x_of_a).write_to(&mut of_weight)),
        (&b, Forward::of(&x).write_to(&mut z)),
    ];
    let Err(Error::Joint { index: 0, error: source }) = block_on(joint::forward_train(calls))
    else {
        panic!("refused")
    };
    assert!(
        matches!(*source, Error::Argument(ArgumentError::Overlap { other: "weight", .. })),
        "{source}"
    );
}
