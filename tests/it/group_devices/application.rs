//! A device that the application made and goes on using, and devices that are lost or late.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::FutureExt;
use pollster::block_on;
use syncbn::stats::RunningStats;
use syncbn::{
    Device, Error, Forward, SyncBatchNorm,
    error::{GpuError, LimitError},
};
use wgpu::BufferUsages;

use super::common::*;
use super::{CHANNELS, batches, config, step};

/// What no call on a failing device may take: far below the default deadline, far above a slow
/// machine's work.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs `work` on a thread of its own and fails when it does not end.
fn within_patience<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || sender.send(work()));
    match receiver.recv_timeout(PATIENCE) {
        Ok(result) => result,
        Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("no result within {PATIENCE:?}"),
        Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => {
            std::panic::resume_unwind(thread.join().expect_err("it sent nothing"))
        }
    }
}

fn storage(device: &wgpu::Device, size: u64, usage: BufferUsages) -> wgpu::Buffer {
    device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size,
        usage,
        mapped_at_creation: false,
    })
}

#[test]
fn a_device_of_the_application_gives_the_bits_of_an_opened_one() {
    let (device, queue) = own_device(&adapter(), |_| {});
    let device = Device::from_wgpu(device, queue).unwrap();
    assert!(!device.is_host());
    let found = block_on(step(vec![device.clone(), device], 20)).unwrap();
    assert_eq!(found, block_on(step(Kind::Gpu.devices(2), 20)).unwrap());
}

#[test]
fn the_smallest_number_of_workgroups_per_dimension_does_not_change_a_bit() {
    // One tile of a channel per workgroup: 21 of them in rows of at most 7, and 54, which are two
    // windows.
    let (device, queue) =
        own_device(&adapter(), |limits| limits.max_compute_workgroups_per_dimension = 7);
    let device = Device::from_wgpu(device, queue).unwrap();
    let whole = virtual_gpus()[0].clone();
    let many_tiles = vec![1, CHANNELS, 4096 * 17 + 1];
    for dims in [vec![2, CHANNELS, 4096 * 3 + 5], vec![40, 500], vec![1, CHANNELS, 1], many_tiles] {
        let y = |device: &Device| {
            let layer = SyncBatchNorm::new(
                syncbn::BatchNormConfig::torch(dims[1]),
                vec![device.clone(); 2],
            )
            .unwrap();
            let batches = [21, 22].map(|seed| Batch::random(&dims, &mut Random::new(seed)));
            let forward = block_on(layer.forward_train(&upload(&layer, &batches))).unwrap();
            (bits(&read(&forward.output)), forward.saved.statistics().cloned())
        };
        assert_eq!(y(&device), y(&whole), "{dims:?}");
    }
    // One workgroup per block of channels is the least that a dispatch can have.
    let layer = SyncBatchNorm::new(syncbn::BatchNormConfig::torch(4000), [device.clone()]).unwrap();
    let dims = vec![1, 4000, 301];
    let error = block_on(layer.forward_train(&[device.zeros(&dims).unwrap()])).unwrap_err();
    // 32 channels in each, of 76 quads that cover a plane.
    assert_eq!(error, Error::Limit(LimitError::Workgroups { dims, found: 125, allowed: 49 }));
}

#[test]
fn a_device_below_the_portable_limits_is_refused_with_both_numbers() {
    let (device, queue) =
        own_device(&adapter(), |limits| limits.max_storage_buffers_per_shader_stage = 4);
    let error = Device::from_wgpu(device, queue).unwrap_err();
    let Error::Limit(LimitError::Device { limit, found, expected, .. }) = &error else {
        panic!("{error:?}")
    };
    assert_eq!((*limit, *found), ("max_storage_buffers_per_shader_stage", 4));
    assert!(
        error.to_string().contains(&format!("{limit} is 4, expected at least {expected}")),
        "{error}"
    );
}

