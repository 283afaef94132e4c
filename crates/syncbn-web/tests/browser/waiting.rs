//! Results, devices and ranks that never come. Nothing hangs, and the page goes on meanwhile.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use futures::future::{Either, join, select};
use syncbn::collective::LocalGroup;
use syncbn::error::{ExchangeError, GpuError};
use syncbn::{BatchNorm, BatchNormConfig, Device, Error, ProcessGroup, SyncBatchNorm};
use wasm_bindgen_test::wasm_bindgen_test;

use super::gpu;

/// Ends when the page's timer fires.
async fn sleep(duration: Duration) {
    futures_timer::Delay::new(duration).await;
}

fn layer(device: &Device) -> SyncBatchNorm {
    SyncBatchNorm::new(BatchNormConfig::torch(1), [device.clone()]).unwrap()
}

#[wasm_bindgen_test]
async fn a_deadline_of_nothing_is_an_error_and_the_device_goes_on() {
    let device = gpu().await;
    let hasty = device.clone().with_deadline(Duration::ZERO);
    let x = hasty.upload(&[2, 1], &[0.0f32, 2.0]).unwrap();
    let error = layer(&hasty).forward_train(&x).await.expect_err("no time");
    assert!(matches!(error, Error::Gpu(GpuError::Timeout { .. })), "{error}");
    let x = device.upload(&[2, 1], &[0.0f32, 2.0]).unwrap();
    let y = layer(&device).forward_train(&x).await.expect("time enough").output;
    assert!((y.to_vec().await.unwrap()[1] - 1.0).abs() < 1e-5);
}

#[wasm_bindgen_test]
async fn the_longest_deadline_does_not_fire() {
    let device = gpu().await.with_deadline(Duration::MAX);
    let x = device.upload(&[2, 1], &[0.0f32, 2.0]).unwrap();
    layer(&device).forward_train(&x).await.expect("a result");
}

#[wasm_bindgen_test]
async fn a_late_rank_is_an_error_that_names_it() {
    let mut ranks = LocalGroup::ranks(2).into_iter();
    let group = ProcessGroup::new(ranks.next().unwrap()).with_deadline(Duration::from_millis(50));
    let _other = ranks.next();
    let device = Device::host();
    let bn = layer(&device).in_group(&group).unwrap();
    let x = device.upload(&[2, 1], &[0.0f32, 2.0]).unwrap();
    let error = bn.forward_train(&x).await.expect_err("nobody else comes");
    assert!(matches!(&error, Error::Exchange(ExchangeError::Late { .. })), "{error}");
}

#[wasm_bindgen_test]
async fn a_page_goes_on_while_a_call_waits() {
    let mut ranks = LocalGroup::ranks(2).into_iter();
    let group = ProcessGroup::new(ranks.next().unwrap()).with_deadline(Duration::from_millis(300));
    let _other = ranks.next();
    let bn = layer(&gpu().await).in_group(&group).unwrap();
    let x = bn.devices()[0].upload(&[2, 1], &[0.0f32, 2.0]).unwrap();
    let turns = Rc::new(Cell::new(0));
    let count = {
        let turns = turns.clone();
        async move {
            loop {
                sleep(Duration::from_millis(10)).await;
                turns.set(turns.get() + 1);
            }
        }
    };
    let call = Box::pin(bn.forward_train(&x));
    match select(call, Box::pin(count)).await {
        Either::Left((result, _)) => assert!(result.is_err()),
        Either::Right(_) => unreachable!("it counts for ever"),
    }
    assert!(turns.get() >= 5, "the page had {} turns in 300 ms", turns.get());
}

#[wasm_bindgen_test]
async fn a_destroyed_device_is_an_error_at_the_next_result() {
    let device = gpu().await;
    let x = device.upload(&[2, 1], &[0.0f32, 2.0]).unwrap();
    let bn = layer(&device);
    bn.forward_train(&x).await.expect("it works so far");
    device.wgpu().unwrap().0.destroy();
    let error = bn.forward_train(&x).await.expect_err("the device is gone");
    assert!(matches!(error, Error::Gpu(_)), "{error}");
}

#[wasm_bindgen_test]
async fn what_a_call_that_waits_for_nothing_did_wrong_is_heard_by_the_next_that_waits() {
    let device = gpu().await;
    let (wgpu, _) = device.wgpu().unwrap();
    // No usage that a kernel could read.
    let buffer = wgpu.create_buffer(&syncbn::wgpu::BufferDescriptor {
        label: None,
        size: 256,
        usage: syncbn::wgpu::BufferUsages::STORAGE | syncbn::wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    let other = gpu().await;
    // A slice of another device's buffer, which only a driver can tell.
    if let Ok(foreign) = other.wrap(buffer, 0, &[2, 1]) {
        let bn = BatchNorm::new(BatchNormConfig::torch(1), &other).unwrap();
        let _ = bn.forward_train(&foreign);
        let error = other.wait().await.expect_err("a buffer of another device");
        assert!(matches!(error, Error::Gpu(GpuError::Refused { .. })), "{error}");
        other.wait().await.expect("it is told once");
    } else {
        panic!("the slice itself was refused: this test needs another fault");
    }
}

#[wasm_bindgen_test]
async fn many_calls_without_a_pause_end_together() {
    let device = gpu().await;
    let bn = BatchNorm::new(BatchNormConfig::torch(4), &device).unwrap();
    let x = device.upload(&[8, 4], &[1.0f32; 32]).unwrap();
    for _ in 0..300 {
        bn.forward_train(&x).unwrap();
    }
    let (waited, ()) = join(device.wait(), sleep(Duration::from_millis(1))).await;
    waited.expect("all of them");
    assert_eq!(bn.running_stats().await.unwrap().unwrap().num_batches_tracked, 300);
}
