//! Two passes of one layer at once: its ranks meet in the order of the calls, and have the bits of
//! one call after the other.

use std::sync::mpsc::channel;

use futures::FutureExt;
use futures::future::join;
use pollster::block_on;
use syncbn::state::LoadOptions;
use syncbn::stats::RunningStats;
use syncbn::{BatchNormConfig, Device, ProcessGroup, SyncBatchNorm, Tensor};

use crate::common::all_reduce_groups;
use crate::common::{Batch, Kind, Placement, Random, bits, on_threads, process_groups, read};
use crate::process_groups::{CHANNELS, LONG};

const RANKS: usize = 3;
const ROUNDS: usize = 50;

/// Outputs of the passes of a round in bits, and the running statistics after it.
type Round = (Vec<Vec<u32>>, RunningStats);

/// The rounds of every rank over some kind of device, each of two passes that `pass` makes. Before
/// some of them all load what they have, so that states are announced again.
fn rounds(
    groups: Vec<ProcessGroup>,
    kind: Kind,
    pass: impl Fn(&SyncBatchNorm, &[Tensor; 2]) -> [Tensor; 2] + Sync,
) -> Vec<Vec<Round>> {
    on_threads(
        groups.into_iter().zip(kind.devices(RANKS)).collect(),
        |(group, device): (_, Device)| {
            let layer =
                SyncBatchNorm::new(BatchNormConfig::torch(CHANNELS), [device.clone()]).unwrap();
            let mut layer = layer.in_group(&group).unwrap();
            let mut random = Random::new(50 + group.rank() as u64);
            let round = |round: usize| {
                if round % 5 == 4 {
                    let state = block_on(layer.state()).unwrap();
                    layer.load_state(&state, &LoadOptions::default()).unwrap();
                }
                let x = [3, 2].map(|samples| {
                    Batch::random(&[samples, CHANNELS, 5], &mut random).upload(&device)
                });
                let y = pass(&layer, &x);
                (bits(&read(&y)), layer.running_stats().unwrap())
            };
            (0..ROUNDS).map(round).collect()
        },
    )
}

/// The rounds over every kind of device and transport must be those of one pass after the other.
fn assert_in_order(pass: impl Fn(&SyncBatchNorm, &[Tensor; 2]) -> [Tensor; 2] + Sync) {
    let one = |layer: &SyncBatchNorm, x: &Tensor| {
        block_on(layer.forward_train(x)).expect("a pass").output
    };
    for kind in Kind::ALL {
        let expected = rounds(process_groups(RANKS, LONG), kind, |layer, [a, b]| {
            [one(layer, a), one(layer, b)]
        });
        assert_eq!(expected[0][ROUNDS - 1].1.num_batches_tracked, 2 * ROUNDS as u64);
        for groups in [process_groups(RANKS, LONG), all_reduce_groups(RANKS, LONG)] {
            let found = rounds(groups, kind, &pass);
            for (rank, (found, expected)) in found.iter().zip(&expected).enumerate() {
                for (round, (found, expected)) in found.iter().zip(expected).enumerate() {
                    assert_eq!(found, expected, "{kind:?}, rank {rank}, round {round}");
                }
            }
            assert!(
                found
                    .iter()
                    .flatten()
                    .zip(found[0].iter().cycle())
                    .all(|(rank, first)| rank.1 == first.1)
            );
        }
    }
}

#[test]
fn two_passes_of_one_layer_that_are_awaited_together_move_it_in_their_order() {
    assert_in_order(|layer, [a, b]| {
        let (a, b) = block_on(join(layer.forward_train(a), layer.forward_train(b)));
        [a, b].map(|forward| forward.expect("a pass").output)
    });
}

#[test]
fn two_passes_of_one_layer_on_two_threads_move_it_in_the_order_in_which_they_begin() {
    assert_in_order(|layer, [a, b]| {
        let (begun, has_begun) = channel();
        std::thread::scope(|scope| {
            let second = scope.spawn(move || {
                has_begun.recv().expect("the first pass");
                block_on(layer.forward_train(b))
            });
            let mut first = Box::pin(layer.forward_train(a));
            // The first poll begins the pass; where everybody else is there it also ends it.
            let at_once = (&mut first).now_or_never();
            begun.send(()).expect("the second pass");
            let first = at_once.unwrap_or_else(|| block_on(first));
            [first, second.join().expect("no panic")].map(|forward| forward.expect("a pass").output)
        })
    });
}
