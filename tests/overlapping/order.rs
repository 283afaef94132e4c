//! Overlapping calls meet in the order in which every rank made them, whichever device is done first.

use std::time::Duration;

use futures::future::{join, join3};
use pollster::block_on;
use syncbn::{Device, LayerRequest, ProcessGroup, SyncBatchNorm, SyncBatchNormConfig, Tensor};

use crate::common::merging::merging_groups;
use crate::common::{Kind, on_threads, process_groups};

/// Nobody waits in vain here.
const LONG: Duration = Duration::from_secs(20);
const ROUNDS: usize = 200;
const RANKS: usize = 2;

/// Three layers of a rank, of as many channels as the others have not, so that no message of one passes for another's.
struct Rank {
    device: Device,
    rank: usize,
    a: SyncBatchNorm,
    b: SyncBatchNorm,
    c: SyncBatchNorm,
}

impl Rank {
    fn new(group: &ProcessGroup, device: &Device) -> Self {
        let layer = |name: &str, channels| {
            SyncBatchNorm::named(name, SyncBatchNormConfig::torch(channels), device.clone(), group).unwrap()
        };
        let (a, b, c) = (layer("a", 1), layer("b", 1), layer("c", 2));
        Self { device: device.clone(), rank: group.rank(), a, b, c }
    }

    /// Two values per channel, `first` and one more; on rank 1 they are 2 more than on rank 0. The mean over both ranks is
    /// `first` + 1.5.
    fn input(&self, channels: usize, first: f32) -> Tensor {
        let first = first + 2.0 * self.rank as f32;
        let values = [vec![first; channels], vec![first + 1.0; channels]].concat();
        self.device.upload(&[2, channels], &values).unwrap()
    }
}

/// Every transport and every kind of device, each rank with its device.
fn over_all(body: impl Fn(ProcessGroup, Device) + Sync) {
    for kind in Kind::ALL {
        for merging in [false, true] {
            let groups = if merging { merging_groups(RANKS, LONG) } else { process_groups(RANKS, LONG) };
            on_threads(groups.into_iter().zip(kind.devices(RANKS)).collect(), |(group, device)| body(group, device));
        }
    }
}

/// Whether a layer's statistics are those of `input(_, first)` over both ranks: small numbers, exact in f32.
fn assert_mean(report: &syncbn::ForwardReport, first: f32) {
    let means: Vec<f64> = report.global.channels().iter().map(|channel| channel.mean).collect();
    assert!(means.iter().all(|&mean| mean == f64::from(first) + 1.5), "{means:?}, expected {first} + 1.5");
}

#[test]
fn forward_and_backward_of_two_layers_meet_in_the_order_of_the_calls() {
    over_all(|group, device| {
        let mut rank = Rank::new(&group, &device);
        for round in 0..ROUNDS {
            let first = round as f32;
            let (x, y) = (rank.input(1, first), rank.input(1, -first));
            let (a, b) = block_on(join(rank.a.forward_train(&x), rank.b.forward_train(&y)));
            let (a, b) = (a.expect("forward of a"), b.expect("forward of b"));
            assert_mean(&a.report, first);
            assert_mean(&b.report, -first);
            // Gradient 1 for a, 3 for b: sums over four values.
            let [one, three] = [1.0, 3.0].map(|g| device.upload(&[2, 1], &[g; 2]).unwrap());
            let backward = join(rank.b.backward(&b.saved, &y, &three), rank.a.backward(&a.saved, &x, &one));
            let (b, a) = block_on(backward);
            let sum = |report: &syncbn::BackwardReport| report.global[0].sum_dy;
            assert_eq!(sum(&a.expect("backward of a").report), 4.0, "round {round}");
            assert_eq!(sum(&b.expect("backward of b").report), 12.0, "round {round}");
        }
    });
}

#[test]
fn backward_and_forward_of_other_layers_meet_in_the_order_of_the_calls() {
    over_all(|group, device| {
        let mut rank = Rank::new(&group, &device);
        let x = rank.input(1, 0.0);
        let saved = block_on(rank.a.forward_train(&x)).expect("forward of a").saved;
        for round in 0..ROUNDS {
            let first = round as f32;
            let (y, z) = (rank.input(1, first), rank.input(2, -first));
            let calls = join3(rank.c.forward_train(&z), rank.a.backward(&saved, &x, &x), rank.b.forward_recompute(&y));
            let (c, a, b) = block_on(calls);
            assert_mean(&c.expect("forward of c").report, -first);
            // x is its own gradient: 0, 1, 2, 3.
            assert_eq!(a.expect("backward of a").report.global[0].sum_dy, 6.0, "round {round}");
            assert_mean(&b.expect("recomputed forward of b").report, first);
        }
    });
}

#[test]
fn a_joint_call_meets_those_of_the_others_beside_a_single_one() {
    over_all(|group, device| {
        let mut rank = Rank::new(&group, &device);
        for round in 0..ROUNDS {
            let first = round as f32;
            let (x, y, z) = (rank.input(1, first), rank.input(1, -first), rank.input(2, first));
            let mut outputs = [[2, 1], [2, 2]].map(|dims| device.zeros(&dims).unwrap());
            let [of_a, of_c] = &mut outputs;
            let requests = [LayerRequest::new(&mut rank.a, &x, of_a), LayerRequest::new(&mut rank.c, &z, of_c)];
            let calls = join(SyncBatchNorm::forward_train_many(requests), rank.b.forward_train(&y));
            let (many, b) = block_on(calls);
            let many = many.expect("the joint call");
            assert_mean(&many[0].1, first);
            assert_mean(&many[1].1, first);
            assert_mean(&b.expect("forward of b").report, -first);
        }
    });
}
