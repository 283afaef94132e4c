//! A transport that supports all-reduce: layers over it give the bits of one that gathers
//! them, and the errors.

use std::time::Duration;

use syncbn::collective::Collective;
use syncbn::{
    Backward, BatchNormConfig, Device, Error, Forward, ProcessGroup, SyncBatchNorm,
    error::ExchangeError,
};

use crate::common::sabotage::{Sabotage, saboteur};
use crate::common::transport::Tapped;
use crate::common::*;

const CHANNELS: usize = 3;
/// Nobody waits in vain here.
const LONG: Duration = Duration::from_secs(20);

fn groups(world_size: usize, merges: bool) -> Vec<ProcessGroup> {
    if merges { all_reduce_groups(world_size, LONG) } else { process_groups(world_size, LONG) }
}

/// Outputs and gradients of every process with so many devices, and the running statistics, in
/// bits.
fn train(devices: &[usize], merges: bool) -> Vec<Vec<Vec<u32>>> {
    let mut random = Random::new(7);
    let count = devices.iter().sum();
    let batches: Vec<Batch> =
        (0..count).map(|r| Batch::random(&[r % 3 + 1, CHANNELS, 5], &mut random)).collect();
    let first = |process: usize| devices[..process].iter().sum::<usize>();
    on_threads(groups(devices.len(), merges), |group| {
        let first = first(group.rank());
        let own = devices[group.rank()];
        let config = BatchNormConfig::torch(CHANNELS);
        let layer = SyncBatchNorm::new(config, vec![Device::host(); own])
            .unwrap()
            .in_group(&group)
            .unwrap();
        let x = upload(&layer, &batches[first..first + own]);
        let forward = pollster::block_on(layer.forward_train(&x)).unwrap();
        let backward =
            pollster::block_on(layer.backward(&forward.saved, Backward::of(&x, &forward.output)))
                .unwrap();
        let running = layer.running_stats().unwrap();
        let numbers = read(&forward.output).into_iter().chain(read(&backward.input));
        let numbers = numbers.chain([running.mean, running.var]);
        numbers.map(|values| values.into_iter().map(f32::to_bits).collect()).collect()
    })
}

#[test]
fn statistics_that_merge_on_the_way_have_the_bits_of_those_that_are_gathered() {
    for devices in [&[1, 1][..], &[1; 3], &[1; 7], &[1; 8], &[3, 1, 2], &[2, 5, 1, 1, 3]] {
        assert_eq!(train(devices, true), train(devices, false), "{devices:?}");
    }
}

/// What a rank does otherwise than the others.
#[derive(Clone, Copy, Debug)]
enum Other {
    Layer,
    Phase,
    Eps,
    Channels,
    State,
}

/// The errors of five ranks of which these do otherwise.
fn errors(other: Other, culprits: &[usize], merges: bool) -> Vec<ExchangeError> {
    on_threads(groups(5, merges), |group| {
        let differs = culprits.contains(&group.rank());
        let host = Device::host();
        let channels =
            if differs && matches!(other, Other::Channels) { CHANNELS + 1 } else { CHANNELS };
        let mut config = BatchNormConfig::torch(channels);
        if differs && matches!(other, Other::Eps) {
            config = config.with_eps(0.5);
        }
        let make = |name: &str| {
            SyncBatchNorm::new(config.clone(), [host.clone()])
                .unwrap()
                .named(name)
                .in_group(&group)
                .unwrap()
        };
        let mut first = make("bn1");
        let second = make("bn2");
        if differs && matches!(other, Other::State) {
            first.set_parameters(Some(&[2.0; CHANNELS]), None).unwrap();
        }
        let x = host.zeros(&[2, channels]).unwrap();
        let result = match other {
            Other::Layer if differs => pollster::block_on(second.forward_train(&x)),
            Other::Phase if differs => {
                pollster::block_on(first.forward_train(Forward::of(&x).untracked()))
            }
            _ => pollster::block_on(first.forward_train(&x)),
        };
        let Err(Error::Exchange(error)) = result.map(|_| ()) else {
            panic!("no error of an exchange")
        };
        error
    })
}

