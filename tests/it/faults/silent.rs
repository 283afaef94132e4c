//! Disagreements that would give wrong numbers without an error, were they not looked for.

use std::time::Duration;

use syncbn::{
    Backward, BatchNormConfig, Device, Error, Forward, Normalized, ProcessGroup, SyncBatchNorm,
    Tensor, error::ExchangeError,
};

use crate::common::{on_threads, process_groups};

/// Long, because nobody may have to wait for it.
const DEADLINE: Duration = Duration::from_secs(20);

/// A layer whose forward communicates in every mode, with an input.
fn layer(group: &ProcessGroup) -> (SyncBatchNorm, Tensor) {
    let config = BatchNormConfig::torch(1).with_use_batch_statistics(Some(true));
    let x = Device::host().upload(&[2, 1], &[0.0, 1.0]).unwrap();
    (SyncBatchNorm::new(config, [Device::host()]).unwrap().in_group(group).unwrap(), x)
}

/// Every rank must have found that `what` of rank 1 is `found`, the same error but for the place
/// where the rank was.
fn assert_mismatch(errors: Vec<Error>, (what, found, expected): (&str, &str, &str)) {
    for error in errors {
        let Error::Exchange(ExchangeError::Mismatch {
            rank,
            what: named,
            found: of_rank,
            expected: of_most,
            ..
        }) = &error
        else {
            panic!("expected a mismatch of rank 1, found {error}")
        };
        assert!(named.starts_with(what), "{error}");
        assert_eq!((*rank, &**of_rank, &**of_most), (1, found, expected), "{error}");
    }
}

/// The kinds of forward that give the same numbers from the same input: they differ in the running
/// statistics, and in what the caller does with the result.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Train,
    Recompute,
    Evaluate,
}

impl Kind {
    const ALL: [(Self, &str); 3] = [
        (Self::Train, "forward"),
        (Self::Recompute, "recomputed forward"),
        (Self::Evaluate, "forward in evaluation"),
    ];

    fn call(self, layer: &SyncBatchNorm, x: &Tensor) -> Result<Normalized, Error> {
        match self {
            Self::Train => pollster::block_on(layer.forward_train(x)),
            Self::Recompute => pollster::block_on(layer.forward_train(Forward::of(x).untracked())),
            Self::Evaluate => pollster::block_on(layer.forward_eval(x)),
        }
    }
}

#[test]
fn forward_in_training_for_recomputing_and_in_evaluation_do_not_meet() {
    for (most, expected) in Kind::ALL {
        for (other, found) in Kind::ALL.into_iter().filter(|(other, _)| *other != most) {
            let errors = on_threads(process_groups(3, DEADLINE), |group| {
                let (layer, x) = layer(&group);
                let before = layer.running_stats();
                let kind = if group.rank() == 1 { other } else { most };
                let error = kind.call(&layer, &x).expect_err("different calls");
                assert_eq!(layer.running_stats(), before);
                error
            });
            assert_mismatch(errors, ("call", found, expected));
        }
    }
}

/// The gradients would mix sums of two forward calls.
#[test]
fn backward_of_different_forward_calls_of_one_layer_does_not_meet() {
    for (second, _) in Kind::ALL {
        let errors = on_threads(process_groups(3, DEADLINE), |group| {
            let (layer, x) = layer(&group);
            let calls =
                [Kind::Train, second].map(|kind| kind.call(&layer, &x).expect("forward").saved);
            // Where all differentiate the same call, in whatever order, they meet.
            for saved in calls.iter().rev() {
                pollster::block_on(layer.backward(saved, Backward::of(&x, &x)))
                    .expect("backward of the same call");
            }
            let saved = &calls[usize::from(group.rank() == 1)];
            pollster::block_on(layer.backward(saved, Backward::of(&x, &x)))
                .map(|_| ())
                .expect_err("different calls")
        });
        assert!(errors.iter().all(|error| *error == errors[0]), "{errors:?}");
        assert_mismatch(errors, ("forward exchange of `saved`", "1", "0"));
    }
}
