//! Ranks that are set up differently: the error of every rank names the setting, or the part of the
//! state, with both ranks and both values.

use pollster::block_on;
use syncbn::config::{Activation, AffineGradient, Initializer, Momentum, RunningVariance};
use syncbn::error::ExchangeError;
use syncbn::stats::RunningStats;
use syncbn::{BatchNormConfig, Device, Error, Forward, ProcessGroup, SyncBatchNorm, joint};

use crate::common::all_reduce_groups;
use crate::common::{on_threads, process_groups};
use crate::process_groups::{CHANNELS, LONG};

fn config() -> BatchNormConfig {
    BatchNormConfig::torch(CHANNELS)
}

/// Every setting that ranks may have differently: the settings of a rank that differs, the name,
/// and both values.
fn settings() -> Vec<(BatchNormConfig, &'static str, &'static str, &'static str)> {
    let c = config;
    let normal = Initializer::Normal { mean: 0.0, std: 0.01 };
    let values = |last| Initializer::Values(vec![1.0, 1.0, last]);
    vec![
        (c().with_eps(1e-3), "eps", "1e-3", "1e-5"),
        (
            c().with_momentum(Momentum::NewWeight(0.25)),
            "momentum",
            "new_weight(2.5e-1)",
            "new_weight(1e-1)",
        ),
        (c().with_momentum(Momentum::Decay(0.9)), "momentum", "decay(9e-1)", "new_weight(1e-1)"),
        (c().with_momentum(Momentum::Cumulative), "momentum", "cumulative", "new_weight(1e-1)"),
        (c().with_weight(false), "weight", "false", "true"),
        (c().with_bias(false), "bias", "false", "true"),
        (c().with_freeze_affine(true), "freeze_affine", "true", "false"),
        (c().with_track_running_stats(false), "track_running_stats", "false", "true"),
        (c().with_use_batch_statistics(Some(true)), "use_batch_statistics", "true", "none"),
        (
            c().with_running_variance(RunningVariance::Biased),
            "running_variance",
            "biased",
            "unbiased",
        ),
        (
            c().with_affine_gradient(AffineGradient::GroupSum),
            "affine_gradient",
            "group_sum",
            "local",
        ),
        (c().with_activation(Activation::Relu), "activation", "relu", "none"),
        (
            c().with_activation(Activation::LeakyRelu(0.01)),
            "activation",
            "leaky_relu(1e-2)",
            "none",
        ),
        (c().with_activation_mask(true), "activation_mask", "true", "false"),
        (c().with_weight_init(normal), "weight_init", "normal(0e0, 1e-2)", "ones"),
        (c().with_bias_init(values(2.0)), "bias_init", "values(3)", "zeros"),
        (c().with_running_mean_init(Initializer::Ones), "running_mean_init", "ones", "zeros"),
        (c().with_running_var_init(values(0.5)), "running_var_init", "values(3)", "ones"),
        (c().with_seed(7), "seed", "7", "0"),
    ]
}

/// With transports that gather and that all-reduce, and so many ranks.
fn over_all(world_size: usize) -> [Vec<ProcessGroup>; 2] {
    [process_groups(world_size, LONG), all_reduce_groups(world_size, LONG)]
}

fn layer(group: &ProcessGroup, config: BatchNormConfig) -> SyncBatchNorm {
    SyncBatchNorm::new(config, [Device::host()]).unwrap().named("bn").in_group(group).unwrap()
}

fn step(layer: &SyncBatchNorm) -> Result<(), Error> {
    block_on(layer.forward_train(&Device::host().zeros(&[2, CHANNELS])?)).map(drop)
}

/// The error of the first step of every rank, where these have other settings; the same on all.
fn error_of(
    groups: Vec<ProcessGroup>,
    config_of: impl Fn(usize) -> BatchNormConfig + Sync,
) -> ExchangeError {
    let found = on_threads(groups, |group| {
        let layer = layer(&group, config_of(group.rank()));
        let before = layer.running_stats();
        let Err(Error::Exchange(error)) = step(&layer) else { panic!("no error of an exchange") };
        assert_eq!(layer.running_stats(), before);
        assert_eq!(group.failure(), Some(error.clone()));
        error
    });
    assert!(found.iter().all(|error| *error == found[0]), "{found:?}");
    found[0].clone()
}

