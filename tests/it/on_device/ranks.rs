//! One layer, called with other numbers of ranks from call to call.

use pollster::block_on;
use syncbn::error::ArgumentError;
use syncbn::{
    Backward, BatchNorm, BatchNormConfig, Device, Error, Forward, Normalized, Tensor, Workspace,
};

use super::common::*;

const CHANNELS: usize = 5;

fn config() -> BatchNormConfig {
    BatchNormConfig::torch(CHANNELS)
}

/// Uneven batches, the last one empty where there are three.
fn batches(device: &Device, ranks: usize, seed: u64) -> Vec<Tensor> {
    let mut random = Random::new(seed);
    let samples = |rank: usize| if rank == 2 { 0 } else { 3 + rank };
    (0..ranks)
        .map(|rank| Batch::random(&[samples(rank), CHANNELS, 77], &mut random).upload(device))
        .collect()
}

#[test]
fn a_layer_takes_any_number_of_ranks_in_each_call() {
    let device = &virtual_gpus()[0];
    let layer = BatchNorm::new(config(), device).unwrap();
    let mut calls = Vec::new();
    for (seed, ranks) in (0..).zip([2, 1, 3, 1, 2]) {
        // One that has never seen another number of ranks, with the running statistics up to here.
        let running = block_on(layer.running_stats()).unwrap().unwrap();
        let mut fresh = BatchNorm::new(config(), device).unwrap();
        fresh.set_running_stats(running).unwrap();
        let x = batches(device, ranks, seed);
        let found = layer.forward_train(&x).unwrap();
        let expected = fresh.forward_train(&x).unwrap();
        assert_eq!(bits(&read(&found.output)), bits(&read(&expected.output)), "{ranks} ranks");
        assert_eq!(
            block_on(layer.running_stats()).unwrap(),
            block_on(fresh.running_stats()).unwrap()
        );
        calls.push((x, found.saved, expected.saved, fresh));
    }
    // Backward of all of them, after all of them.
    for (x, saved, expected, fresh) in calls {
        let g = batches(device, x.len(), 9);
        let found = layer.backward(&saved, Backward::of(&x, &g)).unwrap();
        let expected = fresh.backward(&expected, Backward::of(&x, &g)).unwrap();
        for (found, expected) in [
            (&found.input, &expected.input),
            (&found.weight.unwrap(), &expected.weight.unwrap()),
            (&found.bias.unwrap(), &expected.bias.unwrap()),
        ] {
            assert_eq!(bits(&read(found)), bits(&read(expected)), "{} ranks", x.len());
        }
    }
}

#[test]
fn a_tensor_by_itself_is_one_rank_as_a_list_of_one_is() {
    let device = &virtual_gpus()[0];
    let [single, list] = [0, 1].map(|_| BatchNorm::new(config(), device).unwrap());
    let x = batches(device, 1, 3);
    let of_single: Normalized = single.forward_train(&x[0]).unwrap();
    let of_list = list.forward_train(&x).unwrap();
    assert_eq!(bits(&read(&[of_single.output])), bits(&read(&of_list.output)));
    let dx = single.backward(&of_single.saved, Backward::of(&x[0], &x[0])).unwrap().input;
    let of_list = list.backward(&of_list.saved, Backward::of(&x, &x)).unwrap();
    assert_eq!(bits(&read(&[dx])), bits(&read(&of_list.input)));
    assert_eq!(block_on(single.running_stats()).unwrap(), block_on(list.running_stats()).unwrap());
}

#[test]
fn backward_with_another_number_of_ranks_is_refused() {
    let device = &virtual_gpus()[0];
    let layer = BatchNorm::new(config(), device).unwrap();
    let x = batches(device, 3, 4);
    let saved = layer.forward_train(&x[..2]).unwrap().saved;
    let refused: Error = ArgumentError::NotSaved {
        argument: "x".to_owned(),
        reason: "that had another number of ranks; run forward again",
    }
    .into();
    for ranks in [1, 3] {
        let error = layer.backward(&saved, Backward::of(&x[..ranks], &x[..ranks])).unwrap_err();
        assert_eq!(error, refused, "{ranks} ranks");
    }
    let mut encoder = device.wgpu().unwrap().0.create_command_encoder(&Default::default());
    let mut workspace = Workspace::new(device);
    let request = Backward::of(&x[..1], &x[..1]).encode(&mut encoder, &mut workspace);
    assert_eq!(layer.backward(&saved, request).unwrap_err(), refused);
    // Lists of one call that differ from each other.
    let few =
        |argument, found| Error::from(ArgumentError::RankCount { argument, found, expected: 2 });
    let error = layer.backward(&saved, Backward::of(&x[..2], &x)).unwrap_err();
    assert_eq!(error, few("grad_output", 3));
    let mut y = batches(device, 1, 5);
    assert_eq!(
        layer.forward_train(Forward::of(&x[..2]).write_to(&mut y)).unwrap_err(),
        few("output", 1)
    );
    assert!(layer.backward(&saved, Backward::of(&x[..2], &x[..2])).is_ok());
}
