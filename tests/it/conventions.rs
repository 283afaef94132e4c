//! The two conventions, PyTorch's and MindSpore's, parameter by parameter: what each means when a
//! layer runs.
//!
//! `conventions/statistics.rs` holds which statistics and which gradients, `conventions/initial.rs`
//! initial values, `conventions/conversions.rs` the way between the conventions and what it cannot
//! express.

mod conversions;
mod initial;
mod statistics;

use crate::common;

use approx::assert_abs_diff_eq;
use common::*;
use pollster::block_on;
use syncbn::stats::RunningStats;
use syncbn::{
    Backward, BatchNormConfig, Device, Error, Normalized, SyncBatchNorm, Tensor,
    config::{AffineGradient, MindSporeArguments, Momentum, RunningVariance, TorchArguments},
    error::{ArgumentError, ConfigError},
    state::{Checkpoint, LoadOptions, Naming, StateDict},
};

const CHANNELS: usize = 2;

type Forward = Normalized<Vec<Tensor>>;

/// A layer of two ranks on the host.
fn layer(config: impl Into<BatchNormConfig>) -> SyncBatchNorm {
    SyncBatchNorm::new(config.into(), [Device::host(), Device::host()]).unwrap()
}

fn torch() -> TorchArguments {
    TorchArguments::new(CHANNELS)
}

fn mindspore() -> MindSporeArguments {
    MindSporeArguments::new(CHANNELS)
}

fn from_mindspore(arguments: MindSporeArguments) -> BatchNormConfig {
    arguments.try_into().unwrap()
}

/// Both conventions' layers with their defaults.
fn both() -> [BatchNormConfig; 2] {
    [torch().into(), from_mindspore(mindspore())]
}

/// A batch for two ranks whose channels have mean 10 and −20 and biased variance 4 and 1 over 6
/// values.
fn batches() -> [Batch; 2] {
    let channel = |c: usize, sign: f32| [10.0 + 2.0 * sign, -20.0 + sign][c];
    let rank = |samples: usize| {
        Batch::new(&[samples, CHANNELS], |index| {
            channel(index % CHANNELS, if (index / CHANNELS).is_multiple_of(2) { 1.0 } else { -1.0 })
        })
    };
    [rank(4), rank(2)]
}

const MEAN: [f64; 2] = [10.0, -20.0];
const VAR: [f64; 2] = [4.0, 1.0];
const COUNT: f64 = 6.0;

fn train(bn: &SyncBatchNorm) -> Forward {
    block_on(bn.forward_train(&upload(bn, &batches()))).unwrap()
}

fn evaluate(bn: &SyncBatchNorm) -> Forward {
    block_on(bn.forward_eval(&upload(bn, &batches()))).unwrap()
}

fn assert_near(found: &[f32], expected: [f64; 2]) {
    for (found, expected) in found.iter().zip(expected) {
        assert_abs_diff_eq!(f64::from(*found), expected, epsilon = 1e-6 * expected.abs());
    }
}

/// y on both ranks for statistics that are given.
fn normalized(mean: [f64; 2], var: [f64; 2]) -> Vec<Vec<f64>> {
    definition_with(&batches(), None, &mean, &var, 1e-5)
}

fn assert_normalized(forward: &Forward, expected: &[Vec<f64>]) {
    compare(&batches(), &read(&forward.output), expected, TOLERANCE_ULP).unwrap();
}

#[test]
fn the_defaults_are_those_of_the_frameworks() {
    let arguments = torch();
    assert_eq!((arguments.eps, arguments.momentum), (1e-5, Some(0.1)));
    assert!(arguments.affine && arguments.bias && arguments.track_running_stats);
    let arguments = mindspore();
    assert_eq!((arguments.eps, arguments.momentum, arguments.affine), (1e-5, 0.9, true));
    assert_eq!(arguments.use_batch_statistics, None);

    let [torch, mindspore] = both();
    assert_eq!([&torch, &mindspore], [&BatchNormConfig::torch(2), &BatchNormConfig::mindspore(2)]);
    assert_eq!(
        (torch.momentum, mindspore.momentum),
        (Momentum::NewWeight(0.1), Momentum::Decay(0.9))
    );
    // In nothing else do the defaults differ.
    assert_eq!(torch.clone().with_momentum(mindspore.momentum), mindspore);
    for config in [torch, mindspore] {
        assert_eq!((config.num_features, config.eps), (CHANNELS, 1e-5));
        assert!(
            config.weight && config.bias && config.track_running_stats && !config.freeze_affine
        );
        assert_eq!(config.use_batch_statistics, None);
        assert_eq!(
            (config.running_variance, config.affine_gradient),
            (RunningVariance::Unbiased, AffineGradient::Local)
        );
    }
}

