//! Residuals that are missing, not asked for, or do not fit: typed errors that name them, before
//! anything is changed.

use half::f16;
use pollster::block_on;
use syncbn::{
    Backward, BatchNormConfig, DType, Device, Error, Forward, Layout, SyncBatchNorm, Tensor,
    config::Activation,
    error::{ArgumentError, ConfigError},
    low_level::Epilogue,
};

use super::common::*;
use super::problem::{EPILOGUES, Problem, Tensors, forward_of};

const CHANNELS: usize = 3;

/// As many positions as channels, so that dimensions alone do not tell the layout.
fn problem(epilogue: Epilogue) -> Problem {
    Problem::plain(
        &[vec![4, CHANNELS, 3], vec![2, CHANNELS, 3], vec![1, CHANNELS, 3]],
        epilogue,
        800,
    )
}

fn argument(result: Result<(), Error>) -> ArgumentError {
    match result {
        Err(Error::Argument(error)) => error,
        other => panic!("{other:?}"),
    }
}

/// Every forward call with these inputs is refused in the same way, and changes nothing.
fn refused(layer: &SyncBatchNorm, x: &[Tensor], residuals: Option<&[Tensor]>) -> ArgumentError {
    let request = || forward_of(x, residuals);
    let before = layer.running_stats();
    let mut outputs: Vec<Tensor> = x
        .iter()
        .map(|x| x.device().upload(x.dims(), &vec![f32::NAN; x.element_count()]).unwrap())
        .collect();
    let error = argument(block_on(layer.forward_train(request())).map(|_| ()));
    let others = [
        block_on(layer.forward_eval(request())).map(|_| ()),
        block_on(layer.forward_train(request().untracked())).map(|_| ()),
        block_on(layer.forward_train(request().write_to(&mut outputs))).map(|_| ()),
        block_on(layer.forward_eval(request().write_to(&mut outputs))).map(|_| ()),
    ];
    others.into_iter().for_each(|other| assert_eq!(argument(other), error));
    assert!(read(&outputs).iter().flatten().all(|y| y.is_nan()), "{error}: an output was written");
    assert_eq!(layer.running_stats(), before, "{error}");
    error
}

fn given(problem: &Problem, kind: Kind) -> (SyncBatchNorm, Tensors) {
    let layer = problem.layer(kind.devices(problem.x.len()));
    let tensors = problem.tensors(&layer);
    (layer, tensors)
}

#[test]
fn an_epilogue_that_adds_a_residual_needs_one() {
    for kind in Kind::ALL {
        for epilogue in [Epilogue::ADD, Epilogue::ADD_RELU] {
            let (layer, tensors) = given(&problem(epilogue), kind);
            let error = refused(&layer, &tensors.x, None);
            assert_eq!(error, ArgumentError::NoResidual);
            assert!(error.to_string().contains(".residual("), "{error}");
            block_on(layer.forward_train(tensors.forward())).unwrap();
        }
    }
}

const NOT_ADDED: ArgumentError = ArgumentError::ResidualNotAdded { argument: "residual" };

#[test]
fn another_epilogue_takes_none() {
    for kind in Kind::ALL {
        for epilogue in EPILOGUES.into_iter().filter(|epilogue| !epilogue.adds_residual()) {
            let (layer, tensors) = given(&problem(epilogue), kind);
            let error = refused(&layer, &tensors.x, Some(&tensors.g));
            assert_eq!(error, NOT_ADDED);
            assert!(error.to_string().contains("with_residual(true)"), "{error}");
            let saved = block_on(layer.forward_train(&tensors.x)).unwrap().saved;
            let request = tensors.backward_without().residual(&tensors.g);
            assert_eq!(argument(block_on(layer.backward(&saved, request)).map(|_| ())), error);
            block_on(layer.backward(&saved, tensors.backward_without())).unwrap();
        }
    }
}