#[test]
fn the_setting_that_one_rank_has_differently_is_named_with_both_ranks_and_both_values() {
    for (changed, name, found, expected) in settings() {
        for groups in over_all(3) {
            let error = error_of(groups, |rank| if rank == 1 { changed.clone() } else { config() });
            let text = format!(
                "layer 0 \"bn\", forward, exchange 0: {name} of rank 1 is {found}, expected \
                 {expected}, as on rank 0 and 1 more"
            );
            assert_eq!(error.to_string(), text);
        }
        // Of two ranks the lower one is taken to be right.
        for (culprit, [found, expected]) in [(1, [found, expected]), (0, [expected, found])] {
            for groups in over_all(2) {
                let config_of = |rank| if rank == culprit { changed.clone() } else { config() };
                let error = error_of(groups, config_of);
                let text =
                    format!("{name} of rank 1 is {found}, expected {expected}, as on rank 0");
                assert!(error.to_string().ends_with(&text), "{error}");
            }
        }
    }
}

#[test]
fn of_ranks_that_all_differ_the_first_line_of_the_list_is_named_that_does() {
    for groups in over_all(3) {
        let error = error_of(groups, |rank| match rank {
            0 => config(),
            1 => config().with_seed(1),
            _ => config().with_eps(0.5).with_seed(2),
        });
        let ExchangeError::Setting { name, rank, found, expected, other, agreeing, .. } = &error
        else {
            panic!("{error}")
        };
        assert_eq!((&**name, &**found, &**expected), ("eps", "5e-1", "1e-5"));
        assert_eq!((*rank, *other, *agreeing), (2, 0, 2));
    }
    for groups in over_all(3) {
        let error = error_of(groups, |rank| config().with_seed(rank as u64));
        let text = "seed of rank 1 is 1, expected 0, as on rank 0";
        assert!(error.to_string().ends_with(text), "{error}");
    }
}

#[test]
fn initial_values_are_named_by_their_channel() {
    for groups in over_all(2) {
        let of = |rank| {
            config().with_weight_init(Initializer::Values(vec![1.0, 0.1, 1.0 + rank as f32]))
        };
        let error = error_of(groups, of);
        let text = "weight_init[2] of rank 1 is 2e0, expected 1e0, as on rank 0";
        assert!(error.to_string().ends_with(text), "{error}");
    }
}

/// Ranks of a group that was made of another are named as those of the outermost one.
#[test]
fn ranks_of_a_subgroup_are_those_of_the_outermost_group() {
    let found = on_threads(process_groups(4, LONG), |group| {
        let part = block_on(group.partition(&[vec![1, 3], vec![0, 2]])).unwrap();
        let eps = if group.rank() == 3 { 0.5 } else { 1e-5 };
        let result = step(&layer(&part, config().with_eps(eps)));
        (group.rank() % 2 == 1).then(|| result.expect_err("another eps").to_string())
    });
    for text in found.into_iter().flatten() {
        assert!(text.ends_with("eps of rank 3 is 5e-1, expected 1e-5, as on rank 1"), "{text}");
    }
}

#[test]
fn a_setting_that_is_changed_later_on_one_rank_alone_is_named_too() {
    for groups in over_all(3) {
        let found = on_threads(groups, |group| {
            let mut layer = layer(&group, config());
            step(&layer).expect("equal settings");
            if group.rank() == 2 {
                layer.set_momentum(Momentum::Cumulative).unwrap();
            }
            step(&layer).expect_err("another momentum").to_string()
        });
        let text = "layer 0 \"bn\", forward, exchange 1: momentum of rank 2 is cumulative, \
                    expected new_weight(1e-1), as on rank 0 and 1 more";
        assert!(found.iter().all(|error| error == text), "{found:?}");
    }
}

