//! What opening a device costs: questions to its driver, asked once, and none where nothing can be
//! asked.

use crate::common;
use crate::common::cost as counter;
use std::time::{Duration, Instant};

use common::adapter;
use counter::{Cost, counting, spent};
use pollster::block_on;
use syncbn::{Device, device::FastPaths};

/// A device of the application with the features of the adapter that kernels can use, and some
/// more.
fn with_features(adapter: &wgpu::Adapter, more: wgpu::Features) -> (wgpu::Device, wgpu::Queue) {
    let useful = wgpu::Features::SUBGROUP;
    let required_features = adapter.features() & useful | more;
    let descriptor =
        wgpu::DeviceDescriptor { required_features, ..wgpu::DeviceDescriptor::default() };
    block_on(adapter.request_device(&descriptor)).expect("a device with these features")
}

#[test]
fn neither_the_host_nor_a_device_that_runs_nothing_is_asked() {
    let _counting = counting();
    let features = wgpu::Features::SUBGROUP;
    let descriptor =
        wgpu::DeviceDescriptor { required_features: features, ..wgpu::DeviceDescriptor::default() };
    let (device, queue) = wgpu::Device::noop(&descriptor);
    let noop = Device::from_wgpu(device, queue).unwrap();
    assert_eq!(spent(), Cost::default());
    assert!(noop.findings().is_none());
    let portable = FastPaths::ALL.with_native_f16(false).with_subgroups(false);
    assert_eq!(noop.fast_paths(), Some(portable), "a way without proof is not taken");
    assert!(Device::host().findings().is_none());
}

#[test]
fn the_first_device_of_a_driver_asks_once_and_the_next_ones_know() {
    let _counting = counting();
    let adapter = adapter();
    // No other test opens a device with these features: what it is told is new.
    let new_device = || with_features(&adapter, wgpu::Features::DEPTH_CLIP_CONTROL);
    let open = |(device, queue), paths| {
        let start = Instant::now();
        let device = Device::from_wgpu_with(device, queue, paths).unwrap();
        println!("{:?} to open with {paths:?}", start.elapsed());
        assert!(start.elapsed() < Duration::from_secs(5));
        (device, spent())
    };

    // A device that is lost opens without the ways that need proof, and is not held against the
    // next one.
    let lost = new_device();
    lost.0.destroy();
    let (lost, _) = open(lost, FastPaths::ALL);
    assert_eq!(
        lost.fast_paths(),
        Some(FastPaths::ALL.with_native_f16(false).with_subgroups(false))
    );
    let defects = &lost.findings().expect("it was asked").defects;
    println!("{defects:#?}");
    assert!(!defects.is_empty());

    let (first, asked) = open(new_device(), FastPaths::ALL);
    assert_eq!(first.findings().expect("it was asked").defects, []);
    let ways = first.fast_paths().unwrap();
    let questions = 3 + 2 * u64::from(ways.native_f16) + u64::from(ways.subgroups);
    assert_eq!((asked.submissions, asked.pipelines), (1, questions));

    let (second, known) = open(new_device(), FastPaths::ALL.with_quads(false));
    assert_eq!((known.submissions, known.pipelines, known.allocations), (0, 0, 0));
    assert_eq!(second.fast_paths(), Some(ways.with_quads(false)));
    assert_eq!(second.findings(), first.findings());

    let (_, fewer) = open(new_device(), FastPaths::NONE);
    assert_eq!((fewer.submissions, fewer.pipelines), (1, 3), "fewer questions are others");
}
