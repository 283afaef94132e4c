//! NaN and infinity in x, in an upstream gradient and in the running statistics: they reach what
//! they reach where the host merges.

use pollster::block_on;
use syncbn::stats::RunningStats;
use syncbn::{BatchNorm, BatchNormConfig, low_level::Epilogue};

use super::common::*;
use super::devices::On;
use super::one_gpu::{passes, passes_on_host};
use super::problem::Problem;
use super::stored::Layouts;

const POISONS: [f32; 3] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
const EPILOGUES: [Epilogue; 3] = [Epilogue::NONE, Epilogue::RELU, Epilogue::ADD_RELU];

fn classes(values: &[Vec<f32>]) -> Vec<String> {
    let class =
        |value: &f32| if value.is_finite() { "finite".to_owned() } else { value.abs().to_string() };
    values.concat().iter().map(class).collect()
}

/// Where one side has a NaN, an infinity or a number, so has the other.
fn assert_same_classes(what: &str, problem: &Problem) {
    let device = &On::Portable.devices(1)[0];
    let layouts = Layouts::all()[0];
    let found = passes(problem, device, layouts).unwrap();
    for ((uses, found), (_, expected)) in
        found.iter().zip(&passes_on_host(problem, device, layouts))
    {
        let what = format!("{what}, {uses:?}");
        assert_eq!(classes(&found.y), classes(&expected.y), "{what}: y");
        assert_eq!(
            classes(&found.grad_inputs),
            classes(&expected.grad_inputs),
            "{what}: grad_inputs"
        );
        for (name, found, expected) in [
            ("grad_residuals", &found.grad_residuals, &expected.grad_residuals),
            ("grad_weights", &found.grad_weights, &expected.grad_weights),
            ("grad_biases", &found.grad_biases, &expected.grad_biases),
        ] {
            let [found, expected] =
                [found, expected].map(|values| classes(values.as_deref().unwrap_or_default()));
            assert_eq!(found, expected, "{what}: {name}");
        }
    }
}

#[test]
fn a_value_that_is_not_finite_reaches_what_it_reaches_where_the_host_merges() {
    for epilogue in EPILOGUES {
        for poison in POISONS {
            let dims = [vec![3, 3, 5], vec![2, 3, 7], vec![0, 3, 4]];
            let clean = Problem::plain(&dims, epilogue, 600);
            let mut in_x = clean.clone();
            let mut in_g = clean;
            in_x.x[1].values[9] = poison;
            assert_same_classes(&format!("{epilogue:?}, x {poison}"), &in_x);
            in_g.g[0].values[20] = poison;
            assert_same_classes(&format!("{epilogue:?}, g {poison}"), &in_g);
        }
    }
}

#[test]
fn running_statistics_that_are_not_finite_do_what_they_do_on_the_host() {
    for (mean, var) in
        [(f32::NAN, 1.0), (0.0, f32::NAN), (f32::INFINITY, 1.0), (0.0, f32::INFINITY)]
    {
        let mut problem = Problem::plain(&[vec![3, 3, 5], vec![2, 3, 7]], Epilogue::RELU, 610);
        (problem.running.mean[1], problem.running.var[1]) = (mean, var);
        assert_same_classes(&format!("mean {mean}, var {var}"), &problem);
    }
}

#[test]
fn a_channel_that_is_not_finite_makes_its_running_statistics_nan_and_no_other() {
    let device = &virtual_gpus()[0];
    for poison in POISONS {
        let layer = BatchNorm::new(BatchNormConfig::torch(3), device).unwrap();
        let mut batches = [1, 2].map(|seed| Batch::random(&[4, 3, 5], &mut Random::new(seed)));
        batches[1].values[6] = poison;
        let inputs = [&batches[0], &batches[1]].map(|batch| batch.upload(device));
        let forward = layer.forward_train(&inputs).unwrap();
        let RunningStats { mean, var, num_batches_tracked } =
            block_on(layer.running_stats()).unwrap().unwrap();
        assert_eq!(num_batches_tracked, 1);
        for values in [mean, var] {
            assert_eq!(
                values.iter().map(|value| value.is_nan()).collect::<Vec<_>>(),
                [false, true, false],
                "{poison}"
            );
        }
        let [mean, inv_std] =
            forward.saved.mean_and_inv_std(0).unwrap().map(|of| block_on(of.to_vec()).unwrap());
        assert!(mean[1].is_nan() && inv_std[1].is_nan());
        assert!(mean[0].is_finite() && inv_std[2].is_finite());
    }
}
