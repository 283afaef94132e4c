//! When a rank fails, the others get an error, not a hang: in forward, in backward, and by either
//! way of calling.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Tensor, TensorData, bf16};
use syncbn::error::ExchangeError;
use syncbn_burn::{Error, Rank, try_backward};

use crate::common::{CHANNELS, DEADLINE, Norm, devices, on_threads, ours, ranks};

fn input(rank: &Rank, batch: usize) -> Tensor<3> {
    Tensor::random(
        [batch, CHANNELS, 4],
        burn::tensor::Distribution::Default,
        &rank.device().autodiff(),
    )
    .require_grad()
}

fn exchange(error: &Error) -> &ExchangeError {
    match error {
        Error::Layer(syncbn::Error::Exchange(error)) => error,
        other => panic!("not of the exchange: {other}"),
    }
}

/// What the rank that goes on gets, and that it gets it long before its deadline.
fn survivor(fault: impl Fn(Rank) + Sync, survive: impl Fn(&Rank) -> Error + Sync) -> Error {
    let devices = devices();
    let errors = on_threads(ranks(&devices[..], DEADLINE), |index, rank| {
        if index == 1 {
            fault(rank);
            return None;
        }
        let started = Instant::now();
        let error = survive(&rank);
        assert!(started.elapsed() < DEADLINE / 2, "it waited {:?}", started.elapsed());
        Some(error)
    });
    errors.into_iter().flatten().next().expect("the survivor's error")
}

#[test]
fn a_rank_that_leaves_before_forward_fails_the_others_at_once() {
    let error = survivor(drop, |rank| {
        let norm = ours(&rank.device());
        let error = norm.try_forward(input(rank, 2)).unwrap_err();
        assert_eq!(norm.running(), [vec![0.0; CHANNELS], vec![1.0; CHANNELS]]);
        // The group refuses further work, with the first failure as the cause.
        let again = norm.try_forward(input(rank, 2)).unwrap_err();
        assert!(matches!(exchange(&again), ExchangeError::Poisoned { .. }), "{again}");
        error
    });
    assert!(matches!(exchange(&error), ExchangeError::Left { rank: 1, .. }), "{error}");
}

#[test]
fn a_rank_with_a_wrong_input_tells_the_others_what_it_was() {
    let wrong = |rank: Rank| {
        let x = Tensor::<3>::zeros([2, CHANNELS + 1, 4], &rank.device().autodiff());
        let error = ours(&rank.device()).try_forward(x).unwrap_err();
        assert!(matches!(error, Error::Layer(syncbn::Error::Argument(_))), "{error}");
    };
    let error =
        survivor(wrong, |rank| ours(&rank.device()).try_forward(input(rank, 2)).unwrap_err());
    assert!(matches!(exchange(&error), ExchangeError::Aborted { rank: 1, .. }), "{error}");
    assert!(error.to_string().contains("channels"), "{error}");
}

#[test]
fn a_type_without_kernels_is_an_error_and_the_others_are_told() {
    // Burn's WGSL has no bf16: anything queued for such a tensor would fail later, on another
    // thread.
    for argument in ["input", "gamma"] {
        let wrong = |rank: Rank| {
            let device = rank.device().autodiff();
            assert!(!device.supports_dtype(DType::BF16));
            let narrow = |dims: [usize; 3]| {
                let zeros = TensorData::new(vec![bf16::ZERO; dims.iter().product()], dims);
                Tensor::<3>::from_data(zeros, (&device, DType::BF16))
            };
            let mut norm = ours(&rank.device());
            let x = match argument {
                "input" => narrow([2, CHANNELS, 4]),
                _ => {
                    norm.gamma = Param::from_tensor(narrow([1, 1, CHANNELS]).reshape([CHANNELS]));
                    input(&rank, 2)
                }
            };
            let error = norm.try_forward(x).unwrap_err();
            assert_eq!(error, Error::DType { argument, found: "BF16".to_owned() });
            assert_eq!(norm.running(), [vec![0.0; CHANNELS], vec![1.0; CHANNELS]]);
        };
        let error =
            survivor(wrong, |rank| ours(&rank.device()).try_forward(input(rank, 2)).unwrap_err());
        assert!(matches!(exchange(&error), ExchangeError::Aborted { rank: 1, .. }), "{error}");
        assert!(error.to_string().contains(&format!("{argument} is stored as BF16")), "{error}");
    }
}

