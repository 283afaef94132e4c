//! Double backward in a process group: over both kinds of transport the bits of one caller, and
//! errors of ranks that are somewhere else.

use std::time::Duration;

use pollster::block_on;
use syncbn::config::AffineGradient;
use syncbn::error::ExchangeError;
use syncbn::low_level::Epilogue;
use syncbn::{
    Backward, BatchNormConfig, Device, DoubleBackward, Error, Layout, ProcessGroup, SyncBatchNorm,
};

use super::common::epilogue::problem::{Problem, Uses};
use super::common::*;
use super::double::{Case, Found};
use super::plain;

const LONG: Duration = Duration::from_secs(20);
const LAYOUT: Layout = Layout::ChannelsFirst;

/// The part of a case that some ranks hold.
fn part(case: &Case, ranks: std::ops::Range<usize>) -> Case {
    let some = |batches: &Vec<Batch>| batches[ranks.clone()].to_vec();
    let vectors = |of: &Option<Vec<Vec<f32>>>| of.as_ref().map(|of| of[ranks.clone()].to_vec());
    let problem = Problem {
        x: some(&case.problem.x),
        g: some(&case.problem.g),
        residuals: case.problem.residuals.as_ref().map(some),
        types: case.problem.types[ranks.clone()].to_vec(),
        ..case.problem.clone()
    };
    Case { problem, v: case.v.as_ref().map(some), u: vectors(&case.u), q: vectors(&case.q) }
}

fn run(case: &Case, kind: Kind, group: &ProcessGroup, ranks: std::ops::Range<usize>) -> Found {
    let devices = kind.devices(case.problem.x.len())[ranks.clone()].to_vec();
    let own = part(case, ranks);
    let layer = own.problem.layer(devices).in_group(group).unwrap();
    own.found(&own.call(&layer, LAYOUT, Uses::Group).unwrap())
}

#[test]
fn processes_find_the_bits_of_one_caller() {
    for (turn, affine) in
        [(0, AffineGradient::Local), (3, AffineGradient::GroupSum), (4, AffineGradient::GroupMean)]
    {
        let mut case = plain(turn, Epilogue::ADD_RELU, 60 + turn);
        case.problem.config = case.problem.config.with_affine_gradient(affine);
        for kind in Kind::tested() {
            let whole = case.run(kind, LAYOUT, Uses::Group);
            for groups in [process_groups(2, LONG), all_reduce_groups(2, LONG)] {
                // Two ranks in one process, one in the other.
                let found = on_threads(groups, |group| {
                    let ranks = if group.rank() == 0 { 0..2 } else { 2..3 };
                    run(&case, kind, &group, ranks)
                });
                let all = Found {
                    inputs: found.iter().flat_map(|of| of.inputs.clone()).collect(),
                    grad_outputs: found.iter().flat_map(|of| of.grad_outputs.clone()).collect(),
                    weights: Some(
                        found.iter().flat_map(|of| of.weights.clone().unwrap()).collect(),
                    ),
                };
                assert_eq!(all, whole, "{kind:?}, {affine:?}");
            }
        }
    }
}

#[test]
fn a_rank_in_backward_and_one_in_double_backward_both_learn_it() {
    for groups in [process_groups(2, LONG), all_reduce_groups(2, LONG)] {
        let errors = on_threads(groups, |group| {
            let device = Device::host();
            let layer = SyncBatchNorm::new(BatchNormConfig::torch(2), [device.clone()]).unwrap();
            let layer = layer.in_group(&group).unwrap();
            let x = Batch::random(&[3, 2], &mut Random::new(group.rank() as u64)).upload(&device);
            let saved = block_on(layer.forward_train(&x)).unwrap().saved;
            if group.rank() == 0 {
                block_on(layer.backward(&saved, Backward::of(&x, &x))).map(drop)
            } else {
                block_on(layer.double_backward(&saved, DoubleBackward::of(&x, &x))).map(drop)
            }
        });
        for error in errors {
            let error = error.unwrap_err();
            let Error::Exchange(ExchangeError::Mismatch { found, expected, .. }) = &error else {
                panic!("{error}");
            };
            assert_eq!([&**found, &**expected], ["double backward", "backward"]);
        }
    }
}

#[test]
fn an_error_of_one_rank_fails_the_others_before_their_deadline() {
    let errors = on_threads(process_groups(2, LONG), |group| {
        let device = Device::host();
        let layer = SyncBatchNorm::new(BatchNormConfig::torch(2), [device.clone()]).unwrap();
        let layer = layer.in_group(&group).unwrap();
        let x = Batch::random(&[3, 2], &mut Random::new(group.rank() as u64)).upload(&device);
        let saved = block_on(layer.forward_train(&x)).unwrap().saved;
        let wrong = device.zeros(&[5]).unwrap();
        let mut request = DoubleBackward::of(&x, &x);
        if group.rank() == 1 {
            request = request.weight_cotangent(&wrong);
        }
        block_on(layer.double_backward(&saved, request)).map(drop).unwrap_err()
    });
    assert!(matches!(&errors[0], Error::Exchange(ExchangeError::Aborted { rank: 1, .. })));
    assert!(matches!(&errors[1], Error::Argument(_)), "{}", errors[1]);
}
