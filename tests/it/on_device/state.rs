//! Reading and setting what lies on the device, and moving a layer to it and back.

use approx::assert_abs_diff_eq;
use pollster::block_on;
use syncbn::stats::RunningStats;
use syncbn::{
    BatchNorm, BatchNormConfig, Error, SyncBatchNorm, Tensor,
    error::{ArgumentError, StateError},
    state::LoadOptions,
};

use super::common::*;
use super::one_gpu::on_host;

const CHANNELS: usize = 3;

fn config() -> BatchNormConfig {
    BatchNormConfig::torch(CHANNELS)
}

fn inputs(seed: u64) -> [Tensor; 2] {
    [seed, seed + 100].map(|seed| {
        Batch::random(&[4, CHANNELS, 5], &mut Random::new(seed)).upload(&virtual_gpus()[0])
    })
}

#[test]
fn a_layer_moves_to_the_device_and_back_with_its_state() {
    let device = &virtual_gpus()[0];
    let mut before = on_host(&config(), device, 2);
    Parameters::random(CHANNELS, &mut Random::new(8)).set(&mut before);
    block_on(before.forward_train(&inputs(1))).unwrap();
    let expected = block_on(before.state()).unwrap();
    let expected_y = read(&block_on(before.forward_eval(&inputs(2))).unwrap().output);

    let mut layer = BatchNorm::new(before.config().clone(), device).unwrap();
    let [weight, bias] =
        [before.weight(0), before.bias(0)].map(|of| Some(of.unwrap().handle().unwrap()));
    layer.set_parameter_tensors(weight, bias).unwrap();
    layer.set_running_stats(before.running_stats().unwrap()).unwrap();
    drop(before);
    assert_eq!(layer.device(), device);
    assert_eq!(block_on(layer.state()).unwrap(), expected);
    let y = read(&layer.forward_eval(&inputs(2)).unwrap().output);
    for (y, expected) in y.concat().into_iter().zip(expected_y.concat()) {
        assert_abs_diff_eq!(y, expected, epsilon = 1e-5);
    }
    layer.forward_train(&inputs(3)).unwrap();
    let expected = block_on(layer.running_stats()).unwrap().unwrap();
    assert_eq!(expected.num_batches_tracked, 2);

    // Each rank of its own as the handle of one memory.
    let handles = |of: Option<&Tensor>| [0, 1].map(|_| of.unwrap().handle().unwrap());
    let mut after =
        SyncBatchNorm::new(layer.config().clone(), [device.clone(), device.clone()]).unwrap();
    after.set_parameter_tensors(handles(layer.weight()), handles(layer.bias())).unwrap();
    after.set_running_stats(expected.clone()).unwrap();
    assert_eq!(after.running_stats(), Some(expected));
    assert_eq!(block_on(after.state()).unwrap(), block_on(layer.state()).unwrap());
    // No copy: what one sets the other has.
    layer.set_parameters(Some(&[4.0, 5.0, 6.0]), None).unwrap();
    assert_eq!(block_on(after.weight(1).unwrap().to_vec()).unwrap(), [4.0, 5.0, 6.0]);
}

#[test]
fn a_state_that_is_loaded_is_the_state_that_is_read() {
    let device = &virtual_gpus()[0];
    let mut source = BatchNorm::new(config(), device).unwrap();
    source.set_parameters(Some(&[1.0, -2.0, 0.5]), Some(&[0.1, 0.2, 0.3])).unwrap();
    source.forward_train(&inputs(1)).unwrap();
    let state = block_on(source.state()).unwrap();
    let mut layer = BatchNorm::new(config(), device).unwrap();
    block_on(layer.load_state(&state, &LoadOptions::default())).unwrap();
    assert_eq!(block_on(layer.state()).unwrap(), state);
    let y = |layer: &BatchNorm| bits(&read(&layer.forward_eval(&inputs(2)).unwrap().output));
    assert_eq!(y(&layer), y(&source));

    // A file that does not say how many batches were counted leaves the counter.
    let mut uncounted = state.clone();
    uncounted.num_batches_tracked = None;
    layer.forward_train(&inputs(3)).unwrap();
    block_on(layer.load_state(&uncounted, &LoadOptions::default())).unwrap();
    assert_eq!(block_on(layer.state()).unwrap().num_batches_tracked, Some(2));

    let mut broken = state.clone();
    broken.running_var = Some(vec![1.0, f32::NAN, 1.0]);
    let before = block_on(layer.state()).unwrap();
    let refused = block_on(layer.load_state(&broken, &LoadOptions::default())).unwrap_err();
    assert!(
        matches!(refused, Error::State(StateError::NotFinite { channel: 1, .. })),
        "{refused:?}"
    );
    assert_eq!(block_on(layer.state()).unwrap(), before);
    let options = LoadOptions { allow_non_finite: true, ..LoadOptions::default() };
    block_on(layer.load_state(&broken, &options)).unwrap();
    assert!(block_on(layer.running_stats()).unwrap().unwrap().var[1].is_nan());
}

#[test]
fn running_statistics_and_parameters_that_do_not_fit_are_refused() {
    let device = &virtual_gpus()[0];
    let mut layer = BatchNorm::new(config().with_bias(false), device).unwrap();
    let short = RunningStats::new(CHANNELS - 1);
    let refused = layer.set_running_stats(short).unwrap_err();
    assert_eq!(
        refused,
        ArgumentError::Length { argument: "running_mean", found: 2, expected: 3 }.into()
    );
    let refused = layer.set_parameters(None, Some(&[0.0; CHANNELS])).unwrap_err();
    let argument = "bias";
    let setting = "with_bias";
    assert_eq!(refused, ArgumentError::NoSuchParameter { argument, setting }.into());
    assert!(layer.weight().is_some() && layer.bias().is_none());

    let untracked = config().with_track_running_stats(false);
    let mut layer = BatchNorm::new(untracked, device).unwrap();
    assert_eq!(block_on(layer.running_stats()).unwrap(), None);
    let refused = layer.set_running_stats(RunningStats::new(CHANNELS)).unwrap_err();
    let argument = "running statistics";
    let setting = "with_track_running_stats";
    assert_eq!(refused, ArgumentError::NoSuchParameter { argument, setting }.into());
}

#[test]
fn parameters_of_the_caller_hold_what_an_optimizer_writes() {
    let device = &virtual_gpus()[0];
    let mut layer = BatchNorm::new(config(), device).unwrap();
    let mut weight = device.upload(&[CHANNELS], &[1.0, 1.0, 1.0]).unwrap();
    layer.set_parameter_tensors(Some(weight.handle().unwrap()), None).unwrap();
    // As an optimizer does, by a handle of its own.
    weight.write(&[2.0f32, -1.0, 0.5]).unwrap();
    let found = read(&layer.forward_train(&inputs(4)).unwrap().output);
    let mut other = BatchNorm::new(config(), device).unwrap();
    other.set_parameters(Some(&[2.0, -1.0, 0.5]), None).unwrap();
    assert_eq!(bits(&found), bits(&read(&other.forward_train(&inputs(4)).unwrap().output)));
}