#[test]
fn an_input_on_a_device_of_no_rank_is_told_to_the_ranks_that_wait() {
    // A third device, which the module's rank does not have.
    let setup = syncbn_burn::setup(&devices()[0].1.adapter).unwrap();
    let elsewhere = Device::wgpu_options().setup(setup).init().unwrap().autodiff();
    let wrong = |rank: Rank| {
        let x = Tensor::<3>::zeros([2, CHANNELS, 4], &elsewhere);
        let error = ours(&rank.device()).try_forward(x).unwrap_err();
        assert!(matches!(error, Error::NoRank { .. }), "{error}");
    };
    let error =
        survivor(wrong, |rank| ours(&rank.device()).try_forward(input(rank, 2)).unwrap_err());
    assert!(matches!(exchange(&error), ExchangeError::Aborted { rank: 1, .. }), "{error}");
    assert!(error.to_string().contains("belongs to no rank"), "{error}");
}

#[test]
fn a_rank_that_leaves_before_backward_fails_the_others_backward() {
    let leaves = |rank: Rank| drop(ours(&rank.device()).forward(input(&rank, 2)));
    let error = survivor(leaves, |rank| {
        let norm = ours(&rank.device());
        let loss = norm.forward(input(rank, 2)).sum();
        try_backward(&loss).err().expect("the other rank is gone")
    });
    assert!(matches!(exchange(&error), ExchangeError::Left { rank: 1, .. }), "{error}");
}

#[test]
fn forward_and_backward_panic_with_the_message_of_the_error() {
    let message =
        |payload: Box<dyn std::any::Any + Send>| *payload.downcast::<String>().expect("a message");
    let leaves = |rank: Rank| drop(ours(&rank.device()).forward(input(&rank, 2)));
    let messages = std::sync::Mutex::new(Vec::new());
    let error = survivor(leaves, |rank| {
        let norm = ours(&rank.device());
        let loss = norm.forward(input(rank, 2)).sum();
        let backward = catch_unwind(AssertUnwindSafe(|| loss.backward())).err().expect("a panic");
        let forward =
            catch_unwind(AssertUnwindSafe(|| norm.forward(input(rank, 2)))).expect_err("a panic");
        messages.lock().unwrap().extend([message(backward), message(forward)]);
        norm.try_forward(input(rank, 2)).unwrap_err()
    });
    let messages = messages.into_inner().unwrap();
    assert!(messages[0].contains("rank 1") && messages[0].contains("backward"), "{}", messages[0]);
    assert!(messages[1].contains("rank 1"), "{}", messages[1]);
    assert!(matches!(exchange(&error), ExchangeError::Poisoned { .. }), "{error}");
    // Burn's graphs are whole after a backward pass that failed: devices of these tests go on.
}

#[test]
fn a_rank_that_is_late_is_named_when_the_deadline_passes() {
    let devices = devices();
    let deadline = Duration::from_millis(300);
    let errors = on_threads(ranks(&devices[..], deadline), |index, rank| {
        let norm = ours(&rank.device());
        if index == 1 {
            std::thread::sleep(4 * deadline);
        }
        norm.try_forward(input(&rank, 2)).unwrap_err()
    });
    for error in &errors {
        assert!(
            matches!(exchange(error), ExchangeError::Late { ranks, .. } if ranks == &[1]),
            "{error}"
        );
    }
}