#[test]
fn the_application_s_error_handler_stays_and_hears_nothing_of_errors_that_are_returned() {
    let adapter = adapter();
    let (device, queue) = own_device(&adapter, |_| {});
    let heard = Arc::new(AtomicUsize::new(0));
    let counter = heard.clone();
    device.on_uncaptured_error(Arc::new(move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
    }));
    let provoke = || drop(storage(&device, 16, BufferUsages::MAP_READ | BufferUsages::MAP_WRITE));
    let handle = Device::from_wgpu(device.clone(), queue.clone()).unwrap();
    let (other, _) = own_device(&adapter, |_| {});
    let dims = [2, CHANNELS, 5];

    let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
    assert_eq!(Device::from_wgpu(device.clone(), queue).unwrap(), handle);
    let layer = SyncBatchNorm::new(config(), [handle.clone()]).unwrap();
    let usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC;
    let foreign = || handle.wrap(storage(&other, 120, usage), 0, &dims).unwrap();
    let input = handle.zeros(&dims).unwrap();
    block_on(layer.forward_train(&[foreign()])).unwrap_err();
    block_on(layer.forward_train(Forward::of(&input).write_to(&mut foreign()))).unwrap_err();
    block_on(foreign().to_vec()).unwrap_err();
    handle.zeros(&[1 << 20, 1 << 20]).unwrap_err();
    block_on(layer.forward_train(&[input])).unwrap();
    assert!(
        block_on(scope.pop()).is_none(),
        "the application's scope caught an error of the library"
    );
    assert_eq!(heard.load(Ordering::Relaxed), 0);

    provoke();
    assert_eq!(heard.load(Ordering::Relaxed), 1, "the application's handler was replaced");
    let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
    provoke();
    assert!(block_on(scope.pop()).is_some());
    assert_eq!(heard.load(Ordering::Relaxed), 1);
}

#[test]
fn an_error_of_one_thread_is_not_reported_to_another() {
    let adapter = adapter();
    let (device, queue) = own_device(&adapter, |_| {});
    let handle = Device::from_wgpu(device, queue).unwrap();
    let (other, _) = own_device(&adapter, |_| {});
    let expected = block_on(step(vec![handle.clone(); 2], 23)).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let layer = SyncBatchNorm::new(config(), [handle.clone()]).unwrap();
            for _ in 0..50 {
                let buffer = storage(&other, 120, BufferUsages::STORAGE);
                let foreign = handle.wrap(buffer, 0, &[2, CHANNELS, 5]).unwrap();
                let error = block_on(layer.forward_train(&[foreign])).unwrap_err();
                assert!(matches!(error, Error::Gpu(GpuError::Refused { .. })), "{error:?}");
            }
        });
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..10 {
                    assert_eq!(block_on(step(vec![handle.clone(); 2], 23)).unwrap(), expected);
                }
            });
        }
    });
}

#[test]
fn a_destroyed_device_is_an_error_and_neither_a_hang_nor_a_panic() {
    within_patience(|| {
        let (device, queue) = own_device(&adapter(), |_| {});
        let handle = Device::from_wgpu(device.clone(), queue).unwrap();
        // The other rank is sound.
        let layer =
            SyncBatchNorm::new(config(), vec![handle.clone(), virtual_gpus()[0].clone()]).unwrap();
        let inputs = upload(&layer, &batches(24));
        block_on(layer.forward_train(&inputs)).unwrap();
        let before = layer.running_stats();
        device.destroy();
        for _ in 0..2 {
            let error = block_on(layer.forward_train(&inputs)).unwrap_err();
            assert!(matches!(error, Error::Gpu(_)), "{error:?}");
            assert!(error.to_string().contains(handle.name()), "{error}");
            assert_eq!(layer.running_stats(), before);
        }
        assert!(matches!(block_on(inputs[0].to_vec()), Err(Error::Gpu(_))));
        let handle_error =
            |result: Result<(), Error>| assert!(matches!(result, Ok(()) | Err(Error::Gpu(_))));
        handle_error(block_on(handle.wait()));
        handle_error(handle.upload(&[2, CHANNELS], &[0.0; 6]).map(drop));
        handle_error(handle.zeros(&[2, CHANNELS]).map(drop));
        handle_error(block_on(layer.forward_eval(&inputs)).map(drop));
    });
}

