//! Ranks whose requests are not those of the others: all learn of it, by the number of the request
//! where it is of one.

use pollster::block_on;
use syncbn::error::ExchangeError;
use syncbn::{Device, Error, Forward, Saved, joint};

use super::LONG;
use super::common::all_reduce_groups;
use super::common::*;
use super::processes::Process;

/// Some of the things of a list, in the order of `order`.
fn in_order<T>(all: impl Iterator<Item = T>, order: &[usize]) -> Vec<T> {
    let mut all: Vec<Option<T>> = all.map(Some).collect();
    order.iter().map(|&index| all[index].take().expect("each layer once")).collect()
}

fn forward(process: &mut Process, order: &[usize]) -> Result<(), Error> {
    block_on(joint::forward_train(in_order(process.forward(), order))).map(drop)
}

/// The errors of two ranks whose second does what `spoil` does and the first what `good` does,
/// after a good joint call; the same with gathering and with all-reduce.
fn errors_of(
    good: impl Fn(&mut Process, &[Saved]) -> Result<(), Error> + Sync,
    spoil: impl Fn(&mut Process, &[Saved]) -> Result<(), Error> + Sync,
) -> Vec<Error> {
    let [gathered, merged] = [false, true].map(|merges| {
        let groups = if merges { all_reduce_groups(2, LONG) } else { process_groups(2, LONG) };
        on_threads(groups, |group| {
            let mut process = Process::new(&group, &[Device::host()]);
            let saved = block_on(joint::forward_train(process.forward())).expect("a good call");
            let saved: Vec<Saved> = saved.into_iter().map(|forward| forward.saved).collect();
            let running = process.running();
            let result = if group.rank() == 1 {
                spoil(&mut process, &saved)
            } else {
                good(&mut process, &saved)
            };
            assert_eq!(process.running(), running);
            result.expect_err("a call that fails")
        })
    });
    assert_eq!(gathered, merged);
    gathered
}

/// Of forward calls, the first rank's of the first two layers.
fn errors(spoil: impl Fn(&mut Process) -> Result<(), Error> + Sync) -> Vec<Error> {
    errors_of(|process, _| forward(process, &[0, 1]), |process, _| spoil(process))
}

/// The request, the rank and what differs.
fn mismatch(error: &Error) -> (Option<usize>, usize, &'static str) {
    let (index, error) = match error {
        Error::Joint { index, error: source } => (Some(*index), &**source),
        error => (None, error),
    };
    match error {
        Error::Exchange(ExchangeError::Mismatch { rank, what, .. }) => (index, *rank, what),
        other => panic!("{other}"),
    }
}

#[test]
fn ranks_with_other_requests_all_learn_of_it() {
    for error in errors(|process| forward(process, &[1, 0])) {
        assert_eq!(mismatch(&error), (Some(0), 1, "layer"), "{error}");
    }
    for error in errors(|process| forward(process, &[0, 2])) {
        assert_eq!(mismatch(&error), (Some(1), 1, "layer"), "{error}");
    }
    let by_itself = |process: &mut Process| {
        let request = Forward::of(&process.x[0]).write_to(&mut process.y[0]);
        block_on(process.layers[0].forward_train(request)).map(drop)
    };
    for error in errors(by_itself).into_iter().chain(errors(|process| forward(process, &[0, 1, 2])))
    {
        assert_eq!(mismatch(&error), (None, 1, "number of exchanges in a message"), "{error}");
    }
    for error in errors(|process| forward(process, &[2])) {
        assert_eq!(mismatch(&error), (None, 1, "layer"), "{error}");
    }
    // One that says that running statistics stay.
    let untracked = |process: &mut Process| {
        let calls = process.forward().take(2).enumerate();
        let calls = calls.map(|(index, (bn, request))| {
            (bn, if index == 1 { request.untracked() } else { request })
        });
        block_on(joint::forward_train(calls)).map(drop)
    };
    for error in errors(untracked) {
        assert_eq!(mismatch(&error), (Some(1), 1, "call"), "{error}");
    }
    // An output of the second layer that does not fit.
    let misfit = |process: &mut Process| {
        process.y[1][0] = Device::host().zeros(&[7]).unwrap();
        forward(process, &[0, 1])
    };
    let [first, second] = &errors(misfit)[..] else { panic!("two ranks") };
    assert!(
        matches!(
            second,
            Error::Joint { index: 1, error: source } if matches!(**source, Error::Argument(_))
        ),
        "{second}"
    );
    assert!(matches!(first, Error::Exchange(ExchangeError::Aborted { rank: 1, .. })), "{first}");
}

#[test]
fn ranks_that_differentiate_other_calls_all_learn_of_it() {
    let backward = |process: &Process, saved: &[Saved], order: &[usize]| {
        block_on(joint::backward(in_order(process.backward(saved), order))).map(drop)
    };
    let good = |process: &mut Process, saved: &[Saved]| backward(process, saved, &[0, 1]);
    for error in errors_of(good, |process, saved| backward(process, saved, &[0, 2])) {
        assert_eq!(mismatch(&error), (Some(1), 1, "layer"), "{error}");
    }
    for error in errors_of(good, |process, saved| backward(process, saved, &[0])) {
        assert_eq!(mismatch(&error), (None, 1, "number of exchanges in a message"), "{error}");
    }
    // A tensor that forward has not seen, on one rank.
    let unseen = |process: &mut Process, saved: &[Saved]| {
        process.x[1][0] = Device::host().zeros(process.x[1][0].dims()).unwrap();
        backward(process, saved, &[0, 1])
    };
    let [first, second] = &errors_of(good, unseen)[..] else { panic!("two ranks") };
    assert!(
        matches!(
            second,
            Error::Joint { index: 1, error: source } if matches!(**source, Error::Argument(_))
        ),
        "{second}"
    );
    assert!(matches!(first, Error::Exchange(ExchangeError::Aborted { rank: 1, .. })), "{first}");
}

#[test]
fn ranks_that_synchronize_other_layers_all_learn_of_it() {
    let synchronize = |process: &Process, order: &[usize]| {
        let local = process.layers.iter().zip(&process.x);
        let local = local.map(|(bn, x)| (bn, block_on(bn.local_statistics(x)).unwrap()));
        block_on(joint::synchronize(in_order(local, order))).map(drop)
    };
    let good = |process: &mut Process, _: &[Saved]| synchronize(process, &[0, 1]);
    for error in errors_of(good, |process, _| synchronize(process, &[0, 2])) {
        assert_eq!(mismatch(&error), (Some(1), 1, "layer"), "{error}");
    }
    // Of statistics with gradient sums.
    let sums = |process: &mut Process, saved: &[Saved]| {
        let local = process.backward(saved).take(2);
        let local = local.map(|(bn, saved, request)| {
            (bn, block_on(bn.local_gradient_sums(saved, request)).unwrap())
        });
        block_on(joint::synchronize(local)).map(drop)
    };
    for error in errors_of(good, sums) {
        assert_eq!(mismatch(&error), (Some(0), 1, "call"), "{error}");
    }
}