#[test]
fn a_layer_has_at_least_one_channel_in_both() {
    let refused = |config| match SyncBatchNorm::new(config, [Device::host()]) {
        Err(Error::Config(ConfigError::OutOfRange { name, .. })) => name,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(TorchArguments::new(0).into()), "num_features");
    assert_eq!(refused(BatchNormConfig::mindspore(0)), "num_features");
    let error = BatchNormConfig::try_from(MindSporeArguments::new(0)).unwrap_err();
    assert!(matches!(error, ConfigError::OutOfRange { name: "num_features", .. }), "{error:?}");
}

#[test]
fn eps_may_be_0_in_pytorch_s_and_is_in_0_to_1_in_mindspore_s() {
    let mut bn = layer(TorchArguments { eps: 0.0, ..torch() });
    let constant = [3, 1].map(|samples| Batch::new(&[samples, CHANNELS], |_| 7.5));
    bn.set_parameters(None, Some(&[0.25, -3.0])).unwrap();
    let inputs = upload(&bn, &constant);
    let forward = block_on(bn.forward_train(&inputs)).unwrap();
    assert_eq!(read(&forward.output)[1], [0.25, -3.0]);
    let backward = block_on(bn.backward(&forward.saved, Backward::of(&inputs, &inputs))).unwrap();
    assert_eq!(read(&backward.input)[1], [0.0, 0.0]);

    for (eps, allowed) in
        [(0.0, false), (-1e-5, false), (1.5, false), (f64::NAN, false), (1.0, true), (1e-12, true)]
    {
        let found = BatchNormConfig::try_from(MindSporeArguments { eps, ..mindspore() });
        assert_eq!(found.is_ok(), allowed, "{eps}: {found:?}");
        if let Err(error) = found {
            let message = error.to_string();
            assert!(message.contains("eps") && message.contains("above 0, at most 1"), "{message}");
        }
    }
    // PyTorch's has no upper end.
    layer(TorchArguments { eps: 1.5, ..torch() });
    BatchNormConfig::torch(1).with_eps(f64::INFINITY).validate().unwrap_err();
}

#[test]
fn momentum_is_the_weight_of_the_new_batch_in_pytorch_s_and_of_the_old_value_in_mindspore_s() {
    let unbiased = VAR.map(|var| var * COUNT / (COUNT - 1.0));
    for momentum in [0.0, 0.1, 0.3, 0.9, 1.0] {
        let torch = layer(TorchArguments { momentum: Some(momentum), ..torch() });
        let mindspore = layer(from_mindspore(MindSporeArguments { momentum, ..mindspore() }));
        train(&torch);
        train(&mindspore);
        for (bn, new) in [(&torch, momentum), (&mindspore, 1.0 - momentum)] {
            let running = bn.running_stats().unwrap();
            assert_near(&running.mean, MEAN.map(|mean| new * mean));
            assert_near(&running.var, unbiased.map(|var| 1.0 - new + new * var));
        }
    }
}

#[test]
fn the_two_default_momenta_agree_within_one_ulp() {
    // 1 − 0.9 is not 0.1 in binary, so that the bits may differ by the rounding of f32.
    let [torch, mindspore] = both().map(layer);
    for _ in 0..3 {
        train(&torch);
        train(&mindspore);
        let [a, b] = [&torch, &mindspore].map(|bn| bn.running_stats().unwrap());
        for (a, b) in a.mean.iter().chain(&a.var).zip(b.mean.iter().chain(&b.var)) {
            assert!(f64::from((a - b).abs()) <= ulp(f64::from(*a)), "{a} and {b}");
        }
        assert_eq!(a.num_batches_tracked, b.num_batches_tracked);
    }
}

#[test]
fn momentum_none_is_the_average_of_all_batches() {
    let bn = layer(TorchArguments { momentum: None, ..torch() });
    let mut seen: Vec<[f64; 2]> = Vec::new();
    for step in 0..4 {
        let shift = f64::from(step * step);
        let shifted =
            batches().map(|batch| Batch::new(&batch.dims, |i| batch.values[i] + shift as f32));
        block_on(bn.forward_train(&upload(&bn, &shifted))).unwrap();
        seen.push(MEAN.map(|mean| mean + shift));
        let average =
            [0, 1].map(|c| seen.iter().map(|mean| mean[c]).sum::<f64>() / seen.len() as f64);
        assert_near(&bn.running_stats().unwrap().mean, average);
        assert_eq!(bn.running_stats().unwrap().num_batches_tracked, seen.len() as u64);
    }
}

#[test]
fn momentum_is_in_0_to_1_in_both() {
    for momentum in [-0.1, 1.1, f64::NAN] {
        let error =
            BatchNormConfig::try_from(MindSporeArguments { momentum, ..mindspore() }).unwrap_err();
        assert!(error.to_string().contains("momentum is"), "{error}");
        let config = BatchNormConfig::from(TorchArguments { momentum: Some(momentum), ..torch() });
        assert!(matches!(config.validate(), Err(ConfigError::OutOfRange { name: "momentum", .. })));
    }
}

