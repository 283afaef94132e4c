//! What errors of wrong use say: what was found, what is allowed, and the call that would be right.

use pollster::block_on;
use syncbn::error::{ArgumentError, LimitError};
use syncbn::stats::RunningStats;
use syncbn::tensor::{DType, Layout};
use syncbn::{
    Backward, BatchNormConfig, Device, Error, Forward, ProcessGroup, SyncBatchNorm, Tensor,
    collective::LocalGroup, config::Activation,
};

use crate::common::virtual_gpus;

fn layer(config: BatchNormConfig) -> SyncBatchNorm {
    SyncBatchNorm::new(config, [Device::host()]).unwrap()
}

fn text<T>(result: Result<T, Error>) -> String {
    result.map(drop).expect_err("a wrong call").to_string()
}

#[test]
fn a_tensor_has_a_position_only_among_several() {
    let host = Device::host();
    let [good, wrong] = [3, 4].map(|channels| host.zeros(&[2, channels]).unwrap());
    let alone = layer(BatchNormConfig::torch(3));
    let refused = "has 4 channels (dims [2, 4]), expected num_features = 3";
    assert_eq!(text(block_on(alone.forward_train(&wrong))), format!("x {refused}"));
    assert_eq!(text(block_on(alone.forward_train([&wrong]))), format!("x {refused}"));
    let prepared = alone.prepare(&[2, 4], Layout::ChannelsFirst, DType::F32);
    assert_eq!(text(prepared), format!("dims {refused}"));
    let two = SyncBatchNorm::new(BatchNormConfig::torch(3), [host.clone(), host.clone()]).unwrap();
    assert_eq!(text(block_on(two.forward_train([&good, &wrong]))), format!("x[1] {refused}"));
    let padded = host.zeros(&[2, 3, 5]).unwrap();
    let of = |lengths: &[u32]| {
        text(block_on(alone.forward_train(Forward::of(&padded).lengths(lengths))))
    };
    assert_eq!(of(&[1]), "lengths holds 1 length(s), expected 2: one per sample of x");
    assert_eq!(of(&[1, 6]), "lengths[1] is 6, expected at most 5, the first spatial size of x");
    let lengths = Forward::of(&good).lengths([1_u32, 1].as_slice());
    assert!(text(block_on(alone.forward_train(lengths))).starts_with("x has dims [2, 3]"));
}

#[test]
fn another_layout_is_told_apart_from_other_dimensions() {
    let bn = layer(BatchNormConfig::torch(3).with_residual(true));
    let host = Device::host();
    let x = host.zeros(&[2, 3, 4]).unwrap();
    let of =
        |residual: &Tensor| text(block_on(bn.forward_train(Forward::of(&x).residual(residual))));
    let last = host.zeros(&[2, 4, 3]).unwrap().with_layout(Layout::ChannelsLast);
    assert_eq!(of(&last), "residual is in layout ChannelsLast, expected ChannelsFirst, as x");
    let longer = host.zeros(&[2, 3, 5]).unwrap();
    assert_eq!(of(&longer), "residual has dims [2, 3, 5], expected [2, 3, 4]");
    let half = host.zeros_of(&[2, 3, 4], DType::F16).unwrap();
    assert_eq!(of(&half), "residual is stored as f16, expected f32, as x is");
}

#[test]
fn an_output_over_an_input_is_told_of_the_call_in_place() {
    let device = &virtual_gpus()[0];
    let bn = SyncBatchNorm::new(BatchNormConfig::torch(3), [device.clone()]).unwrap();
    let x = device.zeros(&[2, 3]).unwrap();
    let mut y = x.handle().unwrap();
    let forward = bn.forward_train(Forward::of(&x).write_to(&mut y));
    assert_eq!(
        text(block_on(forward)),
        "output overlaps x in one buffer; give it a range of its own (to overwrite x itself, call \
         Forward::in_place)"
    );
    let weight = bn.weight(0).expect("a weight").handle().unwrap();
    let saved = block_on(bn.forward_train(&x)).unwrap().saved;
    let mut into_weight = weight;
    let request = Backward::of(&x, &x).weight_gradient(&mut into_weight);
    assert_eq!(
        text(block_on(bn.backward(&saved, request))),
        "weight_gradient overlaps weight in one buffer; give it a range of its own"
    );
}

