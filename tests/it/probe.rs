//! What a driver is found to do when a device is opened. `src/probe/tests.rs` has the bad answers,
//! `opening` the cost.

use crate::common;
use common::{adapter, own_device};
use pollster::block_on;
use syncbn::{Device, device::FastPaths};

/// A device of the application with the features of the adapter that kernels can use.
fn with_features(adapter: &wgpu::Adapter) -> (wgpu::Device, wgpu::Queue) {
    let useful = wgpu::Features::SUBGROUP;
    let required_features = adapter.features() & useful;
    let descriptor =
        wgpu::DeviceDescriptor { required_features, ..wgpu::DeviceDescriptor::default() };
    block_on(adapter.request_device(&descriptor)).expect("a device with these features")
}

#[test]
fn the_test_driver_is_sound_and_its_ways_are_all_taken() {
    let adapter = adapter();
    let info = adapter.get_info();
    let (device, queue) = with_features(&adapter);
    let has = |feature| adapter.features().contains(feature);
    let ways = FastPaths::ALL.with_subgroups(has(wgpu::Features::SUBGROUP));
    for device in [
        block_on(Device::from_adapter(&adapter)).unwrap(),
        Device::from_wgpu(device, queue).unwrap(),
    ] {
        let findings = device.findings().expect("a driver that was asked");
        println!("{device}: {findings:?}");
        assert_eq!(findings.defects, []);
        assert_eq!(findings.signs_agree, Some(true));
        assert!(findings.rounds_f16.is_some());
        assert_eq!(device.fast_paths(), Some(ways));
        match findings.subgroup_size {
            Some(size) => {
                assert!(
                    (info.subgroup_min_size..=info.subgroup_max_size).contains(&size),
                    "{size}, {info:?}"
                )
            }
            None => assert!(!ways.subgroups),
        }
        if info.name.contains("llvmpipe") {
            // It rounds every operation by itself and keeps subnormals.
            let found = findings.arithmetic.expect("an answer");
            let beyond_source =
                [found.contracts, found.reassociates, found.flushes_subnormals, found.misses_nan];
            assert_eq!(beyond_source, [false; 4]);
            assert!(ways.subgroups && ways.native_f16 && findings.rounds_f16 == Some(true));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_open_as_tasks_of_any_executor() {
    let open = || {
        tokio::spawn(async {
            Device::from_adapter(&adapter()).await.map(|device| device.findings().cloned())
        })
    };
    let tasks = [(); 4].map(|()| open());
    for task in tasks {
        let findings = task.await.unwrap().unwrap().expect("a driver that was asked");
        assert_eq!(findings.defects, []);
    }
}

#[test]
fn a_way_that_is_switched_off_or_not_there_is_not_asked_about() {
    let adapter = adapter();
    let off = block_on(Device::from_adapter_with(&adapter, FastPaths::NONE)).unwrap();
    assert_eq!(off.fast_paths(), Some(FastPaths::NONE));
    let (device, queue) = own_device(&adapter, |_| {});
    let portable = Device::from_wgpu(device, queue).unwrap();
    assert_eq!(portable.fast_paths(), Some(FastPaths::ALL.with_subgroups(false)));
    for device in [off, portable] {
        let findings = device.findings().expect("a driver that was asked");
        assert_eq!((findings.subgroup_size, findings.defects.len()), (None, 0), "{findings:?}");
        assert_eq!(findings.signs_agree, Some(true));
    }
}
