//! The way between the conventions' parameters and the configuration, and the configuration as
//! JSON.

use approx::assert_abs_diff_eq;
use syncbn::config::Initializer;

use super::*;

#[test]
fn pytorch_s_parameters_come_back_as_they_went_in() {
    for momentum in [None, Some(0.0), Some(0.1), Some(1.0)] {
        for (affine, bias) in [(true, true), (true, false), (false, true)] {
            for track_running_stats in [true, false] {
                let arguments = TorchArguments {
                    eps: 1e-3,
                    momentum,
                    affine,
                    bias,
                    track_running_stats,
                    ..TorchArguments::new(7)
                };
                let config = BatchNormConfig::from(arguments);
                config.validate().unwrap();
                assert_eq!(TorchArguments::try_from(&config), Ok(arguments));
            }
        }
    }
}

#[test]
fn mindspore_s_parameters_come_back_as_they_went_in() {
    for use_batch_statistics in [None, Some(true), Some(false)] {
        for affine in [true, false] {
            let arguments = MindSporeArguments {
                eps: 1.0,
                momentum: 0.99,
                affine,
                gamma_init: "normal".parse().unwrap(),
                beta_init: Initializer::Constant(0.5),
                moving_mean_init: Initializer::Values(vec![1.0; 7]),
                moving_var_init: Initializer::Constant(0.0),
                use_batch_statistics,
                ..MindSporeArguments::new(7)
            };
            let config = from_mindspore(arguments.clone());
            assert_eq!(MindSporeArguments::try_from(&config), Ok(arguments));
        }
    }
}

#[test]
fn what_both_have_converts_from_one_to_the_other() {
    let config =
        BatchNormConfig::from(TorchArguments { eps: 1e-3, momentum: Some(0.25), ..torch() });
    let expected = MindSporeArguments { eps: 1e-3, momentum: 0.75, ..mindspore() };
    assert_eq!(MindSporeArguments::try_from(&config), Ok(expected.clone()));
    let back = TorchArguments::try_from(&from_mindspore(expected)).unwrap();
    assert_eq!(back, TorchArguments { eps: 1e-3, momentum: Some(0.25), ..torch() });
    // 1 − 0.9 is 0.1 but for the last bit.
    let default = TorchArguments::try_from(&BatchNormConfig::mindspore(CHANNELS)).unwrap();
    assert_abs_diff_eq!(default.momentum.unwrap(), 0.1, epsilon = 1e-16);
    assert_eq!(TorchArguments { momentum: Some(0.1), ..default }, torch());
}

