//! Activations that are no two slopes, value by value: with a mean of 0, a variance of 1 and an eps
//! of 0, v is x itself, and the gradient of the input is the derivative.

use pollster::block_on;
use syncbn::config::Activation;
use syncbn::error::ConfigError;
use syncbn::low_level::Epilogue;
use syncbn::{Backward, BatchNormConfig, Device, Error, SyncBatchNorm};

use super::bounds::{Expected, derivative, value};
use super::devices::On;
use super::problem::{CURVES, Problem, shape};
use super::stored::Layouts;

/// What a value and a derivative may be off by, in half ulp of |v| and of 1.
const HALF_ULPS: f64 = 8.0;

fn kinds() -> [Device; 3] {
    [On::Native, On::Portable, On::Host].map(|on| on.devices(1).remove(0))
}

fn alone() -> impl Iterator<Item = Epilogue> {
    CURVES.into_iter().filter(|epilogue| !epilogue.adds_residual())
}

/// y and the derivative at each v.
fn through(device: &Device, activation: Activation, v: &[f32]) -> [Vec<f32>; 2] {
    let config =
        BatchNormConfig::torch(1).with_eps(0.0).with_affine(false).with_activation(activation);
    let layer = SyncBatchNorm::new(config, [device.clone()]).unwrap();
    let dims = [1, 1, v.len()];
    let x = device.upload(&dims, v).unwrap();
    let g = device.upload(&dims, &vec![1.0f32; v.len()]).unwrap();
    let forward = block_on(layer.forward_eval(&x)).unwrap();
    let gradients = block_on(layer.backward(&forward.saved, Backward::of(&x, &g))).unwrap();
    [forward.output, gradients.input].map(|tensor| block_on(tensor.to_vec()).unwrap())
}

/// Both signs: 37 values to each factor of 2 up to all that f32 holds, and even steps up to 20.
fn arguments() -> Vec<f32> {
    let scaled = (0x0180_0000u32..0x7f80_0000).step_by((1 << 23) / 37).map(f32::from_bits);
    let even = (0..20_000).map(|i| i as f32 * 0.001 + 0.000_37);
    scaled.chain(even).chain([0.0, 3.0, 6.0, f32::MAX]).flat_map(|v| [v, -v]).collect()
}

#[test]
fn values_and_derivatives_are_within_a_few_ulp_over_all_of_f32() {
    let mut all = arguments();
    all.truncate(all.len() / 4 * 4);
    for device in kinds() {
        // Quads, and single values.
        for v in [&all[..], &all[..all.len() - 1]] {
            for epilogue in alone() {
                let [y, dx] = through(&device, epilogue.activation, v);
                let mut worst = [0.0f64; 2];
                for ((&v, y), dx) in v.iter().zip(y).zip(dx) {
                    let exact = f64::from(v);
                    let off = (f64::from(y) - value(epilogue, exact)).abs() - 2f64.powi(-118);
                    let slope_off = (f64::from(dx) - derivative(epilogue, exact)).abs();
                    let half_ulp = 2f64.powi(-24);
                    worst[0] = worst[0].max(off / (half_ulp * exact.abs()).max(f64::MIN_POSITIVE));
                    worst[1] = worst[1].max(slope_off / half_ulp);
                    assert!(
                        worst.iter().all(|worst| *worst <= HALF_ULPS),
                        "{device:?}, {epilogue:?} at {v:e}: y {y:e}, derivative {dx}: {worst:?}"
                    );
                }
                println!("{epilogue:?}: {worst:.2?} half ulp");
            }
        }
    }
}

#[test]
fn what_is_not_finite_passes_as_documented() {
    for device in kinds() {
        for epilogue in alone() {
            let v = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1.0];
            for v in [&v[..], &v[..3]] {
                let [y, dx] = through(&device, epilogue.activation, v);
                let what = format!("{device:?}, {epilogue:?}: {y:?}, {dx:?}");
                assert!(y[0].is_nan() && dx[0].is_nan(), "{what}");
                assert_eq!(f64::from(y[1]), value(epilogue, f64::INFINITY), "{what}");
                assert!(y[2].is_nan() || y[2] == value(epilogue, f64::NEG_INFINITY) as f32);
                for (dx, v) in dx[1..3].iter().zip([f64::INFINITY, f64::NEG_INFINITY]) {
                    assert!((f64::from(*dx) - derivative(epilogue, v)).abs() < 1e-6, "{what}");
                }
            }
        }
    }
}

