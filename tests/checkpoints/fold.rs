//! Evaluation as a scale and a shift, and folded into a layer before.

use approx::abs_diff_eq;
use syncbn::config::Momentum;
use syncbn::error::{ConfigError, Error, StateError};
use syncbn::state::ScaleShift;

use super::*;

fn evaluation() -> ScaleShift {
    state(4.0).scale_shift(1e-5).unwrap()
}

/// A number that no other index has.
fn value(index: usize) -> f32 {
    (1.7 * index as f32 + 0.3).sin()
}

#[test]
fn the_two_numbers_are_those_of_evaluation() {
    let mut bn = layer(BatchNormConfig::torch(CHANNELS).with_eps(1e-3));
    bn.load_state(&state(4.0), &Default::default()).unwrap();
    let ScaleShift { scale, shift, .. } = block_on(bn.scale_shift()).unwrap();
    let values: Vec<f32> = (0..2 * CHANNELS).map(value).collect();
    let x = Device::host().upload(&[2, CHANNELS], &values).unwrap();
    let y = block_on(block_on(bn.forward_eval(&x)).unwrap().output.to_vec()).unwrap();
    for (index, (x, y)) in values.iter().zip(&y).enumerate() {
        let channel = index % CHANNELS;
        let expected = f64::from(*x) * scale[channel] + shift[channel];
        // y is rounded a few times from terms of this size.
        let size = expected.abs() + shift[channel].abs() + 1.0;
        let allowed = 4.0 * size * 2f64.powi(-24);
        assert!(abs_diff_eq!(f64::from(*y), expected, epsilon = allowed), "{index}");
    }
}

#[test]
fn a_layer_that_evaluates_with_its_batch_has_no_such_numbers() {
    for config in [
        BatchNormConfig::torch(CHANNELS).with_track_running_stats(false),
        BatchNormConfig::torch(CHANNELS).with_use_batch_statistics(Some(true)),
    ] {
        let error = block_on(layer(config).scale_shift()).unwrap_err();
        assert!(matches!(error, Error::Config(ConfigError::Conflict { .. })), "{error:?}");
    }
    let momentum = BatchNormConfig::torch(CHANNELS).with_momentum(Momentum::Cumulative);
    block_on(layer(momentum.with_affine(false)).scale_shift()).unwrap();
    let mut half = state(1.0);
    half.running_var = None;
    let error = half.scale_shift(0.0).unwrap_err().to_string();
    assert!(error.contains("running_var is missing"), "{error}");
    half = state(1.0);
    half.bias = Some(vec![0.0]);
    let error = half.scale_shift(0.0).unwrap_err().to_string();
    assert!(error.contains("bias has shape [1], expected [3]"), "{error}");
}

#[test]
fn a_variance_below_0_is_refused() {
    let mut negative = state(4.0);
    negative.running_var = Some(vec![1.0, -1.0, 1.0]);
    let error = negative.scale_shift(1e-5).unwrap_err();
    let is_named = matches!(&error, StateError::NegativeVariance { channel: 1, found: -1.0, .. });
    assert!(is_named, "{error}");
}

#[test]
fn a_channel_without_variance_and_eps_is_its_bias() {
    let mut state = state(4.0);
    state.running_var = Some(vec![0.0; CHANNELS]);
    let ScaleShift { scale, shift, .. } = state.scale_shift(0.0).unwrap();
    assert_eq!((scale, shift), (vec![0.0; CHANNELS], vec![0.25, 0.0, 4.0]));
}

/// What each weight and bias is to be, in f64, rounded once.
fn expected(
    scale_shift: &ScaleShift,
    weight: &[f32],
    channel: impl Fn(usize) -> usize,
) -> Vec<f32> {
    let weights = weight.iter().enumerate();
    weights.map(|(i, w)| (f64::from(*w) * scale_shift.scale[channel(i)]) as f32).collect()
}

#[test]
fn rows_of_a_convolution_are_scaled_by_their_output_channel() {
    let evaluation = evaluation();
    // (O, I, H, W) = (3, 2, 2, 2).
    let weight: Vec<f32> = (0..24).map(value).collect();
    let bias = [0.5, -1.5, 2.0];
    let (weights, biases) = evaluation.fold(&weight, Some(&bias)).unwrap();
    assert_eq!(weights, expected(&evaluation, &weight, |index| index / 8));
    for (channel, found) in biases.iter().enumerate() {
        let exact =
            f64::from(bias[channel]) * evaluation.scale[channel] + evaluation.shift[channel];
        assert_eq!(*found, exact as f32);
    }
    let (_, biases) = evaluation.fold(&weight, None).unwrap();
    let shifts: Vec<f32> = evaluation.shift.iter().map(|shift| *shift as f32).collect();
    assert_eq!(biases, shifts);
}

#[test]
fn transposed_weights_are_scaled_by_their_second_dimension_and_group() {
    let evaluation = evaluation();
    // (I, O, W) = (2, 3, 2).
    let weight: Vec<f32> = (0..12).map(value).collect();
    let (weights, _) = evaluation.fold_transposed(&weight, &[2, 3, 2], 1, None).unwrap();
    assert_eq!(weights, expected(&evaluation, &weight, |index| index / 2 % 3));
    // Three groups of two inputs and one output each: (I, O / groups, W) = (6, 1, 2).
    let (weights, _) = evaluation.fold_transposed(&weight, &[6, 1, 2], 3, None).unwrap();
    assert_eq!(weights, expected(&evaluation, &weight, |index| index / 4));
}

#[test]
fn a_weight_that_does_not_fit_is_refused() {
    let evaluation = evaluation();
    let weight = [0.0; 12];
    let refused = |result: Result<_, StateError>, words: &str| {
        let error = result.map(|_: (Vec<f32>, Vec<f32>)| ()).unwrap_err();
        assert!(matches!(error, StateError::Fold { .. }), "{error:?}");
        assert!(error.to_string().contains(words), "{error}");
    };
    refused(evaluation.fold(&weight[..11], None), "weight of the layer to fold into: found 11");
    refused(evaluation.fold(&weight, Some(&[0.0; 4])), "bias of the layer to fold into: found 4");
    let transposed =
        |dims: &[usize], groups| evaluation.fold_transposed(&weight, dims, groups, None);
    refused(transposed(&[12], 1), "dims of the layer");
    refused(transposed(&[2, 3], 1), "weight of the layer to fold into: found 12");
    refused(transposed(&[3, 4], 1), "dims[1] of the layer to fold into: found 4");
    refused(transposed(&[4, 3], 0), "groups");
    refused(transposed(&[4, 3], 3), "groups");
}
