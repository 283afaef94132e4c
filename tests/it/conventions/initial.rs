//! Initial values: names, numbers, vectors, the seed, and that every rank starts alike.

use syncbn::{config::Initializer, state::StateDict};

use super::*;

fn state(config: BatchNormConfig) -> Result<StateDict, Error> {
    block_on(SyncBatchNorm::new(config, [Device::host(), virtual_gpus()[0].clone()])?.state())
}

fn parse(text: &str) -> Initializer {
    text.parse().unwrap()
}

#[test]
fn pytorch_s_layer_starts_with_1_0_0_1_and_so_does_mindspore_s() {
    let mut expected = StateDict::default();
    (expected.weight, expected.bias) = (Some(vec![1.0; CHANNELS]), Some(vec![0.0; CHANNELS]));
    expected.running_mean = Some(vec![0.0; CHANNELS]);
    expected.running_var = Some(vec![1.0; CHANNELS]);
    expected.num_batches_tracked = Some(0);
    for config in both() {
        assert_eq!(state(config).unwrap(), expected);
    }
}

#[test]
fn each_of_the_four_may_be_a_name_a_number_or_a_vector() {
    let config = from_mindspore(MindSporeArguments {
        gamma_init: parse("zeros"),
        beta_init: parse("-0.5"),
        moving_mean_init: Initializer::Values(vec![3.0, 4.0]),
        moving_var_init: Initializer::Constant(2.0),
        ..mindspore()
    });
    let state = state(config.clone()).unwrap();
    assert_eq!((state.weight, state.bias), (Some(vec![0.0; 2]), Some(vec![-0.5; 2])));
    assert_eq!((state.running_mean, state.running_var), (Some(vec![3.0, 4.0]), Some(vec![2.0; 2])));
    // They are what evaluation normalizes with.
    let y = evaluate(&layer(
        config.with_weight_init(Initializer::Ones).with_bias_init(Initializer::Zeros),
    ));
    assert_normalized(&y, &normalized([3.0, 4.0], [2.0, 2.0]));
}

#[test]
fn the_names_of_a_vector_parse_in_any_case_and_others_are_an_error_that_lists_them() {
    for (names, expected) in [
        (["ones", "one", "ONES"], Initializer::Ones),
        (["zeros", "zero", "Zeros"], Initializer::Zeros),
        (["normal", "Normal", "NORMAL"], Initializer::Normal { mean: 0.0, std: 0.01 }),
        (["uniform", "Uniform", "UNIFORM"], Initializer::Uniform { low: -0.07, high: 0.07 }),
        (
            ["truncatednormal", "TruncatedNormal", "truncatedNormal"],
            Initializer::TruncatedNormal { mean: 0.0, std: 0.01 },
        ),
        (["0.25", "2.5e-1", "+0.25"], Initializer::Constant(0.25)),
    ] {
        for name in names {
            assert_eq!(parse(name), expected, "{name}");
        }
    }
    for name in [
        "xavier_uniform",
        "he_normal",
        "orthogonal",
        "identity",
        "dirac",
        "",
        "one s",
        "nan",
        "inf",
    ] {
        let error = name.parse::<Initializer>().unwrap_err();
        assert_eq!(error, ConfigError::Initializer { found: name.to_owned() });
        let message = error.to_string();
        for valid in
            ["ones", "one", "zeros", "zero", "normal", "uniform", "truncatednormal", "number"]
        {
            assert!(message.contains(valid), "{message}");
        }
    }
}

