//! The first of two overlapping calls fails, is dropped, or is never polled again: the one behind
//! it ends at once, or says what it waits for, and so do the other rank's. A call that waits for
//! its turn has its whole deadline after it.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::{join, poll_immediate, try_join};
use pollster::block_on;
use syncbn::collective::Collective;
use syncbn::{
    BatchNormConfig, Device, Error, ProcessGroup, SyncBatchNorm,
    error::{BatchError, ExchangeError, GpuError},
};

use crate::common::transport::{Tapped, groups_over};
use crate::common::{on_threads, process_groups, virtual_gpus};

/// Long, because nobody may have to wait for it.
const LONG: Duration = Duration::from_secs(20);
const AT_ONCE: Duration = Duration::from_secs(5);
/// Values of a tensor that keeps a software driver busy for longer than the first poll of a call.
const MANY: usize = 1 << 23;

/// Two layers of a rank: `a` on this device, `b` on the host, so that b is ready to exchange as
/// soon as it is polled.
fn layers(group: &ProcessGroup, device: &Device) -> [SyncBatchNorm; 2] {
    [("a", device.clone()), ("b", Device::host())].map(|(name, device)| {
        let layer = SyncBatchNorm::new(BatchNormConfig::torch(1), [device]).unwrap();
        layer.named(name).in_group(group).unwrap()
    })
}

/// The device of a rank's first layer: of rank 0 a GPU.
fn device(group: &ProcessGroup) -> Device {
    if group.rank() == 0 { virtual_gpus()[0].clone() } else { Device::host() }
}

/// What happened to the call behind.
fn assert_poisoned(error: &Error, cause: &str) {
    let Error::Exchange(ExchangeError::Poisoned { at, cause: found }) = error else {
        panic!("{error:?}")
    };
    assert!(at.starts_with("layer 1 \"b\"") && found.contains(cause), "{error}");
}

/// What the other rank was notified of: of both its calls, the first failure.
fn assert_notified(group: &ProcessGroup, cause: &str) {
    let failure = group.failure().expect("a failed group");
    let ExchangeError::Aborted { rank: 0, reason, .. } = &failure else { panic!("{failure:?}") };
    assert!(reason.contains(cause), "{failure}");
}

#[test]
fn a_call_behind_one_that_fails_ends_at_once() {
    on_threads(process_groups(2, LONG), |group| {
        let device = device(&group).with_deadline(Duration::from_nanos(1));
        let [a, b] = layers(&group, &device);
        let x = device.zeros(&[MANY, 1]).unwrap();
        let y = Device::host().zeros(&[2, 1]).unwrap();
        let began = Instant::now();
        let (of_a, of_b) = block_on(join(a.forward_train(&x), b.forward_train(&y)));
        assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
        let of_a = of_a.expect_err("a fails");
        let of_b = of_b.expect_err("b fails with it");
        if group.rank() == 0 {
            assert!(matches!(of_a, Error::Gpu(GpuError::Timeout { .. })), "{of_a:?}");
            assert_poisoned(&of_b, "layer 0 \"a\", forward, exchange 0");
        } else {
            assert_notified(&group, "layer 0 \"a\", forward, exchange 0");
        }
    });
}

#[test]
fn a_call_behind_one_that_is_dropped_ends_at_once() {
    on_threads(process_groups(2, LONG), |group| {
        let device = device(&group);
        let [a, b] = layers(&group, &device);
        let x = device.zeros(&[MANY, 1]).unwrap();
        let y = Device::host().zeros(&[2, 1]).unwrap();
        let began = Instant::now();
        if group.rank() == 0 {
            let mut first = Box::pin(a.forward_train(&x));
            let mut second = pin!(b.forward_train(&y));
            assert!(block_on(poll_immediate(&mut first)).is_none(), "a waits for its device");
            assert!(block_on(poll_immediate(&mut second)).is_none(), "b waits for a");
            drop(first);
            assert_poisoned(
                &block_on(second).expect_err("b fails"),
                "its call was dropped before it ended",
            );
        } else {
            let (of_a, of_b) = block_on(join(a.forward_train(&x), b.forward_train(&y)));
            assert!(of_a.is_err() && of_b.is_err());
            assert_notified(&group, "its call was dropped before it ended");
        }
        assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    });
}

#[test]
fn a_call_behind_one_that_is_never_polled_again_names_it_and_the_other_rank_is_notified() {
    const PATIENCE: Duration = Duration::from_millis(300);
    const DEADLINE: Duration = Duration::from_millis(200);
    on_threads(process_groups(2, LONG), |group| {
        let device = device(&group).with_deadline(PATIENCE);
        let group = if group.rank() == 0 { group.with_deadline(DEADLINE) } else { group };
        let [a, b] = layers(&group, &device);
        let x = device.zeros(&[MANY, 1]).unwrap();
        let y = Device::host().zeros(&[2, 1]).unwrap();
        let began = Instant::now();
        if group.rank() == 0 {
            let mut first = pin!(a.forward_train(&x));
            assert!(first.as_mut().now_or_never().is_none(), "a waits for its device");
            let error = block_on(b.forward_train(&y)).expect_err("b waits in vain");
            let Error::Exchange(cause @ ExchangeError::Blocked { at, earlier, limit }) = &error
            else {
                panic!("{error:?}")
            };
            assert_eq!(
                (at.as_str(), *limit),
                ("layer 1 \"b\", forward, exchange 0", PATIENCE + DEADLINE)
            );
            assert_eq!(earlier, "layer 0 \"a\", forward, exchange 0");
            assert!(began.elapsed() >= *limit, "{:?}", began.elapsed());
            assert_eq!(group.failure().as_ref(), Some(cause));
            // The one that nobody polled finds the group as it is.
            let late = block_on(first).expect_err("a fails too");
            assert!(matches!(late, Error::Exchange(ExchangeError::Poisoned { .. })), "{late:?}");
        } else {
            let (of_a, of_b) = block_on(join(a.forward_train(&x), b.forward_train(&y)));
            assert!(of_a.is_err() && of_b.is_err());
            assert_notified(
                &group,
                "layer 0 \"a\", forward, exchange 0, did not go on within 500ms",
            );
        }
        assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    });
}