#[test]
fn a_device_destroyed_in_the_middle_of_a_call_is_an_error_or_comes_too_late() {
    within_patience(|| {
        let adapter = adapter();
        let whole = SyncBatchNorm::new(config(), Kind::Gpu.devices(2)).unwrap();
        block_on(whole.forward_train(&upload(&whole, &batches(25)))).unwrap();
        for _ in 0..5 {
            let (device, queue) = own_device(&adapter, |_| {});
            let handle = Device::from_wgpu(device.clone(), queue).unwrap();
            let layer = SyncBatchNorm::new(config(), vec![handle.clone(), handle]).unwrap();
            let inputs = upload(&layer, &batches(25));
            let mut forward = Box::pin(layer.forward_train(&inputs));
            let early = (&mut forward).now_or_never();
            device.destroy();
            let result = early.unwrap_or_else(|| block_on(forward));
            match result {
                Ok(_) => assert_eq!(layer.running_stats().unwrap().num_batches_tracked, 1),
                Err(error) => {
                    assert!(matches!(error, Error::Gpu(_)), "{error:?}");
                    // Before the exchange nothing has moved, after it all has.
                    let running = layer.running_stats();
                    let is_whole = running == whole.running_stats();
                    assert!(
                        is_whole || running == Some(RunningStats::new(CHANNELS)),
                        "{running:?}"
                    );
                }
            }
        }
    });
}

#[test]
fn a_deadline_that_passes_is_an_error_and_the_device_goes_on() {
    within_patience(|| {
        let device = block_on(Device::from_adapter(&adapter())).unwrap();
        // From deadlines that always pass to some that often do not, so that many pass just as the
        // work ends.
        for micros in [0, 50, 200, 400] {
            let deadline = Duration::from_micros(micros);
            let hasty = device.clone().with_deadline(deadline);
            let layer = SyncBatchNorm::new(config(), vec![hasty.clone(); 2]).unwrap();
            let inputs = upload(&layer, &batches(26));
            let mut counted = 0;
            for _ in 0..150 {
                match block_on(layer.forward_train(&inputs)) {
                    Ok(_) => counted += 1,
                    Err(Error::Gpu(GpuError::Timeout { device, deadline: found })) => {
                        assert_eq!((device.as_str(), found), (hasty.name(), deadline));
                    }
                    Err(error) => panic!("{error:?}"),
                }
                assert_eq!(layer.running_stats().unwrap().num_batches_tracked, counted);
            }
            println!("deadline {deadline:?}: {counted} of 150 calls ended in time");
            for result in [block_on(hasty.wait()), block_on(inputs[0].to_vec()).map(drop)] {
                assert!(
                    matches!(result, Ok(()) | Err(Error::Gpu(GpuError::Timeout { .. }))),
                    "{result:?}"
                );
            }
        }
        // Handles differ in their deadline, not in their device.
        block_on(device.wait()).unwrap();
        let found =
            block_on(step(vec![device.clone().with_deadline(PATIENCE), device], 27)).unwrap();
        assert_eq!(found, block_on(step(Kind::Gpu.devices(2), 27)).unwrap());
    });
}

#[test]
fn the_longest_deadline_is_one_that_never_passes() {
    let device = virtual_gpus()[0].clone().with_deadline(Duration::MAX);
    let found = block_on(step(vec![device.clone(), device], 28)).unwrap();
    assert_eq!(found, block_on(step(Kind::Gpu.devices(2), 28)).unwrap());
}