#[test]
fn random_values_are_the_same_on_every_rank_and_in_every_run_of_a_seed() {
    let random = |seed| {
        BatchNormConfig::mindspore(64)
            .with_weight_init(parse("normal"))
            .with_bias_init(parse("uniform"))
            .with_running_mean_init(parse("truncatednormal"))
            .with_running_var_init(Initializer::Uniform { low: 0.5, high: 1.5 })
            .with_seed(seed)
    };
    let bn = SyncBatchNorm::new(random(7), Kind::Mixed.devices(3)).unwrap();
    let first =
        [bn.weight(0), bn.bias(0)].map(|tensor| block_on(tensor.unwrap().to_vec()).unwrap());
    for rank in 1..3 {
        assert_eq!(
            [bn.weight(rank), bn.bias(rank)]
                .map(|tensor| block_on(tensor.unwrap().to_vec()).unwrap()),
            first
        );
    }
    let seven = state(random(7)).unwrap();
    let eight = state(random(8)).unwrap();
    assert_eq!(state(random(7)).unwrap(), seven);
    let vectors = |state: &StateDict| {
        let of = |values: &Option<Vec<f32>>| values.clone().unwrap();
        [of(&state.weight), of(&state.bias), of(&state.running_mean), of(&state.running_var)]
    };
    for (seven, eight) in vectors(&seven).iter().zip(&vectors(&eight)) {
        assert_ne!(seven, eight);
        assert!(seven.windows(2).any(|pair| pair[0] != pair[1]));
    }
    // Within the ranges of their distributions, and no vector the copy of another.
    let [weight, bias, mean, var] = vectors(&seven);
    assert!(weight.iter().all(|w| w.abs() < 0.06) && bias.iter().all(|b| b.abs() <= 0.07));
    assert!(mean.iter().all(|m| m.abs() <= 0.02) && var.iter().all(|v| (0.5..=1.5).contains(v)));
    let same_normal = random(7).with_bias_init(parse("normal"));
    let state = state(same_normal).unwrap();
    assert_ne!(state.weight, state.bias);
}

#[test]
fn the_numbers_of_a_seed_are_fixed() {
    // A checkpoint is reproduced from a configuration on any machine and by any later version.
    let config = BatchNormConfig::mindspore(4)
        .with_weight_init(parse("normal"))
        .with_bias_init(parse("uniform"))
        .with_running_mean_init(parse("truncatednormal"))
        .with_seed(1);
    let state = state(config).unwrap();
    assert_eq!(state.weight, Some(WEIGHT.to_vec()));
    assert_eq!(state.bias, Some(BIAS.to_vec()));
    assert_eq!(state.running_mean, Some(RUNNING_MEAN.to_vec()));
}

const WEIGHT: [f32; 4] = [0.00888153, 0.002580899, -0.0020011365, 0.006384972];
const BIAS: [f32; 4] = [0.0492677, -0.06287213, 0.008225357, -0.055925004];
const RUNNING_MEAN: [f32; 4] = [-0.008386539, -0.009035728, -0.004204821, -0.0006632123];

#[test]
fn initial_values_that_no_layer_can_have_are_refused() {
    let refused = |config: BatchNormConfig| match state(config).unwrap_err() {
        Error::Config(error) => error,
        other => panic!("{other:?}"),
    };
    let base = || BatchNormConfig::mindspore(CHANNELS);
    let three = Initializer::Values(vec![1.0; 3]);
    let of_length = |name| ConfigError::InitialLength { name, found: 3, expected: CHANNELS };
    assert_eq!(refused(base().with_weight_init(three.clone())), of_length("weight_init"));
    assert_eq!(refused(base().with_bias_init(three.clone())), of_length("bias_init"));
    assert_eq!(
        refused(base().with_running_mean_init(three.clone())),
        of_length("running_mean_init")
    );
    assert_eq!(refused(base().with_running_var_init(three)), of_length("running_var_init"));
    for initializer in [
        Initializer::Constant(f64::NAN),
        Initializer::Constant(1e300),
        Initializer::Normal { mean: 0.0, std: f64::INFINITY },
        Initializer::Uniform { low: f64::NEG_INFINITY, high: 0.0 },
    ] {
        let error = refused(base().with_bias_init(initializer));
        let ConfigError::OutOfRange { name: "bias_init", found, .. } = error else {
            panic!("{error:?}")
        };
        assert!(!found.is_finite(), "{found}");
    }
    for initializer in [Initializer::Constant(-1e-3), Initializer::Values(vec![1.0, -2.0])] {
        let error = refused(base().with_running_var_init(initializer));
        assert!(
            matches!(error, ConfigError::OutOfRange { name: "running_var_init", .. }),
            "{error:?}"
        );
        assert!(error.to_string().contains("at least 0"), "{error}");
    }
}

#[test]
fn values_that_are_not_finite_are_refused() {
    // As they are from a file.
    for value in [f32::NAN, f32::INFINITY] {
        for set in [
            BatchNormConfig::with_weight_init,
            BatchNormConfig::with_bias_init,
            BatchNormConfig::with_running_mean_init,
            BatchNormConfig::with_running_var_init,
        ] {
            let config =
                set(BatchNormConfig::mindspore(CHANNELS), Initializer::Values(vec![1.0, value]));
            let error =
                state(config).expect_err("a layer that starts with a value that is not finite");
            assert!(matches!(error, Error::Config(ConfigError::OutOfRange { .. })), "{error:?}");
        }
    }
}