fn refusal<T: std::fmt::Debug>(converted: Result<T, ConfigError>) -> (&'static str, String) {
    match converted.unwrap_err() {
        error @ ConfigError::NotExpressible { layer, .. } => (layer, error.to_string()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_pytorch_s_layer_cannot_express_is_named() {
    let base = BatchNormConfig::torch(CHANNELS);
    for (config, word) in [
        (base.clone().with_weight(false), "a bias without a weight"),
        (base.clone().with_freeze_affine(true), "freeze_affine"),
        (base.clone().with_use_batch_statistics(Some(true)), "use_batch_statistics"),
        (base.clone().with_use_batch_statistics(Some(false)), "use_batch_statistics"),
        (base.clone().with_running_variance(RunningVariance::Biased), "RunningVariance::Biased"),
        (base.clone().with_affine_gradient(AffineGradient::GroupSum), "AffineGradient"),
        (base.clone().with_affine_gradient(AffineGradient::GroupMean), "AffineGradient"),
        (base.clone().with_weight_init(Initializer::Zeros), "initial value"),
        (base.clone().with_bias_init(Initializer::Ones), "initial value"),
        (base.clone().with_running_mean_init(Initializer::Ones), "initial value"),
        (base.clone().with_running_var_init(Initializer::Zeros), "initial value"),
    ] {
        let (layer, message) = refusal(TorchArguments::try_from(&config));
        assert_eq!(layer, "torch.nn.SyncBatchNorm");
        assert!(message.contains(layer) && message.contains(word), "{message} does not say {word}");
    }
    TorchArguments::try_from(&base).unwrap();
}

#[test]
fn what_mindspore_s_layer_cannot_express_is_named() {
    let base = BatchNormConfig::mindspore(CHANNELS);
    for (config, word) in [
        (base.clone().with_weight(false), "without weight or bias"),
        (base.clone().with_bias(false), "without weight or bias"),
        (base.clone().with_track_running_stats(false), "track_running_stats"),
        (base.clone().with_momentum(Momentum::Cumulative), "Cumulative"),
        (base.clone().with_running_variance(RunningVariance::Biased), "RunningVariance::Biased"),
        (base.clone().with_affine_gradient(AffineGradient::GroupMean), "AffineGradient"),
    ] {
        let (layer, message) = refusal(MindSporeArguments::try_from(&config));
        assert_eq!(layer, "mindspore.nn.SyncBatchNorm");
        assert!(message.contains(layer) && message.contains(word), "{message} does not say {word}");
    }
    for eps in [0.0, 1.5] {
        let error = MindSporeArguments::try_from(&base.clone().with_eps(eps)).unwrap_err();
        assert!(
            matches!(error, ConfigError::OutOfRange { found, .. } if found == eps),
            "{error:?}"
        );
    }
    MindSporeArguments::try_from(&base).unwrap();
}

#[test]
fn moving_values_alone_need_moving_values() {
    let config = BatchNormConfig::torch(CHANNELS)
        .with_track_running_stats(false)
        .with_use_batch_statistics(Some(false));
    let error = config.validate().unwrap_err();
    assert!(matches!(error, ConfigError::Conflict { .. }), "{error:?}");
    let message = error.to_string();
    assert!(
        message.contains("use_batch_statistics") && message.contains("track_running_stats"),
        "{message}"
    );
}

#[test]
fn a_configuration_goes_through_json_and_back() {
    let full = BatchNormConfig::mindspore(3)
        .with_eps(1e-3)
        .with_momentum(Momentum::Cumulative)
        .with_weight(false)
        .with_freeze_affine(true)
        .with_track_running_stats(false)
        .with_use_batch_statistics(Some(true))
        .with_running_variance(RunningVariance::Biased)
        .with_affine_gradient(AffineGradient::GroupMean)
        .with_weight_init("truncatednormal".parse().unwrap())
        .with_bias_init("uniform".parse().unwrap())
        .with_running_mean_init(Initializer::Values(vec![0.1, -2.5e-8, 3.0]))
        .with_running_var_init(Initializer::Constant(0.1))
        .with_seed(u64::MAX);
    for config in both().into_iter().chain([full]) {
        let json = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<BatchNormConfig>(&json).unwrap(), config, "{json}");
    }
    let json = serde_json::to_string(&BatchNormConfig::torch(3)).unwrap();
    for word in ["\"num_features\":3", "{\"NewWeight\":0.1}", "\"use_batch_statistics\":null"] {
        assert!(json.contains(word), "{json} does not hold {word}");
    }
}

#[test]
fn settings_that_json_does_not_mention_have_pytorch_s_defaults() {
    let read = |json: &str| serde_json::from_str::<BatchNormConfig>(json);
    assert_eq!(read(r#"{"num_features": 64}"#).unwrap(), BatchNormConfig::torch(64));
    // Each field may be the only one that is left out.
    let full = serde_json::to_value(BatchNormConfig::torch(3)).unwrap();
    let names: Vec<String> = full.as_object().unwrap().keys().cloned().collect();
    assert_eq!(names.len(), 20);
    for name in names.iter().filter(|name| *name != "num_features") {
        let mut without = full.clone();
        without.as_object_mut().unwrap().remove(name);
        let config = serde_json::from_value::<BatchNormConfig>(without).expect(name);
        assert_eq!(config, BatchNormConfig::torch(3), "without {name}");
    }
    let given = read(r#"{"num_features": 2, "momentum": {"Decay": 0.9}, "bias": false}"#).unwrap();
    assert_eq!(
        given,
        BatchNormConfig::torch(2).with_momentum(Momentum::Decay(0.9)).with_bias(false)
    );
}

#[test]
fn a_number_of_features_is_needed_and_other_names_are_refused() {
    let error = |json: &str| serde_json::from_str::<BatchNormConfig>(json).unwrap_err().to_string();
    assert!(error("{}").starts_with("missing field `num_features`"), "{}", error("{}"));
    let unknown = error(r#"{"num_features": 2, "epsilon": 0.1}"#);
    assert!(unknown.starts_with("unknown field `epsilon`, expected one of "), "{unknown}");
    assert!(unknown.contains("`eps`"), "{unknown}");
}