#[test]
fn channels_that_the_other_layout_would_give_are_found_to_be_so() {
    let bn = layer(BatchNormConfig::torch(3));
    let host = Device::host();
    let nhwc = host.zeros(&[2, 4, 5, 3]).unwrap();
    assert_eq!(
        text(block_on(bn.forward_train(&nhwc))),
        "x has 4 channels (dims [2, 4, 5, 3]), expected num_features = 3; if the channels are \
         the last dimension, say so: with_layout(Layout::ChannelsLast)"
    );
    block_on(bn.forward_train(&nhwc.with_layout(Layout::ChannelsLast))).expect("the right call");
    let nchw = host.zeros(&[2, 3, 4, 5]).unwrap().with_layout(Layout::ChannelsLast);
    assert_eq!(
        text(block_on(bn.forward_train(&nchw))),
        "x has 5 channels (dims [2, 3, 4, 5]), expected num_features = 3; if the channels are \
         the second dimension, say so: with_layout(Layout::ChannelsFirst)"
    );
    // Where neither layout gives them, nothing is guessed.
    for dims in [&[2, 4][..], &[2, 4, 5], &[3, 4, 5]] {
        let error = text(block_on(bn.forward_train(&host.zeros(dims).unwrap())));
        assert!(error.ends_with("expected num_features = 3"), "{error}");
    }
    assert!(
        text(bn.prepare(&[2, 4, 5, 3], Layout::ChannelsFirst, syncbn::tensor::DType::F32))
            .ends_with("say so: with_layout(Layout::ChannelsLast)")
    );
}

#[test]
fn what_a_layer_was_configured_without_names_the_setting() {
    let mut bn =
        layer(BatchNormConfig::torch(1).with_affine(false).with_track_running_stats(false));
    let says = |name: &str, setting: &str| {
        format!(
            "{name} was given, but the layer was configured without it; see \
             BatchNormConfig::{setting}"
        )
    };
    let weight = text(bn.set_parameters(Some(&[1.0]), None));
    assert_eq!(weight, says("weight", "with_weight"));
    let bias = text(bn.set_parameter_tensors([], [Device::host().zeros(&[1]).unwrap()]));
    assert_eq!(bias, says("bias", "with_bias"));
    let running = text(bn.set_running_stats(RunningStats::new(1)));
    assert_eq!(running, says("running statistics", "with_track_running_stats"));
}

#[test]
fn frozen_parameters_and_residuals_that_are_not_added_are_called_so() {
    let host = Device::host();
    let x = host.zeros(&[2, 1]).unwrap();
    let mut target = host.zeros(&[1]).unwrap();
    let bn = layer(BatchNormConfig::torch(1).with_freeze_affine(true));
    let saved = block_on(bn.forward_train(&x)).unwrap().saved;
    let request = Backward::of(&x, &x).weight_gradient(&mut target);
    assert_eq!(
        text(block_on(bn.backward(&saved, request))),
        "weight_gradient was given, but weight and bias are frozen and get no gradient; see \
         BatchNormConfig::with_freeze_affine"
    );
    let bn = layer(BatchNormConfig::torch(1).with_activation(Activation::Relu));
    assert_eq!(
        text(block_on(bn.forward_train(Forward::of(&x).residual(&x)))),
        "residual was given, but the layer adds no residual; configure `.with_residual(true)`"
    );
}

#[test]
fn memory_that_the_host_does_not_have_is_no_failure_of_a_gpu() {
    let error = Device::host().zeros(&[1 << 50]).unwrap_err();
    let dims = vec![1 << 50];
    let found_bytes = 1 << 52;
    assert_eq!(error, Error::Limit(LimitError::HostMemory { dims, found_bytes }));
    assert_eq!(
        error.to_string(),
        "a tensor of dims [1125899906842624] is 4503599627370496 bytes, which the host has no \
         memory for"
    );
}

#[test]
fn a_layer_with_peers_is_pointed_to_the_call_that_makes_local_ones() {
    let groups: Vec<_> = LocalGroup::ranks(2).into_iter().map(ProcessGroup::new).collect();
    let bn = layer(BatchNormConfig::torch(1)).in_group(&groups[0]).unwrap();
    let error = SyncBatchNorm::synchronized(vec![bn]).unwrap_err();
    assert!(matches!(error, Error::Argument(ArgumentError::HasPeers { .. })), "{error}");
    assert!(error.to_string().ends_with("such as those of into_local"), "{error}");
}