#[test]
fn ranks_that_are_elsewhere_are_named_as_where_messages_are_gathered() {
    for other in [Other::Layer, Other::Phase, Other::Eps, Other::Channels, Other::State] {
        for culprits in [&[0][..], &[2], &[4], &[1, 3], &[0, 2, 3]] {
            let found = errors(other, culprits, true);
            assert_eq!(found, errors(other, culprits, false), "{other:?} of {culprits:?}");
            let is_named = |error: &ExchangeError| match other {
                Other::Eps => matches!(error, ExchangeError::Setting { .. }),
                Other::State => matches!(error, ExchangeError::State { .. }),
                _ => matches!(error, ExchangeError::Mismatch { .. }),
            };
            assert!(found.iter().all(is_named), "{found:?}");
        }
    }
}

/// The errors of all ranks when one says `bytes` in the second exchange of a layer.
fn errors_of(bytes: &[u8], culprit: usize) -> Vec<ExchangeError> {
    let groups = groups_over(5, LONG, |rank| {
        let sabotage =
            if rank.rank() == culprit { Sabotage::Send(bytes.to_vec()) } else { Sabotage::Nothing };
        saboteur(rank, sabotage, 1).all_reducing(true)
    });
    on_threads(groups, |group| {
        let host = Device::host();
        let layer = SyncBatchNorm::new(BatchNormConfig::torch(1), [host.clone()])
            .unwrap()
            .in_group(&group)
            .unwrap();
        let x = host.zeros(&[2, 1]).unwrap();
        pollster::block_on(layer.forward_train(&x)).expect("a good exchange");
        let before = layer.running_stats();
        let Err(Error::Exchange(error)) = pollster::block_on(layer.forward_train(&x)).map(|_| ())
        else {
            panic!("no error of an exchange")
        };
        assert_eq!(layer.running_stats(), before);
        assert_eq!(group.failure().as_ref(), Some(&error));
        error
    })
}

#[test]
fn a_rank_whose_message_cannot_be_merged_is_named_on_every_rank() {
    for culprit in 0..5 {
        for bytes in [
            &b""[..],
            b"\x00",
            b"\x00garbage",
            b"\x00\x01\0\0\0\0\0\0\0\x07",
            b"\x07",
            b"GET / HTTP/1.1",
        ] {
            for error in errors_of(bytes, culprit) {
                let ExchangeError::Frame { rank, .. } = error else { panic!("{error}") };
                assert_eq!(rank, culprit, "{bytes:?}");
            }
        }
    }
}

/// Over both transports: one whose message lists another number of exchanges than its header says.
#[test]
fn a_rank_whose_list_is_shorter_than_it_says_is_named_on_every_rank() {
    for (merges, culprit) in [(false, 0), (false, 3), (true, 0), (true, 1), (true, 3), (true, 4)] {
        let groups = groups_over(5, LONG, |inner| {
            let rank = inner.rank();
            let tap = move |mut message: Vec<u8>| {
                if rank == culprit {
                    let frame =
                        message.windows(4).position(|bytes| bytes == b"SYBN").expect("a frame");
                    message[frame + 80] = 2;
                }
                message
            };
            Tapped::new(inner, tap).all_reducing(merges)
        });
        let errors = on_threads(groups, |group| {
            let host = Device::host();
            let layer = SyncBatchNorm::new(BatchNormConfig::torch(1), [host.clone()])
                .unwrap()
                .in_group(&group)
                .unwrap();
            pollster::block_on(layer.forward_train(&host.zeros(&[2, 1]).unwrap()))
                .map(drop)
                .expect_err("a lie")
        });
        for error in errors {
            let Error::Exchange(ExchangeError::Frame { rank, message, .. }) = &error else {
                panic!("{error}")
            };
            let named = (*rank, message.as_str());
            assert_eq!(
                named,
                (culprit, "it carries 1 exchange(s), expected 2"),
                "merges: {merges}"
            );
        }
    }
}
