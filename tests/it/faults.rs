//! Faults of one rank: every other gets an error in time that names it, nothing is half updated,
//! the group refuses further work, and the others go on without the culprit.
//!
//! `scenario` says what a run is and where its fault lies, `rank` is one rank of it, `saboteur` a
//! transport with a fault, `judge` what must come of it, `survivors` who must go on. Here every
//! kind of fault is planted at every kind of call; `random` draws thousands, and `mixed` trainings
//! of calls of every kind; `load` measures what the machine delays them by. `device` loses devices
//! and drops calls that wait for one, `broadcast` shares a state that cannot be loaded, `batch` has
//! too few values, `parameters` cannot be compared, `silent` asks for what could pass unnoticed.

mod batch;
mod broadcast;
mod device;
mod judge;
mod load;
mod mixed;
mod parameters;
mod random;
mod rank;
mod scenario;
mod silent;
mod survivors;

use crate::common;

use std::time::Duration;

use scenario::{Call, Executor, Fault, Scenario};

/// Longer than a loaded machine delays a thread that is ready to run.
const DEADLINE: Duration = Duration::from_millis(500);

/// Plants a fault at every call that it fits, with 2, 4 and 8 ranks, in threads and in tasks.
fn plant(fault: Fault) {
    let mut scenarios = Vec::new();
    for (number, call) in Call::all().filter(|call| fault.fits(*call)).enumerate() {
        for (world_size, executor) in
            [2, 4, 8].into_iter().flat_map(|n| [(n, Executor::Threads), (n, Executor::Tasks)])
        {
            let culprit = (number + world_size / 2) % world_size;
            let seed = scenarios.len() as u64;
            scenarios.push(Scenario {
                world_size,
                culprit,
                fault,
                second: None,
                call,
                deadline: DEADLINE,
                executor,
                seed,
            });
        }
    }
    // A few at a time: most of those with a late rank sleep.
    for some in scenarios.chunks(if fault.is_late() { 12 } else { 2 }) {
        common::on_threads(some.to_vec(), |scenario| {
            if let Err(what) = judge::judge(&scenario, &rank::run(scenario)) {
                panic!("{scenario:?}: {what}");
            }
        });
    }
}

#[test]
fn a_late_rank_is_named_when_the_deadline_has_passed() {
    plant(Fault::Late);
}

#[test]
fn a_rank_that_panics_between_calls_is_named_at_once() {
    plant(Fault::Panics);
}

#[test]
fn a_rank_that_panics_in_the_middle_of_a_call_is_named_at_once() {
    plant(Fault::PanicsInside);
}

#[test]
fn a_rank_whose_tensor_has_the_wrong_shape_fails_the_others_with_its_reason() {
    plant(Fault::BadShape);
}

#[test]
fn a_call_dropped_before_it_has_run_is_as_if_it_were_never_made() {
    plant(Fault::DropsUnpolled);
}

#[test]
fn a_call_dropped_in_the_exchange_is_named_at_once_as_dropped() {
    plant(Fault::DropsDuring);
}

#[test]
fn a_rank_that_drops_its_layers_and_its_group_is_named_at_once() {
    plant(Fault::Leaves);
}

#[test]
fn a_rank_that_tells_of_a_failure_of_its_own_is_named_at_once_with_its_reason() {
    plant(Fault::Notifies);
}

#[test]
fn ranks_that_call_their_layers_in_another_order_are_told() {
    plant(Fault::OtherLayer);
}

#[test]
fn forward_on_one_rank_and_backward_on_the_others_is_an_error_on_all() {
    plant(Fault::OtherPhase);
}

#[test]
fn a_rank_that_recomputes_while_the_others_train_is_named_on_all() {
    plant(Fault::Recomputes);
}

#[test]
fn backward_of_another_forward_call_on_one_rank_is_an_error_on_all() {
    plant(Fault::OtherForward);
}

#[test]
fn a_layer_with_another_number_of_channels_is_found_at_the_first_exchange() {
    plant(Fault::OtherChannels);
}

#[test]
fn a_layer_with_another_eps_is_found_at_the_first_exchange() {
    plant(Fault::OtherEps);
}

#[test]
fn a_rank_that_evaluates_while_the_others_train_is_late() {
    plant(Fault::Evaluates);
}

#[test]
fn a_rank_that_sends_no_frame_is_named() {
    plant(Fault::Garbage);
}

/// The judge must object to a run without its fault, and to one with another.
#[test]
fn the_judge_catches_a_fault_that_nobody_noticed_and_one_that_was_called_another() {
    let scenario = Scenario {
        world_size: 4,
        culprit: 2,
        fault: Fault::Leaves,
        second: None,
        call: Call::new(1),
        deadline: DEADLINE,
        executor: Executor::Threads,
        seed: 0,
    };
    let reports = rank::run(scenario);
    judge::judge(&scenario, &reports).expect("a fault that every rank noticed");
    let others = [
        Fault::Late,
        Fault::Panics,
        Fault::BadShape,
        Fault::Notifies,
        Fault::OtherLayer,
        Fault::Recomputes,
    ];
    for fault in others.into_iter().chain([Fault::Garbage]) {
        assert!(judge::judge(&Scenario { fault, ..scenario }, &reports).is_err(), "{fault:?}");
    }
    assert!(judge::judge(&Scenario { culprit: 1, ..scenario }, &reports).is_err());
    assert!(judge::judge(&Scenario { call: Call::new(2), ..scenario }, &reports).is_err());
    // Other data: the results are wrong then.
    assert!(judge::judge(&Scenario { seed: 1, ..scenario }, &reports).is_err());
    let unnoticed = rank::run(Scenario { culprit: 4, ..scenario });
    assert!(judge::judge(&Scenario { culprit: 4, ..scenario }, &unnoticed).is_err());
}