/// A file of a layer alone.
fn checkpoint(state: &StateDict, naming: Naming) -> Checkpoint {
    let mut checkpoint = Checkpoint::new().with_namings([naming]);
    checkpoint.set_layer("", state).unwrap();
    Checkpoint::from_bytes(checkpoint.to_bytes().unwrap()).unwrap()
}

/// Names that a layer's file has.
fn names(bn: &SyncBatchNorm, naming: Naming) -> Vec<String> {
    checkpoint(&block_on(bn.state()).unwrap(), naming).names().map(str::to_owned).collect()
}

#[test]
fn without_affine_pytorch_s_layer_has_no_parameters_and_mindspore_s_has_frozen_ones() {
    let mut torch = layer(TorchArguments { affine: false, ..torch() });
    let mut mindspore = layer(from_mindspore(MindSporeArguments { affine: false, ..mindspore() }));
    assert_eq!(
        names(&torch, Naming::TORCH),
        ["num_batches_tracked", "running_mean", "running_var"]
    );
    assert_eq!(
        names(&mindspore, Naming::MINDSPORE),
        ["beta", "gamma", "moving_mean", "moving_variance"]
    );
    // Frozen parameters are applied.
    mindspore.set_parameters(Some(&[2.0, 3.0]), Some(&[1.0, -1.0])).unwrap();
    let argument = "weight";
    let setting = "with_weight";
    let none = Error::Argument(ArgumentError::NoSuchParameter { argument, setting });
    assert_eq!(torch.set_parameters(Some(&[2.0, 3.0]), None).unwrap_err(), none);
    let parameters = Parameters { weight: vec![2.0, 3.0], bias: vec![1.0, -1.0] };
    for (bn, parameters) in [(&torch, None), (&mindspore, Some(&parameters))] {
        let inputs = upload(bn, &batches());
        let forward = block_on(bn.forward_train(&inputs)).unwrap();
        assert_normalized(&forward, &definition(&batches(), parameters, 1e-5).outputs);
        // Neither has gradients.
        let backward =
            block_on(bn.backward(&forward.saved, Backward::of(&inputs, &inputs))).unwrap();
        assert!(backward.weight.is_none() && backward.bias.is_none());
    }
}

#[test]
fn pytorch_s_bias_false_keeps_the_weight_alone() {
    let bn = layer(TorchArguments { bias: false, ..torch() });
    assert_eq!(
        names(&bn, Naming::TORCH),
        ["num_batches_tracked", "running_mean", "running_var", "weight"]
    );
    let inputs = upload(&bn, &batches());
    let saved = block_on(bn.forward_train(&inputs)).unwrap().saved;
    let backward = block_on(bn.backward(&saved, Backward::of(&inputs, &inputs))).unwrap();
    assert!(backward.weight.is_some() && backward.bias.is_none());
    // Without affine the setting has no effect.
    let neither = BatchNormConfig::from(TorchArguments { affine: false, bias: true, ..torch() });
    assert_eq!((neither.weight, neither.bias), (false, false));
}

#[test]
fn inputs_of_two_to_five_dimensions_are_taken_by_both_and_fewer_by_none() {
    for config in both() {
        let bn = layer(config);
        for dims in [
            vec![4, 2],
            vec![4, 2, 3],
            vec![4, 2, 3, 1],
            vec![4, 2, 1, 3, 2],
            vec![2, 2, 1, 1, 2, 2],
        ] {
            let batches = [1, 2].map(|seed| Batch::random(&dims, &mut Random::new(seed)));
            let y = read(&block_on(bn.forward_train(&upload(&bn, &batches))).unwrap().output);
            compare(&batches, &y, &definition(&batches, None, 1e-5).outputs, TOLERANCE_ULP)
                .unwrap();
        }
        let inputs = [0, 1].map(|rank: usize| bn.devices()[rank].zeros(&[4]).unwrap());
        let error = block_on(bn.forward_train(&inputs)).unwrap_err();
        assert!(error.to_string().contains("expected at least 2"), "{error}");
    }
}

#[test]
fn a_file_under_either_naming_is_read_by_either_layer() {
    let [torch, mindspore] = both().map(layer);
    assert_eq!(
        names(&torch, Naming::TORCH),
        ["bias", "num_batches_tracked", "running_mean", "running_var", "weight"]
    );
    assert_eq!(
        names(&mindspore, Naming::MINDSPORE),
        ["beta", "gamma", "moving_mean", "moving_variance"]
    );
    for source in [torch, mindspore] {
        train(&source);
        let state = block_on(source.state()).unwrap();
        for naming in [Naming::TORCH, Naming::MINDSPORE] {
            for config in both() {
                let loaded = checkpoint(&state, naming.clone()).layer("").unwrap();
                let mut target = layer(config);
                target.load_state(&loaded, &LoadOptions::default()).unwrap();
                let [y, expected] = [&target, &source].map(|bn| read(&evaluate(bn).output));
                assert_eq!(bits(&y), bits(&expected));
            }
        }
    }
}
