//! Owns the measure of errors that no tolerance allows for: units of one f32 ulp of what is largest in the channel.
//!
//! For y that is the channel's largest |y| over the group. Gradients may cancel to nothing, so theirs are the terms that they
//! are made of: for dx the largest |weight·inv_std·g|, for dbias Σ|g| and for dweight Σ|g·x̂| over the group.

use crate::compare::{Check, Quantity, ulp_f32};
use crate::conditioning;
use crate::scenario::{Scenario, Source};

/// The most that y may be off on hard data: the aim of the project. Gradients are held to the same number. Their tolerances
/// allow for a mean held in one f32, as those of y do, so that without this bound a lost remainder of the mean goes unseen.
pub const BOUND: f64 = 8.0;

/// Has y and the gradients of every step that normalizes with the group's batch measured, beside their tolerances.
pub fn measure(scenario: &mut Scenario) {
    for i in 0..scenario.steps.len() {
        let step = &scenario.steps[i];
        let expected = |quantity: Quantity| {
            step.checks.iter().find(|check| check.quantity == quantity).map(|check| check.expected.as_slice())
        };
        let statistics = expected(Quantity::Mean).zip(expected(Quantity::VarBiased));
        let (Source::Group, Some(statistics)) = (scenario.source(step), statistics) else { continue };
        let affine = (scenario.weight.as_deref(), scenario.bias.as_deref());
        let (inputs, grad_outputs) = (&step.inputs, step.grad_outputs.as_deref());
        let facts = conditioning::channels(inputs, grad_outputs, statistics, affine, scenario.config.eps);
        let outputs = largest(&step.checks, facts.len()).into_iter().map(ulp_f32).collect::<Vec<f64>>();
        let each = |size: fn(&conditioning::Channel) -> f64| facts.iter().map(size).map(ulp_f32).collect::<Vec<f64>>();
        let grad_inputs = each(conditioning::Channel::largest_gradient);
        let grad_weights = each(conditioning::Channel::sum_abs_g_xhat);
        let grad_biases = each(conditioning::Channel::sum_abs_g);
        for check in &mut scenario.steps[i].checks {
            check.ulp = match check.quantity {
                Quantity::Output(_) => Some(outputs.clone()),
                Quantity::GradInput(_) => Some(grad_inputs.clone()),
                Quantity::GradWeight(_) | Quantity::GradWeightSum => Some(grad_weights.clone()),
                Quantity::GradBias(_) | Quantity::GradBiasSum => Some(grad_biases.clone()),
                _ => None,
            };
        }
    }
}

/// Per channel the largest finite |y| that is expected.
fn largest(checks: &[Check], channels: usize) -> Vec<f64> {
    let mut largest = vec![0.0f64; channels];
    for check in checks.iter().filter(|check| matches!(check.quantity, Quantity::Output(_))) {
        for (i, y) in check.expected.iter().enumerate().filter(|(_, y)| y.is_finite()) {
            let largest = &mut largest[check.channel(i)];
            *largest = largest.max(y.abs());
        }
    }
    largest
}
