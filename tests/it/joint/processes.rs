//! Layers of several processes, here threads: one message for all of them, and the bits of many.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pollster::block_on;
use syncbn::collective::LocalGroup;
use syncbn::error::BatchError;
use syncbn::stats::{GlobalStatistics, RunningStats};
use syncbn::{
    Backward, BatchNormConfig, Device, Error, Forward, ProcessGroup, Saved, SyncBatchNorm, Tensor,
};
use syncbn::{config::Activation, joint};

use super::LONG;
use super::common::all_reduce_groups;
use super::common::transport::Tapped;
use super::common::*;

/// Channels of the layers.
const CHANNELS: [usize; 3] = [3, 1, 4];

/// Layers of a process, with a batch and an output for each of its ranks: `x[layer][rank]`.
pub struct Process {
    pub layers: Vec<SyncBatchNorm>,
    pub x: Vec<Vec<Tensor>>,
    pub y: Vec<Vec<Tensor>>,
}

impl Process {
    /// Of which the second and the third layer use the batch in evaluation, too.
    pub fn new(group: &ProcessGroup, devices: &[Device]) -> Self {
        let mut random = Random::new(5 + group.rank() as u64);
        let layer = |(index, channels): (usize, usize)| {
            let mut config = BatchNormConfig::torch(channels);
            if index > 0 {
                config =
                    config.with_activation(Activation::Relu).with_use_batch_statistics(Some(true));
            }
            let bn = SyncBatchNorm::new(config, devices.to_vec())
                .unwrap()
                .named(&format!("bn{channels}"));
            bn.in_group(group).unwrap()
        };
        let layers = CHANNELS.into_iter().enumerate().map(layer).collect();
        let mut batch = |channels: usize, device: &Device| {
            Batch::random(&[2 + group.rank(), channels, 3], &mut random).upload(device)
        };
        let x: Vec<Vec<Tensor>> = CHANNELS
            .map(|channels| devices.iter().map(|device| batch(channels, device)).collect())
            .into();
        let room = |x: &Tensor| x.device().zeros(x.dims()).unwrap();
        let y = x.iter().map(|x| x.iter().map(room).collect()).collect();
        Self { layers, x, y }
    }

    pub fn forward(&mut self) -> impl Iterator<Item = (&SyncBatchNorm, Forward<'_, ()>)> {
        let all = self.layers.iter().zip(&self.x).zip(&mut self.y);
        all.map(|((bn, x), y)| (bn, Forward::of(x).write_to(y)))
    }

    /// Of upstream gradients that are x.
    pub fn backward<'a>(
        &'a self,
        saved: &'a [Saved],
    ) -> impl Iterator<Item = (&'a SyncBatchNorm, &'a Saved, Backward<'a, Vec<Tensor>>)> {
        let all = self.layers.iter().zip(saved).zip(&self.x);
        all.map(|((bn, saved), x)| (bn, saved, Backward::of(x, x)))
    }

    pub fn running(&self) -> Vec<Option<RunningStats>> {
        self.layers.iter().map(SyncBatchNorm::running_stats).collect()
    }
}

/// What calls gave, and how many messages each took.
#[derive(Debug, Default, PartialEq)]
pub struct Outcome {
    outputs: Vec<Vec<Vec<u32>>>,
    statistics: Vec<Option<GlobalStatistics>>,
    /// Of gradient sums, as text.
    sums: Vec<String>,
    running: Vec<Vec<Option<RunningStats>>>,
}

/// Every pass and every exchange of a process, of all layers at once or of one after the other.
pub fn run(process: &mut Process, is_joint: bool, messages: &AtomicUsize) -> (Vec<usize>, Outcome) {
    let mut counts = Vec::new();
    let mut outcome = Outcome::default();
    let mut saved = Vec::new();
    for call in 0..4 {
        let calls = process.forward();
        let calls =
            calls.map(|(bn, request)| (bn, if call == 2 { request.untracked() } else { request }));
        // The first one with the checksum of the state, one untracked, and evaluation.
        let normalized: Vec<_> = match (is_joint, call < 3) {
            (true, true) => block_on(joint::forward_train(calls)).unwrap(),
            (true, false) => block_on(joint::forward_eval(calls)).unwrap(),
            (false, true) => {
                calls.map(|(bn, request)| block_on(bn.forward_train(request)).unwrap()).collect()
            }
            (false, false) => {
                calls.map(|(bn, request)| block_on(bn.forward_eval(request)).unwrap()).collect()
            }
        };
        counts.push(messages.swap(0, Ordering::Relaxed));
        saved = normalized.into_iter().map(|normalized| normalized.saved).collect();
        outcome.statistics.extend(saved.iter().map(|saved| saved.statistics().cloned()));
        outcome.outputs.extend(process.y.iter().map(|y| bits(&read(y))));
        outcome.running.push(process.running());
    }
    // Of evaluation, where the first layer used its running statistics.
    let calls = process.backward(&saved);
    let gradients: Vec<_> = match is_joint {
        true => block_on(joint::backward(calls)).unwrap(),
        false => calls
            .map(|(bn, saved, request)| block_on(bn.backward(saved, request)).unwrap())
            .collect(),
    };
    counts.push(messages.swap(0, Ordering::Relaxed));
    outcome.outputs.extend(gradients.iter().map(super::gradient_bits));
    outcome.sums.extend(
        gradients.into_iter().map(|gradients| format!("{:?}", gradients.report.unwrap().global)),
    );
    // The exchange alone, forward and backward.
    let local = process.layers.iter().zip(&process.x);
    let local = local.map(|(bn, x)| (bn, block_on(bn.local_statistics(x)).unwrap()));
    let globals: Vec<GlobalStatistics> = match is_joint {
        true => block_on(joint::synchronize(local)).unwrap(),
        false => local.map(|(bn, local)| block_on(bn.synchronize(local)).unwrap()).collect(),
    };
    counts.push(messages.swap(0, Ordering::Relaxed));
    outcome.statistics.extend(globals.into_iter().map(Some));
    outcome.running.push(process.running());
    let local = process.backward(&saved);
    let local = local.map(|(bn, saved, request)| {
        (bn, block_on(bn.local_gradient_sums(saved, request)).unwrap())
    });
    let globals: Vec<_> = match is_joint {
        true => block_on(joint::synchronize(local)).unwrap(),
        false => local.map(|(bn, local)| block_on(bn.synchronize(local)).unwrap()).collect(),
    };
    counts.push(messages.swap(0, Ordering::Relaxed));
    outcome.sums.extend(globals.iter().map(|global| format!("{global:?}")));
    (counts, outcome)
}

