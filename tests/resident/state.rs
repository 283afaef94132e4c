//! Reading and setting what lies on the device, and moving a layer to it and back.

use pollster::block_on;
use syncbn::stats::RunningStats;
use syncbn::{ArgumentError, Error, ResidentGroup, StateError, SyncBatchNormConfig, Tensor};

use super::common::*;
use super::layer::group_of;

const CHANNELS: usize = 3;

fn config() -> SyncBatchNormConfig {
    SyncBatchNormConfig::torch(CHANNELS)
}

fn inputs(seed: u64) -> [Tensor; 2] {
    [seed, seed + 100].map(|seed| Batch::random(&[4, CHANNELS, 5], &mut Random(seed)).upload(&virtual_gpus()[0]))
}

#[test]
fn a_layer_moves_to_the_device_and_back_with_its_state() {
    let device = &virtual_gpus()[0];
    let mut group = group_of(&config(), device, 2);
    Parameters::random(CHANNELS, &mut Random(8)).set(&mut group);
    block_on(group.forward_train(&inputs(1))).unwrap();
    let expected = block_on(group.state_dict()).unwrap();
    let expected_y = read(&block_on(group.forward_eval(&inputs(2))).unwrap().outputs);

    let mut layer = group.into_resident().unwrap();
    assert_eq!((layer.world_size(), layer.device()), (2, device));
    assert_eq!(block_on(layer.state_dict()).unwrap(), expected);
    let y = read(&layer.forward_eval(&inputs(2)).unwrap().outputs);
    for (y, expected) in y.concat().into_iter().zip(expected_y.concat()) {
        assert!((y - expected).abs() <= 1e-5, "{y}, expected {expected}");
    }
    layer.forward_train(&inputs(3)).unwrap();
    let expected = block_on(layer.running_stats()).unwrap().unwrap();
    assert_eq!(expected.num_batches_tracked, 2);
    let group = block_on(layer.into_group()).unwrap();
    assert_eq!(group.running_stats(), Some(&expected));
}

#[test]
fn a_state_that_is_loaded_is_the_state_that_is_read() {
    let device = &virtual_gpus()[0];
    let mut source = ResidentGroup::new(config(), device.clone(), 2).unwrap();
    source.set_parameters(Some(&[1.0, -2.0, 0.5]), Some(&[0.1, 0.2, 0.3])).unwrap();
    source.forward_train(&inputs(1)).unwrap();
    let state = block_on(source.state_dict()).unwrap();
    let mut layer = ResidentGroup::new(config(), device.clone(), 2).unwrap();
    block_on(layer.load_state_dict(&state, false)).unwrap();
    assert_eq!(block_on(layer.state_dict()).unwrap(), state);
    let y = |layer: &mut ResidentGroup| bits(&read(&layer.forward_eval(&inputs(2)).unwrap().outputs));
    assert_eq!(y(&mut layer), y(&mut source));

    // A file that does not say how many batches were counted leaves the counter.
    let mut uncounted = state.clone();
    uncounted.num_batches_tracked = None;
    layer.forward_train(&inputs(3)).unwrap();
    block_on(layer.load_state_dict(&uncounted, false)).unwrap();
    assert_eq!(block_on(layer.state_dict()).unwrap().num_batches_tracked, Some(2));

    let mut broken = state.clone();
    broken.running_var = Some(vec![1.0, f32::NAN, 1.0]);
    let before = block_on(layer.state_dict()).unwrap();
    let refused = block_on(layer.load_state_dict(&broken, false)).unwrap_err();
    assert!(matches!(refused, Error::State(StateError::NotFinite { channel: 1, .. })), "{refused:?}");
    assert_eq!(block_on(layer.state_dict()).unwrap(), before);
    block_on(layer.load_state_dict(&broken, true)).unwrap();
    assert!(block_on(layer.running_stats()).unwrap().unwrap().var[1].is_nan());
}

#[test]
fn running_statistics_and_parameters_that_do_not_fit_are_refused() {
    let device = &virtual_gpus()[0];
    let mut layer = ResidentGroup::new(config().with_bias(false), device.clone(), 1).unwrap();
    let short = RunningStats::new(CHANNELS - 1);
    let refused = layer.set_running_stats(&short).unwrap_err();
    assert_eq!(refused, ArgumentError::Length { argument: "running_mean", found: 2, expected: 3 }.into());
    let refused = layer.set_parameters(None, Some(&[0.0; CHANNELS])).unwrap_err();
    assert_eq!(refused, ArgumentError::NoSuchParameter { name: "bias" }.into());
    assert!(layer.parameters(0)[0].is_some() && layer.parameters(0)[1].is_none() && layer.parameters(1)[0].is_none());

    let untracked = config().with_track_running_stats(false);
    let mut layer = ResidentGroup::new(untracked, device.clone(), 1).unwrap();
    assert_eq!(block_on(layer.running_stats()).unwrap(), None);
    let refused = layer.set_running_stats(&RunningStats::new(CHANNELS)).unwrap_err();
    assert_eq!(refused, ArgumentError::NoSuchParameter { name: "running statistics" }.into());
}

#[test]
fn parameters_of_the_caller_hold_what_an_optimizer_writes() {
    let device = &virtual_gpus()[0];
    let mut layer = ResidentGroup::new(config(), device.clone(), 2).unwrap();
    let weights = [1.0, 2.0].map(|_| device.upload(&[CHANNELS], &[2.0, -1.0, 0.5]).unwrap());
    layer.set_parameter_tensors(Some(weights.into()), None).unwrap();
    let found = read(&layer.forward_train(&inputs(4)).unwrap().outputs);
    let mut other = ResidentGroup::new(config(), device.clone(), 2).unwrap();
    other.set_parameters(Some(&[2.0, -1.0, 0.5]), None).unwrap();
    assert_eq!(bits(&found), bits(&read(&other.forward_train(&inputs(4)).unwrap().outputs)));
}
