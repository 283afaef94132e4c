//! Settings of a living layer: those that may change, for which calls they hold, and those that are
//! refused.

use pollster::block_on;
use syncbn::config::{Activation, AffineGradient, BatchNormConfig, Momentum, RunningVariance};
use syncbn::error::ConfigError;
use syncbn::low_level::Epilogue;
use syncbn::stats::RunningStats;
use syncbn::{Backward, BatchNorm, Error, Forward, Gradients, Saved, SyncBatchNorm, Tensor};

use super::common::*;

const CHANNELS: usize = 3;
const DIMS: [[usize; 3]; 2] = [[3, CHANNELS, 7], [2, CHANNELS, 5]];

/// Both kinds of layer with two ranks, and one way to call them.
enum Layer {
    Sync(SyncBatchNorm),
    OneGpu(BatchNorm),
}

impl Layer {
    /// Of every kind, with parameters and running statistics of their own.
    fn all(config: &BatchNormConfig) -> Vec<Self> {
        let mut layers: Vec<Self> = Vec::new();
        for kind in Kind::ALL {
            layers.push(Self::Sync(SyncBatchNorm::new(config.clone(), kind.devices(2)).unwrap()));
        }
        layers.push(Self::OneGpu(BatchNorm::new(config.clone(), &virtual_gpus()[0]).unwrap()));
        for layer in &mut layers {
            let parameters = Parameters::random(CHANNELS, &mut Random::new(310));
            let running = RunningStats {
                mean: vec![0.5, -1.0, 2.0],
                var: vec![0.25, 1.5, 3.0],
                num_batches_tracked: 7,
            };
            match layer {
                Self::Sync(layer) => {
                    parameters.set(layer);
                    layer.set_running_stats(running).unwrap();
                }
                Self::OneGpu(layer) => {
                    layer.set_parameters(Some(&parameters.weight), Some(&parameters.bias)).unwrap();
                    layer.set_running_stats(running).unwrap();
                }
            }
        }
        layers
    }

    fn config(&self) -> &BatchNormConfig {
        match self {
            Self::Sync(layer) => layer.config(),
            Self::OneGpu(layer) => layer.config(),
        }
    }

    fn set_config(&mut self, config: BatchNormConfig) -> Result<(), Error> {
        match self {
            Self::Sync(layer) => layer.set_config(config),
            Self::OneGpu(layer) => layer.set_config(config),
        }
    }

    fn set_momentum(&mut self, momentum: Momentum) -> Result<(), Error> {
        match self {
            Self::Sync(layer) => layer.set_momentum(momentum),
            Self::OneGpu(layer) => layer.set_momentum(momentum),
        }
    }

    /// Random tensors of its two ranks.
    fn tensors(&self, seed: u64) -> Vec<Tensor> {
        let mut random = Random::new(seed);
        let device = |rank: usize| match self {
            Self::Sync(layer) => &layer.devices()[rank],
            Self::OneGpu(layer) => layer.device(),
        };
        (0..2).map(|rank| Batch::random(&DIMS[rank], &mut random).upload(device(rank))).collect()
    }

    fn train(&self, request: Forward<'_, Vec<Tensor>>) -> (Vec<Vec<u32>>, Saved) {
        let forward = match self {
            Self::Sync(layer) => block_on(layer.forward_train(request)).unwrap(),
            Self::OneGpu(layer) => layer.forward_train(request).unwrap(),
        };
        (bits(&read(&forward.output)), forward.saved)
    }

    fn evaluate(&self, request: Forward<'_, Vec<Tensor>>) -> Vec<Vec<u32>> {
        let forward = match self {
            Self::Sync(layer) => block_on(layer.forward_eval(request)).unwrap(),
            Self::OneGpu(layer) => layer.forward_eval(request).unwrap(),
        };
        bits(&read(&forward.output))
    }

    fn backward(&self, saved: &Saved, request: Backward<'_, Vec<Tensor>>) -> Bits {
        let gradients: Gradients<Vec<Tensor>> = match self {
            Self::Sync(layer) => block_on(layer.backward(saved, request)).unwrap(),
            Self::OneGpu(layer) => layer.backward(saved, request).unwrap(),
        };
        let of = |tensors: Option<&Vec<Tensor>>| tensors.map(|tensors| bits(&read(tensors)));
        let [weight, bias, residual] =
            [&gradients.weight, &gradients.bias, &gradients.residual].map(Option::as_ref);
        Bits {
            input: bits(&read(&gradients.input)),
            weight: of(weight),
            bias: of(bias),
            residual: of(residual),
        }
    }

