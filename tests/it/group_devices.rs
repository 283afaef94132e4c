//! Where the futures of a layer run, and which devices it is over.
//!
//! `group_devices/application.rs` holds what concerns a device that belongs to the application, and
//! devices that fail.

mod application;

use crate::common;

use common::*;
use futures::FutureExt;
use pollster::block_on;
use syncbn::{BatchNormConfig, Device, Error, SyncBatchNorm, error::ArgumentError};

const CHANNELS: usize = 3;

fn config() -> BatchNormConfig {
    BatchNormConfig::torch(CHANNELS)
}

/// Two ranks of several tiles each.
fn batches(seed: u64) -> [Batch; 2] {
    let mut random = Random::new(seed);
    [[4, CHANNELS, 2049], [1, CHANNELS, 77]].map(|dims| Batch::random(&dims, &mut random))
}

/// One step of a new layer: the bits of y, and the running mean's.
async fn step(devices: Vec<Device>, seed: u64) -> Result<(Vec<Vec<u32>>, Vec<f32>), Error> {
    let layer = SyncBatchNorm::new(config(), devices)?;
    let inputs = upload(&layer, &batches(seed));
    let forward = layer.forward_train(&inputs).await?;
    let mut y = Vec::new();
    for output in &forward.output {
        y.push(output.to_vec().await?);
    }
    Ok((bits(&y), layer.running_stats().unwrap().mean))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn futures_are_send_and_run_as_tasks_of_tokio() {
    for kind in Kind::ALL {
        let tasks: Vec<_> = (0..6).map(|seed| tokio::spawn(step(kind.devices(2), seed))).collect();
        for (seed, task) in tasks.into_iter().enumerate() {
            let found = task.await.unwrap().unwrap();
            let expected =
                std::thread::spawn(move || block_on(step(kind.devices(2), seed as u64)).unwrap());
            assert_eq!(found, expected.join().unwrap(), "{kind:?}");
        }
    }
}

#[test]
fn two_groups_joined_on_one_thread_do_not_disturb_each_other() {
    for kind in Kind::ALL {
        let (a, b) =
            block_on(futures::future::join(step(kind.devices(2), 1), step(kind.devices(2), 2)));
        assert_eq!(a.unwrap(), block_on(step(kind.devices(2), 1)).unwrap(), "{kind:?}");
        assert_eq!(b.unwrap(), block_on(step(kind.devices(2), 2)).unwrap(), "{kind:?}");
    }
}

#[test]
fn threads_that_share_one_device_get_the_bits_of_one_thread() {
    // A device of its own, so that its pipelines are built while others ask for them.
    let device = block_on(Device::from_adapter(&adapter())).unwrap();
    let devices = || vec![device.clone(), device.clone()];
    let found: Vec<Vec<_>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                scope.spawn(move || {
                    (0..5).map(|i| block_on(step(devices(), 10 * thread + i))).collect()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for (thread, found) in found.into_iter().enumerate() {
        for (i, found) in found.into_iter().enumerate() {
            assert_eq!(
                found.unwrap(),
                block_on(step(devices(), (10 * thread + i) as u64)).unwrap()
            );
        }
    }
}

#[test]
fn a_future_that_is_dropped_halfway_leaves_the_layer_as_it_was() {
    let devices = Kind::Gpu.devices(2);
    let mut layer = SyncBatchNorm::new(config(), devices.clone()).unwrap();
    let inputs = upload(&layer, &batches(3));
    for _ in 0..10 {
        let forward = layer.forward_train(&inputs);
        let forward = Box::pin(forward).now_or_never();
        let tracked = layer.running_stats().unwrap().num_batches_tracked;
        assert_eq!(
            tracked,
            u64::from(forward.is_some()),
            "a call that did not end counts no batch"
        );
        layer.set_running_stats(syncbn::stats::RunningStats::new(CHANNELS)).unwrap();
    }
    let forward = block_on(layer.forward_train(&inputs)).unwrap();
    let (y, mean) = block_on(step(devices, 3)).unwrap();
    assert_eq!(bits(&read(&forward.output)), y);
    assert_eq!(layer.running_stats().unwrap().mean, mean);
}

#[test]
fn what_a_group_returned_outlives_it() {
    for kind in Kind::ALL {
        let layer = SyncBatchNorm::new(config(), kind.devices(2)).unwrap();
        let inputs = upload(&layer, &batches(4));
        let forward = block_on(layer.forward_train(&inputs)).unwrap();
        drop((layer, inputs));
        assert_eq!(bits(&read(&forward.output)), block_on(step(kind.devices(2), 4)).unwrap().0);
    }
}

#[test]
fn the_devices_of_a_machine_are_all_hardware_and_else_the_host() {
    let hardware: Vec<String> = block_on(Device::adapters())
        .into_iter()
        .map(|adapter| adapter.get_info())
        .filter(|info| info.device_type != wgpu::DeviceType::Cpu)
        .map(|info| info.name)
        .collect();
    let devices = block_on(Device::all()).unwrap();
    if hardware.is_empty() {
        assert_eq!(devices, [Device::host()]);
    } else {
        assert_names(&devices, &hardware);
    }
}

#[test]
fn a_layer_over_all_adapters_has_each_once_software_included() {
    let adapters = block_on(Device::adapters());
    let names: Vec<String> = adapters.iter().map(|adapter| adapter.get_info().name).collect();
    assert!(!names.is_empty(), "GPU tests need an adapter");
    let devices = adapters.iter().map(|adapter| block_on(Device::from_adapter(adapter)).unwrap());
    let layer = SyncBatchNorm::new(config(), devices).unwrap();
    assert_names(layer.devices(), &names);
    let batch = Batch::random(&[5, CHANNELS, 7], &mut Random::new(5));
    let batches = vec![batch; layer.devices().len()];
    let forward = block_on(layer.forward_train(&upload(&layer, &batches))).unwrap();
    let expected = definition(&batches, None, 1e-5);
    compare(&batches, &read(&forward.output), &expected.outputs, TOLERANCE_ULP).unwrap();
}

fn assert_names(devices: &[Device], names: &[String]) {
    assert_eq!(devices.len(), names.len());
    for (device, name) in devices.iter().zip(names) {
        assert!(
            device.name().contains(name.as_str()) && !device.is_host(),
            "{device} is not {name}"
        );
    }
}

#[test]
fn virtual_devices_of_one_adapter_are_devices_of_their_own() {
    let adapter = adapter();
    let devices: Vec<Device> =
        (0..3).map(|_| block_on(Device::from_adapter(&adapter)).unwrap()).collect();
    let layer = SyncBatchNorm::new(config(), devices.clone()).unwrap();
    for (i, device) in devices.iter().enumerate() {
        assert!(device.name().contains(&adapter.get_info().name));
        assert_eq!(
            devices.iter().position(|other| other == device),
            Some(i),
            "two ranks on one device"
        );
    }
    let batches: Vec<Batch> =
        (0..3).map(|rank| Batch::random(&[2 + rank, CHANNELS, 9], &mut Random::new(6))).collect();
    let forward = block_on(layer.forward_train(&upload(&layer, &batches))).unwrap();
    for (device, output) in devices.iter().zip(&forward.output) {
        assert_eq!(output.device(), device);
        block_on(device.wait()).unwrap();
    }
    let expected = definition(&batches, None, 1e-5);
    compare(&batches, &read(&forward.output), &expected.outputs, TOLERANCE_ULP).unwrap();
}

/// Two devices whose wgpu handles were numbered by different instances, and so carry the same
/// numbers.
fn of_two_instances() -> [Device; 2] {
    [(); 2].map(|()| block_on(Device::from_adapter(&adapter())).unwrap())
}

#[test]
fn devices_of_two_wgpu_instances_work_in_one_group() {
    let found = block_on(step(of_two_instances().to_vec(), 7)).unwrap();
    assert_eq!(found, block_on(step(Kind::Gpu.devices(2), 7)).unwrap());
}

#[test]
fn a_tensor_of_a_device_of_another_wgpu_instance_is_refused() {
    let [a, b] = of_two_instances();
    assert_ne!(a, b);
    let layer = SyncBatchNorm::new(config(), [a]).unwrap();
    let input = b.zeros(&[2, CHANNELS]).unwrap();
    let error = block_on(layer.forward_train(&[input])).unwrap_err();
    assert!(
        matches!(error, Error::Argument(ArgumentError::WrongDevice { rank: None, .. })),
        "{error:?}"
    );
}

#[test]
fn a_device_tells_its_own_time_of_the_passes_since_it_was_last_asked() {
    let device = block_on(Device::from_adapter(&adapter()))
        .expect("a device")
        .with_timestamps()
        .expect("timestamps");
    let layer = SyncBatchNorm::new(config(), [device.clone()]).expect("a layer");
    let inputs = upload(&layer, &batches(3)[..1]);
    let started = std::time::Instant::now();
    block_on(layer.forward_train(&inputs)).expect("forward");
    let passed = block_on(device.take_device_time()).expect("a time");
    assert!(passed > std::time::Duration::ZERO && passed <= started.elapsed(), "{passed:?}");
    assert_eq!(block_on(device.take_device_time()).expect("a time"), std::time::Duration::ZERO);

    // Statistics and outputs: two passes a call.
    for _ in 0..1025 {
        block_on(layer.forward_train(&inputs)).expect("forward");
    }
    let refused = block_on(device.take_device_time()).expect_err("more passes than queries");
    assert_eq!(
        refused.to_string().split(": ").nth(1),
        Some(
            "2050 passes since times were last taken, there is room for 2048; take them more often"
        ),
        "{refused}"
    );
    assert_eq!(
        block_on(device.take_device_time()).expect("they are forgotten"),
        std::time::Duration::ZERO
    );
}

#[test]
fn a_device_that_takes_no_times_says_so() {
    let plain = block_on(Device::from_adapter(&adapter())).expect("a device");
    let untimed =
        |error: &Error| matches!(error, Error::Gpu(syncbn::error::GpuError::NoTimestamps { .. }));
    let refused = block_on(plain.take_device_time()).expect_err("not asked to take times");
    assert!(untimed(&refused), "{refused}");
    let refused = Device::host().with_timestamps().expect_err("the host takes none");
    assert!(untimed(&refused), "{refused}");
}
