//! Owns the measure of errors that no tolerance allows for: units of one ulp of what is largest in
//! the channel, in the type that the values are stored as. That is f32 but for y and dx of 16-bit
//! inputs, where half an ulp is their rounding.
//!
//! For y that is the channel's largest |y| over the group; behind an activation the largest |v|
//! that enters it, because an activation makes little of large negative v and leaves the error of
//! the others as it is. Gradients may cancel to nothing, so
//! theirs are the terms that they are made of: for dx the largest |weight·inv_std·g|, for dbias
//! Σ|g| and for dweight Σ|g·x̂| over the group.

use half::{bf16, f16};
use syncbn::DType;

use crate::compare::{Check, Quantity};
use crate::scenario::{Scenario, Source, Step};
use crate::{conditioning, epilogue};

/// The most that y may be off on hard data: the aim of the project. Gradients are held to the same
/// number. Their tolerances allow for a mean held in one f32, as those of y do, so that without
/// this bound a lost remainder of the mean goes unseen.
pub const BOUND: f64 = 8.0;

/// Has y and the gradients of every step that normalizes with the group's batch measured, beside
/// their tolerances.
pub fn measure(scenario: &mut Scenario) {
    for i in 0..scenario.steps.len() {
        let step = &scenario.steps[i];
        let expected = |quantity: Quantity| {
            step.checks
                .iter()
                .find(|check| check.quantity == quantity)
                .map(|check| check.expected.as_slice())
        };
        let statistics = expected(Quantity::Mean).zip(expected(Quantity::VarBiased));
        let (Source::Group, Some(statistics)) = (scenario.source(step), statistics) else {
            continue;
        };
        let facts = conditioning::of_step(scenario, step, statistics);
        let each =
            |size: fn(&conditioning::Channel) -> f64| facts.iter().map(size).collect::<Vec<f64>>();
        let mut outputs = largest(&step.checks, facts.len());
        if scenario.config.activation != syncbn::config::Activation::None {
            let entering = epilogue::entering(scenario, step, statistics);
            for (input, v) in step.inputs.iter().zip(entering) {
                let map = input.map();
                for (i, v) in v.into_iter().enumerate().filter(|(_, v)| v.is_finite()) {
                    let largest = &mut outputs[map.channel(i)];
                    *largest = largest.max(v.abs());
                }
            }
        }
        let grad_inputs = each(conditioning::Channel::largest_gradient);
        let grad_weights = each(conditioning::Channel::sum_abs_g_xhat);
        let grad_biases = each(conditioning::Channel::sum_abs_g);
        let Step { inputs, checks, .. } = &mut scenario.steps[i];
        for check in checks {
            let (sizes, dtype) = match check.quantity {
                Quantity::Output(rank) => (&outputs, inputs[rank].dtype),
                Quantity::GradInput(rank) => (&grad_inputs, inputs[rank].dtype),
                Quantity::GradWeight(_) | Quantity::GradWeightSum => (&grad_weights, DType::F32),
                Quantity::GradBias(_) | Quantity::GradBiasSum => (&grad_biases, DType::F32),
                _ => continue,
            };
            check.ulp = Some(sizes.iter().map(|&size| ulp_of(dtype, size)).collect());
        }
    }
}

/// Per channel the largest finite |y| that is expected of any rank.
fn largest(checks: &[Check], channels: usize) -> Vec<f64> {
    let mut largest = vec![0.0f64; channels];
    for check in checks.iter().filter(|check| matches!(check.quantity, Quantity::Output(_))) {
        largest
            .iter_mut()
            .zip(check.largest(channels))
            .for_each(|(largest, of_rank)| *largest = largest.max(of_rank));
    }
    largest
}

/// The distance from |value|, rounded to `dtype`, to the next larger finite number; to the one
/// below where there is none.
fn ulp_of(dtype: DType, value: f64) -> f64 {
    // The bits of positive floats count up with their values.
    let step = |bits: u32, largest: u32, number: fn(u32) -> f64| {
        let bits = bits.min(largest - 1);
        number(bits + 1) - number(bits)
    };
    let size = value.abs();
    match dtype {
        DType::F32 => {
            step((size as f32).to_bits(), f32::MAX.to_bits(), |bits| f32::from_bits(bits).into())
        }
        DType::F16 => {
            step(f16::from_f64(size).to_bits().into(), f16::MAX.to_bits().into(), |bits| {
                f16::from_bits(bits as u16).into()
            })
        }
        DType::BF16 => {
            step(bf16::from_f64(size).to_bits().into(), bf16::MAX.to_bits().into(), |bits| {
                bf16::from_bits(bits as u16).into()
            })
        }
    }
}