    fn running(&self) -> RunningStats {
        match self {
            Self::Sync(layer) => layer.running_stats().unwrap(),
            Self::OneGpu(layer) => block_on(layer.running_stats()).unwrap().unwrap(),
        }
    }
}

/// Every bit of the gradients of a call.
#[derive(Clone, Debug, PartialEq)]
struct Bits {
    input: Vec<Vec<u32>>,
    weight: Option<Vec<Vec<u32>>>,
    bias: Option<Vec<Vec<u32>>>,
    residual: Option<Vec<Vec<u32>>>,
}

/// Every setting that may change and that no gradient depends on.
fn unconcerned(config: &BatchNormConfig) -> Vec<BatchNormConfig> {
    let config = || config.clone();
    vec![
        config().with_momentum(Momentum::Cumulative),
        config().with_eps(0.5),
        config().with_running_variance(RunningVariance::Biased),
        config().with_use_batch_statistics(Some(false)),
        config().with_seed(99),
    ]
}

#[test]
fn a_saved_call_keeps_its_gradients_when_settings_change() {
    for (epilogue, mask) in
        [(Epilogue::NONE, false), (Epilogue::RELU, false), (Epilogue::ADD_RELU, true)]
    {
        let config = BatchNormConfig::torch(CHANNELS)
            .with_residual(epilogue.residual)
            .with_activation(epilogue.activation)
            .with_activation_mask(mask);
        for (number, mut layer) in Layer::all(&config).into_iter().enumerate() {
            let [x, g, residual] = [311, 312, 313].map(|seed| layer.tensors(seed));
            let forward = || match epilogue.adds_residual() {
                true => Forward::of(&x).residual(&residual),
                false => Forward::of(&x),
            };
            let (y, saved) = layer.train(forward());
            let before = layer.backward(&saved, Backward::of(&x, &g));
            for changed in unconcerned(&config) {
                layer.set_config(changed.clone()).unwrap();
                assert_eq!(*layer.config(), changed);
                let after = layer.backward(&saved, Backward::of(&x, &g));
                assert_eq!(after, before, "layer {number}, {epilogue:?}: {changed:?}");
            }
            // That a call after the change is another one: the tests above changed something.
            layer.set_config(config.clone().with_eps(0.5)).unwrap();
            let (other_y, other) = layer.train(forward());
            assert_ne!(other_y, y);
            assert_ne!(layer.backward(&other, Backward::of(&x, &g)).input, before.input);
            assert_eq!(layer.backward(&saved, Backward::of(&x, &g)), before);
        }
    }
}

#[test]
fn the_gradients_of_parameters_follow_their_setting_and_that_of_the_input_stays() {
    let config = BatchNormConfig::torch(CHANNELS);
    for (number, mut layer) in Layer::all(&config).into_iter().enumerate() {
        let [x, g] = [314, 315].map(|seed| layer.tensors(seed));
        let (_, saved) = layer.train(Forward::of(&x));
        let local = layer.backward(&saved, Backward::of(&x, &g));
        let mut means = Vec::new();
        for setting in [AffineGradient::GroupSum, AffineGradient::GroupMean, AffineGradient::Local]
        {
            let changed = config.clone().with_affine_gradient(setting);
            layer.set_config(changed.clone()).unwrap();
            let after = layer.backward(&saved, Backward::of(&x, &g));
            assert_eq!(after.input, local.input, "layer {number}, {setting:?}");
            // As a layer that never had another setting.
            let fresh = Layer::all(&changed).swap_remove(number);
            let [x, g] = [314, 315].map(|seed| fresh.tensors(seed));
            let (_, saved) = fresh.train(Forward::of(&x));
            assert_eq!(
                fresh.backward(&saved, Backward::of(&x, &g)),
                after,
                "layer {number}, {setting:?}"
            );
            means.push((after.weight, after.bias));
        }
        assert!(
            means[0] != means[1] && means[1] != means[2],
            "layer {number}: settings do not matter"
        );
        assert_eq!(means[2], (local.weight, local.bias));
    }
}

