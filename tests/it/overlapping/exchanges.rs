//! Exchanges that a rank takes alone, and joint calls of every pass: several under way at once meet
//! in the order in which they begin.

use futures::future::{join, join3};
use pollster::block_on;
use syncbn::error::ExchangeError;
use syncbn::stats::{GlobalGradientSums, Local, Moments};
use syncbn::{Backward, Device, Error, joint};

use crate::common::all_reduce_groups;
use crate::common::{on_threads, process_groups};
use crate::overlapping::order::{LONG, ROUNDS, Rank, assert_mean, of, over_all, sum_dy};

/// Σ dy of the first channel.
fn sum(global: &GlobalGradientSums) -> f64 {
    global.channels()[0].sum_dy
}

#[test]
fn exchanges_of_two_layers_meet_in_the_order_in_which_they_begin() {
    over_all(|group, device| {
        let rank = Rank::new(&group, &device);
        let [one, three] = [1.0, 3.0].map(|g| device.upload(&[2, 1], &[g; 2]).unwrap());
        for round in 0..ROUNDS {
            let first = round as f32;
            let x = rank.input(1, first);
            let y = rank.input(1, -first);
            let z = rank.input(2, first);
            let (a, b) = block_on(join(rank.a.local_statistics(&x), rank.b.local_statistics(&y)));
            let a = a.expect("statistics of a");
            let b = b.expect("statistics of b");
            let calls =
                join3(rank.a.synchronize(a), rank.c.forward_train(&z), rank.b.synchronize(b));
            let (a, c, b) = block_on(calls);
            let a = a.expect("exchange of a");
            let b = b.expect("exchange of b");
            assert_mean(&a, first);
            assert_mean(&b, -first);
            assert_mean(of(&c.expect("forward of c").saved), first);

            let (a, b) = block_on(join(rank.a.normalize(&x, &a), rank.b.normalize(&y, &b)));
            let a = a.expect("y of a").saved;
            let b = b.expect("y of b").saved;
            let of_b = rank.b.local_gradient_sums(&b, Backward::of(&y, &three));
            let of_a = rank.a.local_gradient_sums(&a, Backward::of(&x, &one));
            let (of_b, of_a) = block_on(join(of_b, of_a));
            // Begun in one order, awaited in the other.
            let of_b = rank.b.synchronize(of_b.expect("sums of b")).start();
            let of_a = rank.a.synchronize(of_a.expect("sums of a")).start();
            let (of_a, of_b) = block_on(join(of_a, of_b));
            assert_eq!(sum(&of_a.expect("exchange of a")), 4.0, "round {round}");
            assert_eq!(sum(&of_b.expect("exchange of b")), 12.0, "round {round}");
        }
    });
}

#[test]
fn joint_calls_of_every_pass_meet_those_of_the_others_beside_single_ones() {
    over_all(|group, device| {
        let rank = Rank::new(&group, &device);
        let [one, three] = [1.0, 3.0].map(|g| device.upload(&[2, 1], &[g; 2]).unwrap());
        let of_c = device.upload(&[2, 2], &[2.0f32; 4]).unwrap();
        for round in 0..ROUNDS {
            let first = round as f32;
            let x = rank.input(1, first);
            let y = rank.input(1, -first);
            let z = rank.input(2, first);
            let many = joint::forward_train([(&rank.c, &z), (&rank.a, &x)]);
            let (b, many) = block_on(join(rank.b.forward_train(&y), many));
            let b = b.expect("forward of b").saved;
            let many = many.expect("the joint call");
            assert_mean(of(&b), -first);
            many.iter().for_each(|forward| assert_mean(of(&forward.saved), first));

            let calls = [
                (&rank.a, &many[1].saved, Backward::of(&x, &one)),
                (&rank.c, &many[0].saved, Backward::of(&z, &of_c)),
            ];
            let backward =
                join(joint::backward(calls), rank.b.backward(&b, Backward::of(&y, &three)));
            let (many, b) = block_on(backward);
            let many = many.expect("the joint call");
            assert_eq!([&many[0], &many[1]].map(sum_dy), [4.0, 8.0], "round {round}");
            assert_eq!(sum_dy(&b.expect("backward of b")), 12.0, "round {round}");

            let local = |layer: &syncbn::SyncBatchNorm, x| {
                block_on(layer.local_statistics(x)).expect("statistics")
            };
            let alone = rank.b.synchronize(local(&rank.b, &y)).untracked();
            let of_many =
                joint::synchronize([(&rank.a, local(&rank.a, &x)), (&rank.c, local(&rank.c, &z))]);
            let (many, b) = block_on(join(of_many, alone));
            many.expect("the joint exchange").iter().for_each(|global| assert_mean(global, first));
            assert_mean(&b.expect("exchange of b"), -first);
        }
    });
}

#[test]
fn exchanges_that_begin_in_another_order_on_one_rank_are_named_on_both() {
    for groups in [process_groups(2, LONG), all_reduce_groups(2, LONG)] {
        on_threads(groups, |group| {
            let rank = Rank::new(&group, &Device::host());
            let layers = if group.rank() == 0 { [&rank.a, &rank.b] } else { [&rank.b, &rank.a] };
            let before = layers.map(|layer| layer.running_stats());
            let local = |mean| Local::of_rank([Moments { count: 2, mean, m2: 1.0 }]);
            let exchanges =
                layers.map(|layer| layer.synchronize(local(group.rank() as f64)).start());
            let [first, second] =
                exchanges.map(|exchange| block_on(exchange).expect_err("another order"));
            let Error::Exchange(ExchangeError::Mismatch { what: "layer", .. }) = first else {
                panic!("{first}")
            };
            assert!(matches!(second, Error::Exchange(ExchangeError::Poisoned { .. })), "{second}");
            assert_eq!(layers.map(|layer| layer.running_stats()), before);
        });
    }
}