#[test]
fn replicas_that_begin_with_other_parameters_are_found_out() {
    let devices = devices();
    let errors = on_threads(ranks(&devices[..], DEADLINE), |index, rank| {
        let norm = ours(&rank.device()).set(&[1.0 + index as f32; CHANNELS], &[0.0; CHANNELS]);
        norm.try_forward(input(&rank, 2)).unwrap_err()
    });
    for error in &errors {
        assert!(matches!(exchange(error), ExchangeError::State { .. }), "{error}");
    }
}

#[test]
fn one_value_in_the_whole_group_is_an_error_on_every_rank_and_the_group_goes_on() {
    let devices = devices();
    let rank = ranks(&devices[..1], DEADLINE).remove(0);
    let norm = ours(&rank.device());
    let one = Tensor::<2>::zeros([1, CHANNELS], &rank.device().autodiff());
    let error = norm.try_forward(one).unwrap_err();
    assert!(matches!(error, Error::Layer(syncbn::Error::Batch(_))), "{error}");
    norm.try_forward(input(&rank, 2)).unwrap();
}

#[test]
fn backward_after_the_module_is_gone_is_an_error() {
    let devices = devices();
    let rank = ranks(&devices[..1], DEADLINE).remove(0);
    let loss = ours(&rank.device()).forward(input(&rank, 2)).sum();
    assert_eq!(try_backward(&loss).err(), Some(Error::Gone));
}

#[test]
fn a_device_is_one_rank_at_a_time() {
    let devices = devices();
    let (device, setup) = &devices[0];
    let rank = ranks(&devices[..1], DEADLINE).remove(0);
    let again = Rank::of_device(device, setup, syncbn::ProcessGroup::single()).unwrap_err();
    assert!(again.to_string().contains("a rank already"), "{again}");
    drop(rank);
    Rank::of_device(device, setup, syncbn::ProcessGroup::single()).unwrap();
}

#[test]
fn replicas_that_share_parameter_nodes_end_with_an_error_and_not_in_a_deadlock() {
    // Burn locks a graph during backward: one rank waits for the other, which waits for the lock,
    // until the deadline.
    let devices = devices();
    let made = ours(&devices[0].0);
    let errors = on_threads(ranks(&devices[..], Duration::from_secs(2)), |_, rank| {
        let norm = made.clone().to_device(&rank.device().autodiff());
        let loss = norm.try_forward(input(&rank, 2)).unwrap().powi_scalar(2).sum();
        try_backward(&loss).err()
    });
    println!("{errors:?}");
    assert!(
        errors
            .iter()
            .flatten()
            .all(|error| matches!(error, Error::Layer(syncbn::Error::Exchange(_)))),
        "{errors:?}"
    );
    assert!(errors.iter().any(Option::is_some));
}

#[test]
fn backward_after_the_module_is_gone_tells_the_other_ranks() {
    let fault = |rank: Rank| {
        let norm = ours(&rank.device());
        let loss = norm.try_forward(input(&rank, 2)).unwrap().sum();
        drop(norm);
        assert_eq!(try_backward(&loss).err(), Some(Error::Gone));
        // The rank is still there.
        std::thread::sleep(DEADLINE / 4);
        drop(rank);
    };
    let error = survivor(fault, |rank| {
        let norm = ours(&rank.device());
        let loss = norm.try_forward(input(rank, 2)).unwrap().sum();
        try_backward(&loss).err().expect("an error")
    });
    assert!(matches!(exchange(&error), ExchangeError::Aborted { rank: 1, .. }), "{error}");
}

#[test]
fn a_fork_does_not_hold_another_rank_s_rank() {
    let norm = {
        let devices = devices();
        ours(&devices[0].0)
    };
    let error = survivor(
        |rank| {
            let fork = norm.clone().fork(&rank.device().autodiff());
            fork.try_forward(input(&rank, 2)).unwrap();
            drop(fork);
            drop(rank);
        },
        |rank| {
            let fork = norm.clone().fork(&rank.device().autodiff());
            fork.try_forward(input(rank, 2)).unwrap();
            fork.try_forward(input(rank, 2)).unwrap_err()
        },
    );
    assert!(matches!(exchange(&error), ExchangeError::Left { rank: 1, .. }), "{error}");
}
