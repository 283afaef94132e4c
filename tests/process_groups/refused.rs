//! What a layer of a process group refuses when it is asked, since it would fail or be lost later.

use pollster::block_on;
use syncbn::{Device, DeviceGroup, Error, ProcessGroup, SyncBatchNormConfig};

use crate::common::{on_threads, process_groups};
use crate::{CHANNELS, LONG};

fn config() -> SyncBatchNormConfig {
    SyncBatchNormConfig::torch(CHANNELS)
}

/// The message of an argument's error.
fn message(error: &Error) -> String {
    assert!(matches!(error, Error::Argument(_)), "{error:?}");
    error.to_string()
}

#[test]
fn layers_that_have_peers_are_not_synchronized_with_others() {
    on_threads(process_groups(2, LONG), |group| {
        let member = || block_on(DeviceGroup::in_group(config(), vec![Device::host()], &group)).unwrap();
        let local = || DeviceGroup::new(config(), vec![Device::host()]).unwrap();
        for (layers, index) in [(vec![member()], 0), (vec![member(), local()], 0), (vec![local(), member()], 1)] {
            let refused = message(&DeviceGroup::synchronized(layers).expect_err("its peers would be lost"));
            let named = refused.starts_with(&format!("layers[{index}]"));
            assert!(named && refused.contains("other processes or threads"), "{refused}");
        }
    });
    // A group of one process has no peers to lose.
    let alone = block_on(DeviceGroup::in_group(config(), vec![Device::host()], &ProcessGroup::single())).unwrap();
    assert_eq!(DeviceGroup::synchronized(vec![alone]).unwrap().world_size(), 1);
}
