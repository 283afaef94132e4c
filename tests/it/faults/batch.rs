//! One value in the whole group: an error that all ranks find alike, so that the group goes on.

use std::time::Duration;

use syncbn::{BatchNormConfig, Device, Error, ProcessGroup, SyncBatchNorm, error::BatchError};

use crate::common::{on_threads, process_groups};

#[test]
fn one_value_in_the_whole_group_is_an_error_on_every_rank_and_the_next_step_works() {
    for world_size in [2, 4, 8] {
        let holder = world_size / 2;
        on_threads(process_groups(world_size, Duration::from_secs(5)), |group| {
            one_value(&group, holder)
        });
    }
}

fn one_value(group: &ProcessGroup, holder: usize) {
    let host = Device::host();
    let layer = SyncBatchNorm::new(BatchNormConfig::torch(2), [host.clone()])
        .unwrap()
        .in_group(group)
        .unwrap();
    for step in 0..3 {
        let values = usize::from(group.rank() == holder);
        let x = host.upload(&[values, 2, 1], &vec![0.5; 2 * values]).unwrap();
        let before = layer.running_stats();
        let error = pollster::block_on(layer.forward_train(&x)).expect_err("one value");
        assert_eq!(error, Error::Batch(BatchError::OneValue));
        assert_eq!(layer.running_stats(), before);
        assert_eq!(group.failure(), None);

        let x = host.upload(&[1, 2], &[group.rank() as f32, 1.0]).unwrap();
        let forward = pollster::block_on(layer.forward_train(&x)).expect("a value on every rank");
        assert_eq!(forward.saved.statistics().unwrap().count(), group.world_size() as u64);
        assert_eq!(layer.running_stats().unwrap().num_batches_tracked, step + 1);
    }
}
