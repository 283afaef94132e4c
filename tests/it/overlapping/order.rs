//! Overlapping calls meet in the order in which every rank made them, whichever device is done
//! first.

use std::time::Duration;

use futures::future::{join, join3};
use pollster::block_on;
use syncbn::stats::GlobalStatistics;
use syncbn::{
    Backward, BatchNormConfig, Device, Forward, Gradients, ProcessGroup, Saved, SyncBatchNorm,
    Tensor, joint,
};

use crate::common::all_reduce_groups;
use crate::common::{Kind, Placement, on_threads, process_groups};

/// Nobody waits in vain here.
pub const LONG: Duration = Duration::from_secs(20);
pub const ROUNDS: usize = 200;
const RANKS: usize = 2;

/// Three layers of a rank, of as many channels as the others have not, so that no message of one
/// passes for another's.
pub struct Rank {
    pub device: Device,
    rank: usize,
    pub a: SyncBatchNorm,
    pub b: SyncBatchNorm,
    pub c: SyncBatchNorm,
}

impl Rank {
    pub fn new(group: &ProcessGroup, device: &Device) -> Self {
        let layer = |name: &str, channels| {
            let layer =
                SyncBatchNorm::new(BatchNormConfig::torch(channels), [device.clone()]).unwrap();
            layer.named(name).in_group(group).unwrap()
        };
        let a = layer("a", 1);
        let b = layer("b", 1);
        let c = layer("c", 2);
        Self { device: device.clone(), rank: group.rank(), a, b, c }
    }

    /// Two values per channel, `first` and one more; on rank 1 they are 2 more than on rank 0. The
    /// mean over both ranks is `first` + 1.5.
    pub fn input(&self, channels: usize, first: f32) -> Tensor {
        let first = first + 2.0 * self.rank as f32;
        let values = [vec![first; channels], vec![first + 1.0; channels]].concat();
        self.device.upload(&[2, channels], &values).unwrap()
    }
}

/// Every transport and every kind of device, each rank with its device.
pub fn over_all(body: impl Fn(ProcessGroup, Device) + Sync) {
    for kind in Kind::ALL {
        for groups in [process_groups(RANKS, LONG), all_reduce_groups(RANKS, LONG)] {
            on_threads(groups.into_iter().zip(kind.devices(RANKS)).collect(), |(group, device)| {
                body(group, device)
            });
        }
    }
}

/// Whether a layer's statistics are those of `input(_, first)` over both ranks: small numbers,
/// exact in f32.
pub fn assert_mean(global: &GlobalStatistics, first: f32) {
    let means: Vec<f64> = global.channels().iter().map(|channel| channel.mean).collect();
    assert!(
        means.iter().all(|&mean| mean == f64::from(first) + 1.5),
        "{means:?}, expected {first} + 1.5"
    );
}

/// Statistics of the batch of all ranks.
pub fn of(saved: &Saved) -> &GlobalStatistics {
    saved.statistics().expect("statistics of all ranks")
}

/// Σ dy of the first channel over all ranks.
pub fn sum_dy(gradients: &Gradients) -> f64 {
    let report = gradients.report.as_ref().expect("a report");
    report.global.as_ref().expect("sums of all ranks").channels()[0].sum_dy
}

#[test]
fn forward_and_backward_of_two_layers_meet_in_the_order_of_the_calls() {
    over_all(|group, device| {
        let rank = Rank::new(&group, &device);
        for round in 0..ROUNDS {
            let first = round as f32;
            let x = rank.input(1, first);
            let y = rank.input(1, -first);
            let (a, b) = block_on(join(rank.a.forward_train(&x), rank.b.forward_train(&y)));
            let a = a.expect("forward of a");
            let b = b.expect("forward of b");
            assert_mean(of(&a.saved), first);
            assert_mean(of(&b.saved), -first);
            // Gradient 1 for a, 3 for b: sums over four values.
            let [one, three] = [1.0, 3.0].map(|g| device.upload(&[2, 1], &[g; 2]).unwrap());
            let backward = join(
                rank.b.backward(&b.saved, Backward::of(&y, &three)),
                rank.a.backward(&a.saved, Backward::of(&x, &one)),
            );
            let (b, a) = block_on(backward);
            assert_eq!(sum_dy(&a.expect("backward of a")), 4.0, "round {round}");
            assert_eq!(sum_dy(&b.expect("backward of b")), 12.0, "round {round}");
        }
    });
}

#[test]
fn backward_and_forward_of_other_layers_meet_in_the_order_of_the_calls() {
    over_all(|group, device| {
        let rank = Rank::new(&group, &device);
        let x = rank.input(1, 0.0);
        let saved = block_on(rank.a.forward_train(&x)).expect("forward of a").saved;
        for round in 0..ROUNDS {
            let first = round as f32;
            let y = rank.input(1, first);
            let z = rank.input(2, -first);
            let calls = join3(
                rank.c.forward_train(&z),
                rank.a.backward(&saved, Backward::of(&x, &x)),
                rank.b.forward_train(Forward::of(&y).untracked()),
            );
            let (c, a, b) = block_on(calls);
            assert_mean(of(&c.expect("forward of c").saved), -first);
            // x is its own gradient: 0, 1, 2, 3.
            assert_eq!(sum_dy(&a.expect("backward of a")), 6.0, "round {round}");
            assert_mean(of(&b.expect("recomputed forward of b").saved), first);
        }
    });
}

#[test]
fn a_joint_call_meets_those_of_the_others_beside_a_single_one() {
    over_all(|group, device| {
        let rank = Rank::new(&group, &device);
        for round in 0..ROUNDS {
            let first = round as f32;
            let x = rank.input(1, first);
            let y = rank.input(1, -first);
            let z = rank.input(2, first);
            let mut outputs = [[2, 1], [2, 2]].map(|dims| device.zeros(&dims).unwrap());
            let [of_a, of_c] = &mut outputs;
            let requests = [
                (&rank.a, Forward::of(&x).write_to(of_a)),
                (&rank.c, Forward::of(&z).write_to(of_c)),
            ];
            let calls = join(joint::forward_train(requests), rank.b.forward_train(&y));
            let (many, b) = block_on(calls);
            let many = many.expect("the joint call");
            assert_mean(of(&many[0].saved), first);
            assert_mean(of(&many[1].saved), first);
            assert_mean(of(&b.expect("forward of b").saved), -first);
        }
    });
}
