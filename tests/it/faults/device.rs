//! A rank that loses its GPU, or drops a call that waits for it: before anything was exchanged.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use futures::FutureExt;
use syncbn::{
    Backward, BatchNormConfig, Device, Error, ProcessGroup, SyncBatchNorm,
    error::{ExchangeError, GpuError},
};

use crate::common::{adapter, on_threads, own_device, process_groups};

/// Long, because nobody may have to wait for it.
const DEADLINE: Duration = Duration::from_secs(20);
const AT_ONCE: Duration = Duration::from_secs(5);
const CULPRIT: usize = 1;

/// What rank 1 does after a good step.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    LosesItsDeviceBeforeForward,
    LosesItsDeviceBeforeBackward,
    DropsForward,
    DropsBackward,
}

/// Three ranks, the second on a GPU of its own, the others on the host.
fn plant(fault: Fault) {
    let dropped = Barrier::new(3);
    on_threads(process_groups(3, DEADLINE), |group| step_and_fail(&group, fault, &dropped));
}

/// The others wait for `dropped`: if they were there before, a device that is quick would let the
/// call end.
fn step_and_fail(group: &ProcessGroup, fault: Fault, dropped: &Barrier) {
    let culprit = group.rank() == CULPRIT;
    let (gpu, device) = match culprit {
        true => {
            let (gpu, queue) = own_device(&adapter(), |_| {});
            (Some(gpu.clone()), Device::from_wgpu(gpu, queue).unwrap())
        }
        false => (None, Device::host()),
    };
    let config = BatchNormConfig::torch(2);
    let layer = SyncBatchNorm::new(config, [device.clone()])
        .unwrap()
        .named("only")
        .in_group(group)
        .unwrap();
    let x = device.upload(&[2, 2], &[0.0, 1.0, 2.0, group.rank() as f32]).unwrap();
    let g = device.upload(&[2, 2], &[1.0, -1.0, 0.5, 0.25]).unwrap();
    let saved = pollster::block_on(layer.forward_train(&x)).expect("a good step").saved;
    let before = layer.running_stats();
    let forward = matches!(fault, Fault::LosesItsDeviceBeforeForward | Fault::DropsForward);
    match gpu {
        Some(gpu)
            if matches!(
                fault,
                Fault::LosesItsDeviceBeforeForward | Fault::LosesItsDeviceBeforeBackward
            ) =>
        {
            gpu.destroy();
            let lost = match forward {
                true => pollster::block_on(layer.forward_train(&x)).map(|_| ()),
                false => {
                    pollster::block_on(layer.backward(&saved, Backward::of(&x, &g))).map(|_| ())
                }
            };
            let lost = lost.expect_err("a lost device");
            assert!(
                matches!(lost, Error::Gpu(GpuError::Readback { .. } | GpuError::Refused { .. })),
                "{lost:?}"
            );
        }
        Some(_) => {
            let ended = match forward {
                true => layer.forward_train(&x).now_or_never().is_some(),
                false => layer.backward(&saved, Backward::of(&x, &g)).now_or_never().is_some(),
            };
            dropped.wait();
            assert!(!ended, "a call that waits for the device or its peers");
        }
        None => {
            if matches!(fault, Fault::DropsForward | Fault::DropsBackward) {
                dropped.wait();
            }
            let began = Instant::now();
            let error = match forward {
                true => pollster::block_on(layer.forward_train(&x)).map(|_| ()),
                false => {
                    pollster::block_on(layer.backward(&saved, Backward::of(&x, &g))).map(|_| ())
                }
            };
            assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
            let error = error.expect_err("a rank that failed");
            let Error::Exchange(cause) = &error else { panic!("{error:?}") };
            let named = match cause {
                ExchangeError::Aborted { rank, at, .. } => {
                    *rank == CULPRIT && at.contains("\"only\"")
                }
                _ => false,
            };
            assert!(named, "{error}");
        }
    }
    assert_eq!(layer.running_stats(), before);
    assert!(group.failure().is_some());
    let next = pollster::block_on(layer.forward_train(&x)).map(|_| ());
    assert!(matches!(next, Err(Error::Exchange(ExchangeError::Poisoned { .. }))), "{next:?}");
}

#[test]
fn a_device_lost_before_forward_fails_every_rank() {
    plant(Fault::LosesItsDeviceBeforeForward);
}

#[test]
fn a_device_lost_before_backward_fails_every_rank() {
    plant(Fault::LosesItsDeviceBeforeBackward);
}

#[test]
fn a_call_dropped_before_the_exchange_fails_every_rank() {
    plant(Fault::DropsForward);
    plant(Fault::DropsBackward);
}