/// The first exchange of a layer reads its parameters from the device. Rank 1 is there all the
/// while, and does nothing.
#[test]
fn an_exchange_behind_one_whose_device_is_read_waits_as_long_as_a_call_does() {
    const PATIENCE: Duration = Duration::from_millis(300);
    const DEADLINE: Duration = Duration::from_millis(200);
    let groups = process_groups(2, DEADLINE);
    let device = virtual_gpus()[0].clone().with_deadline(PATIENCE);
    let [a, b] = layers(&groups[0], &device);
    let local = || syncbn::stats::LocalStatistics::empty(1);
    let mut first = pin!(a.synchronize(local()));
    let polled = first.as_mut().now_or_never();
    assert!(polled.is_none(), "a reads its parameters, or waits for rank 1: {polled:?}");
    let error = block_on(b.synchronize(local())).expect_err("b waits in vain");
    let Error::Exchange(ExchangeError::Blocked { limit, .. }) = error else { panic!("{error:?}") };
    // That of a call before its exchange, or in it: a fast device is done with the first poll.
    assert!([PATIENCE + DEADLINE, 2 * DEADLINE].contains(&limit), "{limit:?}");
}

#[test]
fn a_call_behind_one_that_all_ranks_refuse_alike_goes_on() {
    on_threads(process_groups(2, LONG), |group| {
        let device = device(&group);
        let [a, b] = layers(&group, &device);
        // One value in the whole group.
        let x = device.zeros(&[usize::from(group.rank() == 0), 1]).unwrap();
        let y = Device::host().upload(&[2, 1], &[0.0, 4.0]).unwrap();
        let (of_a, of_b) = block_on(join(a.forward_train(&x), b.forward_train(&y)));
        assert_eq!(of_a.expect_err("one value"), Error::Batch(BatchError::OneValue));
        assert_eq!(of_b.expect("b goes on").saved.statistics().unwrap().channels()[0].mean, 2.0);
        assert_eq!(group.failure(), None);
    });
}

/// The other ranks find the mismatch in the messages that they get, perhaps later. A notice would
/// overtake it, and name a rank that is right.
#[test]
fn a_call_behind_one_that_all_ranks_find_to_differ_sends_no_notice() {
    let aborts = Arc::new(AtomicUsize::new(0));
    let groups = groups_over(3, LONG, |rank| {
        Tapped::new(rank, |message| message).counting_aborts(aborts.clone())
    });
    on_threads(groups, |group| {
        let [a, b] = layers(&group, &Device::host());
        let x = Device::host().upload(&[2, 1], &[0.0, 4.0]).unwrap();
        let error = if group.rank() == 2 {
            block_on(b.forward_train(&x)).expect_err("another layer")
        } else {
            block_on(try_join(a.forward_train(&x), b.forward_train(&x))).expect_err("another layer")
        };
        let Error::Exchange(cause @ ExchangeError::Mismatch { rank: 2, .. }) = &error else {
            panic!("{error}")
        };
        assert_eq!(group.failure().as_ref(), Some(cause));
    });
    assert_eq!(aborts.load(Ordering::Relaxed), 0);
}

/// The one failure that others may not find.
#[test]
fn a_rank_whose_transport_fails_alone_notifies_the_others() {
    let groups = groups_over(2, LONG, |rank| {
        let fails = rank.rank() == 1;
        let transport = Tapped::new(rank, |message| message);
        if fails { transport.without_all_gather() } else { transport }
    });
    on_threads(groups, |group| {
        let began = Instant::now();
        let Error::Exchange(error) = block_on(group.barrier()).expect_err("rank 1 cannot") else {
            panic!("an error of the exchange")
        };
        match (group.rank(), &error) {
            (1, ExchangeError::Transport { .. }) => {}
            (0, ExchangeError::Aborted { rank: 1, reason, .. })
                if reason.contains("too many to gather from") => {}
            (rank, _) => panic!("rank {rank}: {error}"),
        }
        assert_eq!(group.failure(), Some(error));
        assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    });
}

/// What a call waited for an earlier one of its own rank is no part of its deadline.
#[test]
fn a_call_has_its_whole_deadline_from_its_turn_on() {
    const DEADLINE: Duration = Duration::from_secs(2);
    const LATE: Duration = Duration::from_millis(1200);
    on_threads(process_groups(2, DEADLINE), |group| {
        let [a, b] = layers(&group, &Device::host());
        let x = Device::host().upload(&[2, 1], &[0.0, 4.0]).unwrap();
        if group.rank() == 0 {
            let (of_a, of_b) = block_on(join(a.forward_train(&x), b.forward_train(&x)));
            assert!(of_a.is_ok() && of_b.is_ok(), "{of_a:?}, {of_b:?}");
        } else {
            for layer in [&a, &b] {
                std::thread::sleep(LATE);
                block_on(layer.forward_train(&x)).expect("in time for its turn");
            }
        }
    });
}