/// The outcomes of three processes whose messages are counted, over a transport that merges them on
/// their way or not, each with devices of its own.
fn outcomes(
    devices: &[Vec<Device>; 3],
    merges: bool,
    is_joint: bool,
) -> Vec<(Vec<usize>, Outcome)> {
    let ranks = LocalGroup::ranks(3).into_iter().zip(devices).collect();
    on_threads(ranks, |(rank, devices)| {
        let messages = Arc::new(AtomicUsize::new(0));
        let counted = messages.clone();
        let tap = move |message| {
            counted.fetch_add(1, Ordering::Relaxed);
            message
        };
        let group =
            ProcessGroup::new(Tapped::new(rank, tap).all_reducing(merges)).with_deadline(LONG);
        run(&mut Process::new(&group, devices), is_joint, &messages)
    })
}

#[test]
fn processes_exchange_one_message_for_all_layers_and_get_the_bits_of_many() {
    let of_kind =
        |kind: Kind| kind.devices(3).into_iter().map(|device| vec![device]).collect::<Vec<_>>();
    let same = Kind::ALL.map(|kind| <[Vec<Device>; 3]>::try_from(of_kind(kind)).unwrap());
    // Processes of one, two and three ranks.
    let uneven = [1, 2, 3].map(|ranks| Kind::Mixed.devices(ranks));
    for (devices, first) in same.into_iter().map(|devices| (devices, 1)).chain([(uneven, 3)]) {
        let of_transports = [false, true].map(|merges| {
            let [jointly, alone] =
                [true, false].map(|is_joint| outcomes(&devices, merges, is_joint));
            let mut found = Vec::new();
            for ((counts, jointly), (counts_alone, alone)) in jointly.into_iter().zip(alone) {
                // Which processes hold how many ranks is learnt first, where they differ.
                assert_eq!(counts, [first, 1, 1, 1, 1, 1, 1], "joint, all-reduced {merges}");
                assert_eq!(
                    counts_alone,
                    [3 * first, 3, 3, 2, 2, 3, 3],
                    "one by one, all-reduced {merges}"
                );
                assert_eq!(jointly, alone, "all-reduced {merges}");
                found.push(jointly);
            }
            found
        });
        let [gathered, merged] = of_transports;
        assert_eq!(gathered, merged);
        assert!(
            gathered
                .iter()
                .all(|of| of.statistics == gathered[0].statistics
                    && of.running == gathered[0].running)
        );
    }
}

#[test]
fn one_value_of_one_layer_is_found_by_all_processes_which_go_on() {
    for merges in [false, true] {
        let groups = if merges { all_reduce_groups(2, LONG) } else { process_groups(2, LONG) };
        let errors = on_threads(groups, |group| {
            let host = Device::host();
            let mut process = Process::new(&group, std::slice::from_ref(&host));
            let good = std::mem::replace(
                &mut process.x[1][0],
                host.zeros(&[1 - group.rank(), 1]).unwrap(),
            );
            let room = std::mem::replace(
                &mut process.y[1][0],
                host.zeros(&[1 - group.rank(), 1]).unwrap(),
            );
            let error = block_on(joint::forward_train(process.forward())).unwrap_err();
            assert!(
                process.running().iter().all(|of| of.as_ref().unwrap().num_batches_tracked == 0)
            );
            (process.x[1][0], process.y[1][0]) = (good, room);
            block_on(joint::forward_train(process.forward())).expect("the group goes on");
            error
        });
        for error in errors {
            assert_eq!(
                error,
                Error::Joint { index: 1, error: Box::new(BatchError::OneValue.into()) }
            );
        }
    }
}

#[test]
fn a_layer_whose_ranks_are_known_and_one_whose_are_not_share_an_exchange() {
    for groups in [process_groups(2, LONG), all_reduce_groups(2, LONG)] {
        let found = on_threads(groups, |group| {
            // Two devices in one process, one in the other.
            let devices = vec![Device::host(); 2 - group.rank()];
            let mut process = Process::new(&group, &devices);
            let first = process.forward().next().unwrap();
            block_on(joint::forward_train([first])).unwrap();
            let globals: Vec<GlobalStatistics> = block_on(joint::forward_train(process.forward()))
                .unwrap()
                .into_iter()
                .map(|forward| forward.saved.statistics().unwrap().clone())
                .collect();
            globals
        });
        assert_eq!(found[0], found[1]);
        assert!(found[0].iter().all(|global| global.count() == 3 * (2 + 2 + 3)));
    }
}