#[test]
fn a_broadcast_of_the_state_names_the_setting_that_differs() {
    for groups in over_all(3) {
        let found = on_threads(groups, |group| {
            let eps = if group.rank() == 0 { 0.5 } else { 1e-5 };
            let mut layer = layer(&group, config().with_eps(eps));
            block_on(layer.broadcast_state(1)).expect_err("another eps").to_string()
        });
        let text = "layer 0 \"bn\", broadcast of the state, exchange 0: eps of rank 0 is 5e-1, \
                    expected 1e-5, as on rank 1 and 1 more";
        assert!(found.iter().all(|error| error == text), "{found:?}");
    }
}

#[test]
fn a_joint_call_names_the_layer_and_the_setting() {
    for groups in over_all(2) {
        let found = on_threads(groups, |group| {
            let eps = if group.rank() == 1 { 0.5 } else { 1e-5 };
            let layers = [layer(&group, config()), layer(&group, config().with_eps(eps))];
            let x = Device::host().zeros(&[2, CHANNELS]).unwrap();
            let calls = layers.iter().map(|layer| (layer, Forward::of(&x)));
            block_on(joint::forward_train(calls)).map(drop).expect_err("another eps").to_string()
        });
        let text = "request 1 of the joint call: layer 1 \"bn\", forward, exchange 0: eps of rank \
                    1 is 5e-1, expected 1e-5, as on rank 0";
        assert!(found.iter().all(|error| error == text), "{found:?}");
    }
}

/// What rank 1 changes before the first step, and which part of the state is named then.
type Change = (fn(&mut SyncBatchNorm), &'static str);

#[test]
fn the_part_of_the_state_that_differs_is_named_with_what_to_call() {
    let changes: [Change; 5] = [
        (|layer| layer.set_parameters(Some(&[2.0; CHANNELS]), None).unwrap(), "weight"),
        (|layer| layer.set_parameters(None, Some(&[2.0; CHANNELS])).unwrap(), "bias"),
        (|layer| set_running(layer, |running| running.mean[0] = 1.0), "running_mean"),
        (|layer| set_running(layer, |running| running.var[0] = 2.0), "running_var"),
        (
            |layer| set_running(layer, |running| running.num_batches_tracked = 9),
            "num_batches_tracked",
        ),
    ];
    for (change, part) in changes {
        for (world_size, like) in [(2, "rank 0"), (3, "rank 0 and 1 more")] {
            for groups in over_all(world_size) {
                let found = on_threads(groups, |group| {
                    let mut layer = layer(&group, config());
                    if group.rank() == 1 {
                        change(&mut layer);
                    }
                    step(&layer).expect_err("another state")
                });
                for error in &found {
                    assert_eq!(error, &found[0]);
                    let Error::Exchange(ExchangeError::State {
                        name, rank, found, expected, ..
                    }) = error
                    else {
                        panic!("{error}")
                    };
                    assert_eq!((&**name, *rank), (part, 1));
                    if part == "num_batches_tracked" {
                        assert_eq!((&**found, &**expected), ("9", "0"));
                    }
                    let text = error.to_string();
                    assert!(text.contains(&format!("differs from that of {like} (")), "{text}");
                    assert!(text.contains("call broadcast_state before the first step"), "{text}");
                }
            }
        }
    }
}

fn set_running(layer: &mut SyncBatchNorm, change: impl Fn(&mut RunningStats)) {
    let mut running = layer.running_stats().unwrap();
    change(&mut running);
    layer.set_running_stats(running).unwrap();
}

#[test]
fn the_length_of_a_slice_that_differs_is_named() {
    for groups in over_all(3) {
        let found = on_threads(groups, |group| {
            let lengths = if group.rank() == 2 { [3, 2, 2] } else { [3, 1, 3] };
            let mut slices = lengths.map(|length| vec![1.0f32; length]);
            block_on(group.all_reduce_sum(&mut slices)).expect_err("other lengths").to_string()
        });
        let text = "all_reduce_sum, exchange 0 of the group: length of slice 1 of rank 2 is 2, \
                    expected 1, as on rank 0 and 1 more";
        assert!(found.iter().all(|error| error == text), "{found:?}");
    }
}