/// A residual that does not fit, made of the one that does, and the error that it gives.
type Spoil = (&'static str, fn(Tensor, Kind) -> Tensor, fn(&ArgumentError) -> bool);

const SPOILS: [Spoil; 6] = [
    (
        "other dims",
        |z, _| z.device().zeros(&[2, CHANNELS, 4]).unwrap(),
        |error| {
            let found = vec![2, CHANNELS, 4];
            let expected = vec![2, CHANNELS, 3];
            *error == ArgumentError::Dims { argument: "residual", rank: Some(1), found, expected }
        },
    ),
    (
        "fewer dims",
        |z, _| z.device().zeros(&[2, CHANNELS * 3]).unwrap(),
        |error| matches!(error, ArgumentError::Dims { argument: "residual", rank: Some(1), .. }),
    ),
    (
        "f16",
        |z, _| z.device().upload(z.dims(), &vec![f16::ZERO; z.element_count()]).unwrap(),
        |error| {
            let argument = "residual[1]".to_owned();
            let expected = "f32, as x is".to_owned();
            *error == ArgumentError::DType { argument, found: DType::F16, expected }
        },
    ),
    (
        "bf16",
        |z, _| z.device().zeros_of(z.dims(), DType::BF16).unwrap(),
        |error| {
            matches!(
                error,
                ArgumentError::DType { argument, found: DType::BF16, .. }
                    if argument == "residual[1]"
            )
        },
    ),
    (
        "channels last",
        |z, _| z.with_layout(Layout::ChannelsLast),
        |error| {
            let found = Layout::ChannelsLast;
            let expected = Layout::ChannelsFirst;
            *error == ArgumentError::Layout { argument: "residual", rank: Some(1), found, expected }
        },
    ),
    (
        "another device",
        |z, kind| {
            let other = if kind == Kind::Gpu { Device::host() } else { virtual_gpus()[2].clone() };
            other.zeros(z.dims()).unwrap()
        },
        |error| {
            matches!(error, ArgumentError::WrongDevice { argument: "residual", rank: Some(1), .. })
        },
    ),
];

#[test]
fn residuals_that_do_not_fit_are_refused_in_forward_and_in_backward() {
    for kind in Kind::ALL {
        for epilogue in [Epilogue::ADD, Epilogue::ADD_RELU] {
            let problem = problem(epilogue);
            let (layer, mut tensors) = given(&problem, kind);
            for (what, spoil, right) in SPOILS {
                let saved = block_on(layer.forward_train(tensors.forward())).unwrap().saved;
                // The same memory where a spoil keeps it, so that nothing but what it changes is
                // wrong.
                let residuals = tensors.residuals.as_mut().unwrap();
                let own = residuals.remove(1);
                residuals.insert(1, spoil(own, kind));
                let error = refused(&layer, &tensors.x, tensors.residuals.as_deref());
                assert!(right(&error), "{kind:?}, {epilogue:?}, {what}: {error:?}");
                assert!(error.to_string().contains("residual[1]"), "{error}");
                let in_backward = block_on(layer.backward(&saved, tensors.backward()));
                assert_eq!(
                    argument(in_backward.map(|_| ())),
                    error,
                    "{kind:?}, {epilogue:?}, {what}"
                );
                tensors.residuals = problem.tensors(&layer).residuals;
            }
            let error =
                refused(&layer, &tensors.x, tensors.residuals.as_ref().map(|ranks| &ranks[..2]));
            assert_eq!(
                error,
                ArgumentError::RankCount { argument: "residual", found: 2, expected: 3 }
            );
        }
    }
}

#[test]
fn a_rank_by_itself_gets_the_same_errors() {
    for device in devices() {
        let x = device.upload(&[2, 1, 2], &[1.0, 2.0, 3.0, 5.0]).unwrap();
        let z = device.upload(&[2, 1, 2], &[0.5, -9.0, 9.0, 0.25]).unwrap();
        let layer = |epilogue: Epilogue| {
            let config = BatchNormConfig::torch(1)
                .with_residual(epilogue.residual)
                .with_activation(epilogue.activation);
            SyncBatchNorm::new(config, [device.clone()]).unwrap()
        };
        let adding = layer(Epilogue::ADD_RELU);
        let error = argument(block_on(adding.forward_train(&x)).map(|_| ()));
        assert_eq!(error, ArgumentError::NoResidual);
        let short = device.upload(&[1, 1, 2], &[1.0, 2.0]).unwrap();
        let error =
            argument(block_on(adding.forward_train(Forward::of(&x).residual(&short))).map(|_| ()));
        assert!(
            matches!(error, ArgumentError::Dims { argument: "residual", rank: None, .. }),
            "{error:?}"
        );
        let error = argument(
            block_on(layer(Epilogue::RELU).forward_train(Forward::of(&x).residual(&z))).map(|_| ()),
        );
        assert_eq!(error, NOT_ADDED);

        let forward = block_on(adding.forward_train(Forward::of(&x).residual(&z))).unwrap();
        assert!(forward.saved.needs_residual());
        let error =
            argument(block_on(adding.backward(&forward.saved, Backward::of(&x, &x))).map(|_| ()));
        assert_eq!(error, ArgumentError::NoResidual);
        let backward =
            block_on(adding.backward(&forward.saved, Backward::of(&x, &x).residual(&z))).unwrap();
        let passed = block_on(backward.residual.unwrap().to_vec()).unwrap();
        assert_eq!(passed, [0.0, 0.0, 3.0, 5.0]);
    }
}

#[test]
fn a_slope_that_is_not_finite_is_refused() {
    for slope in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let config = BatchNormConfig::torch(1).with_activation(Activation::LeakyRelu(slope));
        let error = SyncBatchNorm::new(config, [Device::host()]).unwrap_err();
        assert!(matches!(error, Error::Config(ConfigError::OutOfRange { .. })), "{error:?}");
        assert!(error.to_string().contains("slope"), "{error}");
    }
}