/// What PyTorch 2.7 and later give for v: y and the derivative. At the kinks these are choices.
const OF_PYTORCH: [(Activation, f32, [f32; 2]); 21] = [
    (Activation::Relu, 0.0, [0.0, 0.0]),
    (Activation::Relu, f32::INFINITY, [f32::INFINITY, 1.0]),
    (Activation::Relu, f32::NEG_INFINITY, [0.0, 0.0]),
    (Activation::LeakyRelu(0.25), 0.0, [0.0, 0.25]),
    (Activation::LeakyRelu(0.25), f32::INFINITY, [f32::INFINITY, 1.0]),
    (Activation::LeakyRelu(0.25), f32::NEG_INFINITY, [f32::NEG_INFINITY, 0.25]),
    (Activation::Relu6, 0.0, [0.0, 0.0]),
    (Activation::Relu6, 6.0, [6.0, 0.0]),
    (Activation::Relu6, f32::INFINITY, [6.0, 0.0]),
    (Activation::Relu6, f32::NEG_INFINITY, [0.0, 0.0]),
    (Activation::Hardswish, -3.0, [0.0, 0.0]),
    (Activation::Hardswish, 3.0, [3.0, 1.0]),
    (Activation::Hardswish, 0.0, [0.0, 0.5]),
    (Activation::Hardswish, f32::INFINITY, [f32::INFINITY, 1.0]),
    (Activation::Elu(1.5), 0.0, [0.0, 1.5]),
    (Activation::Elu(1.5), f32::INFINITY, [f32::INFINITY, 1.0]),
    (Activation::Elu(1.5), f32::NEG_INFINITY, [-1.5, 0.0]),
    (Activation::Silu, 0.0, [0.0, 0.5]),
    (Activation::Gelu, 0.0, [0.0, 0.5]),
    (Activation::GeluTanh, 0.0, [0.0, 0.5]),
    (Activation::Gelu, 20.0, [20.0, 1.0]),
];

/// What this crate gives where PyTorch has NaN, as 0·∞: the limits.
const LIMITS: [(Activation, f32, [Option<f32>; 2]); 7] = [
    (Activation::Hardswish, f32::NEG_INFINITY, [Some(0.0), Some(0.0)]),
    (Activation::Silu, f32::INFINITY, [Some(f32::INFINITY), Some(1.0)]),
    (Activation::Silu, f32::NEG_INFINITY, [None, Some(0.0)]),
    (Activation::Gelu, f32::INFINITY, [Some(f32::INFINITY), Some(1.0)]),
    (Activation::Gelu, f32::NEG_INFINITY, [None, Some(0.0)]),
    (Activation::GeluTanh, f32::INFINITY, [Some(f32::INFINITY), Some(1.0)]),
    (Activation::GeluTanh, f32::NEG_INFINITY, [None, Some(0.0)]),
];

#[test]
fn kinks_and_infinities_have_the_numbers_of_pytorch_or_the_limit() {
    let of_pytorch = OF_PYTORCH.map(|(activation, v, of)| (activation, v, of.map(Some)));
    for device in kinds() {
        for (activation, v, expected) in of_pytorch.into_iter().chain(LIMITS) {
            // Quads, and single values.
            for count in [4, 3] {
                let found = through(&device, activation, &vec![v; count]);
                for (found, expected) in found.iter().zip(expected) {
                    let is_right = |found: &f32| match expected {
                        Some(expected) => *found == expected,
                        // A compiler may take 0·∞ for 0.
                        None => found.is_nan() || *found == 0.0,
                    };
                    let all = found.iter().all(is_right);
                    assert!(all, "{device:?}, {activation:?} at {v}: {found:?}, {expected:?}");
                }
            }
        }
    }
}

#[test]
fn no_curve_passes_for_another() {
    for adds in [false, true] {
        let of_kind = || CURVES.into_iter().filter(|epilogue| epilogue.adds_residual() == adds);
        for own in of_kind() {
            let problem = Problem::plain(&shape(0), own, 820);
            let passes = problem.run(On::Host.devices(3), &Layouts::all()[..1]).unwrap();
            for other in of_kind() {
                let config = problem.config.clone().with_activation(other.activation);
                let claimed = Problem { config, ..problem.clone() };
                for (uses, pass) in &passes {
                    let result = Expected::of(&claimed, *uses).compare(&claimed, pass);
                    assert_eq!(result.is_ok(), own == other, "{own:?} as {other:?}: {result:?}");
                }
            }
        }
    }
}

#[test]
fn a_mask_and_an_alpha_that_is_not_finite_are_refused() {
    for epilogue in CURVES {
        let config = BatchNormConfig::torch(1)
            .with_residual(epilogue.residual)
            .with_activation(epilogue.activation)
            .with_activation_mask(true);
        let error = SyncBatchNorm::new(config, [Device::host()]).unwrap_err();
        let is_mask = |error: &ConfigError| {
            matches!(
                error,
                ConfigError::Conflict { setting, .. } if setting.contains("activation_mask")
            )
        };
        assert!(matches!(&error, Error::Config(error) if is_mask(error)), "{error}");
    }
    for alpha in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let config = BatchNormConfig::torch(1).with_activation(Activation::Elu(alpha));
        let error = SyncBatchNorm::new(config, [Device::host()]).unwrap_err();
        let is_alpha = |error: &ConfigError| {
            matches!(
                error,
                ConfigError::OutOfRange { name, .. } if name.contains("alpha")
            )
        };
        assert!(matches!(&error, Error::Config(error) if is_alpha(error)), "{error}");
    }
}

#[test]
fn on_the_host_a_value_has_the_same_bits_wherever_it_lies() {
    let device = Device::host();
    for epilogue in alone() {
        let v: Vec<f32> = (0..67).map(|i| (i as f32 - 33.0) * 0.37).collect();
        let all = through(&device, epilogue.activation, &v);
        for (i, &v) in v.iter().enumerate() {
            let one = through(&device, epilogue.activation, &[v]);
            for (one, all) in one.iter().zip(&all) {
                assert_eq!(one[0].to_bits(), all[i].to_bits(), "{epilogue:?} at {v}");
            }
        }
    }
}