#[test]
fn a_frozen_layer_gives_its_parameters_no_gradient_and_thaws() {
    let config = BatchNormConfig::torch(CHANNELS);
    for mut layer in Layer::all(&config) {
        let [x, g] = [316, 317].map(|seed| layer.tensors(seed));
        let (_, saved) = layer.train(Forward::of(&x));
        let before = layer.backward(&saved, Backward::of(&x, &g));
        layer.set_config(config.clone().with_freeze_affine(true)).unwrap();
        let frozen = layer.backward(&saved, Backward::of(&x, &g));
        assert_eq!(frozen, Bits { weight: None, bias: None, ..before.clone() });
        layer.set_config(config.clone()).unwrap();
        assert_eq!(layer.backward(&saved, Backward::of(&x, &g)), before);
    }
}

#[test]
fn momentum_and_eps_hold_from_the_next_call_on() {
    let config = BatchNormConfig::torch(CHANNELS);
    for mut layer in Layer::all(&config) {
        let x = layer.tensors(318);
        let evaluated = layer.evaluate(Forward::of(&x));
        let running = layer.running();
        layer.set_momentum(Momentum::NewWeight(0.0)).unwrap();
        assert_eq!(layer.config().momentum, Momentum::NewWeight(0.0));
        layer.train(Forward::of(&x));
        assert_eq!(layer.running(), RunningStats { num_batches_tracked: 8, ..running.clone() });
        assert_eq!(layer.evaluate(Forward::of(&x)), evaluated);
        layer.set_config(config.clone().with_eps(0.5)).unwrap();
        assert_ne!(layer.evaluate(Forward::of(&x)), evaluated);
        layer.set_momentum(Momentum::NewWeight(1.0)).unwrap();
        assert_eq!(layer.config().eps, 0.5, "another setting than the momentum changed");
        layer.train(Forward::of(&x));
        let followed = layer.running();
        assert!(
            (0..CHANNELS)
                .all(|c| followed.mean[c] != running.mean[c] && followed.var[c] != running.var[c])
        );
        assert_eq!(followed.num_batches_tracked, 9);
    }
}

#[test]
fn a_setting_that_cannot_change_is_named_and_leaves_the_layer_as_it_was() {
    let config =
        BatchNormConfig::torch(CHANNELS).with_residual(true).with_activation(Activation::Relu);
    let other = || config.clone().with_momentum(Momentum::Cumulative).with_eps(0.5);
    let mut more_channels = other();
    more_channels.num_features += 1;
    let fixed = |name, found: &str, expected: &str, config| {
        let [found, expected] = [found, expected].map(str::to_owned);
        (config, ConfigError::Fixed { name, found, expected })
    };
    let mut refused = vec![
        fixed("num_features", "4", "3", more_channels),
        fixed("weight", "false", "true", other().with_weight(false)),
        fixed("bias", "false", "true", other().with_bias(false)),
        fixed("track_running_stats", "false", "true", other().with_track_running_stats(false)),
        fixed("activation", "relu6", "relu", other().with_activation(Activation::Relu6)),
        fixed("residual", "false", "true", other().with_residual(false)),
        fixed("activation_mask", "true", "false", other().with_activation_mask(true)),
    ];
    let out_of_range = |name, found, allowed| ConfigError::OutOfRange { name, found, allowed };
    refused.push((other().with_eps(-1.0), out_of_range("eps", -1.0, "finite and at least 0")));
    let momentum = out_of_range("momentum", 1.5, "0 to 1");
    refused.push((other().with_momentum(Momentum::Decay(1.5)), momentum));
    for mut layer in Layer::all(&config) {
        let [x, g, residual] = [319, 320, 321].map(|seed| layer.tensors(seed));
        let forward = || Forward::of(&x).residual(&residual);
        let backward = || Backward::of(&x, &g).residual(&residual);
        let (_, saved) = layer.train(forward());
        let running = layer.running();
        let evaluated = layer.evaluate(forward());
        let gradients = layer.backward(&saved, backward());
        for (changed, expected) in &refused {
            let error = layer.set_config(changed.clone()).unwrap_err();
            assert_eq!(error, Error::Config(expected.clone()));
            if let ConfigError::Fixed { name, found, expected } = expected {
                let change = format!("{name} of a layer that exists cannot change from {expected}");
                assert_eq!(error.to_string(), format!("{change} to {found}; make another layer"));
            }
            assert_eq!(*layer.config(), config);
            assert_eq!(
                (layer.running(), layer.evaluate(forward())),
                (running.clone(), evaluated.clone())
            );
            assert_eq!(layer.backward(&saved, backward()), gradients);
        }
        let error = layer.set_momentum(Momentum::NewWeight(-0.5)).unwrap_err();
        assert_eq!(error, Error::Config(out_of_range("momentum", -0.5, "0 to 1")));
        assert_eq!(*layer.config(), config);
    }
}
