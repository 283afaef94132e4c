//! Owns what must agree to the bit: the ranks of a group on what they share, and the two drivers on
//! everything.
//!
//! Values come from f32 or are f64 to begin with, so that equal bits here are equal bits there. NaN
//! has bits, too.

use std::hash::{DefaultHasher, Hasher};

use crate::compare::Part;
use crate::scenario::{Group, Observed};

/// Puts together what the callers of a group observed, one list of steps each, in the order of
/// their ranks.
///
/// The statistics of the group's batch and the running statistics must be the same bits for every
/// caller after every step; where they are not, the step is broken.
pub fn join(group: &Group, callers: Vec<Vec<Observed>>) -> Vec<Observed> {
    let mut callers = callers.into_iter();
    let Some(mut joined) = callers.next() else { return Vec::new() };
    for (caller, steps) in callers.enumerate() {
        for (i, (joined, other)) in joined.iter_mut().zip(steps).enumerate() {
            let at = format!("{}, rank {}", group.scenario.steps[i].name, group.ranks[caller + 1]);
            add(joined, other, &at);
        }
    }
    joined
}

fn add(joined: &mut Observed, other: Observed, at: &str) {
    for (field, here, there) in [
        ("the statistics of the group's batch", statistics(joined), statistics(&other)),
        ("the running statistics", running(joined), running(&other)),
    ] {
        if let Some(what) = difference(field, &there, &here) {
            joined
                .broken
                .push((Part::Forward, format!("{at}: {what} on the first rank of the group")));
        }
    }
    joined.outputs.extend(other.outputs);
    joined.local.extend(other.local);
    joined.broken.extend(other.broken);
    joined.double = match (joined.double.take(), other.double) {
        (Some(mut double), Some(other)) => {
            double.extend(other);
            Some(double)
        }
        _ => None,
    };
    joined.gradients = match (joined.gradients.take(), other.gradients) {
        (Some(mut gradients), Some(other)) => {
            gradients.grad_inputs.extend(other.grad_inputs);
            gradients.grad_weights = concatenated(gradients.grad_weights, other.grad_weights);
            gradients.grad_biases = concatenated(gradients.grad_biases, other.grad_biases);
            gradients.grad_residuals = concatenated(gradients.grad_residuals, other.grad_residuals);
            Some(gradients)
        }
        // Nothing is observed of the group then, which the checks of gradients notice.
        _ => None,
    };
}

fn concatenated(
    ranks: Option<Vec<Vec<f64>>>,
    other: Option<Vec<Vec<f64>>>,
) -> Option<Vec<Vec<f64>>> {
    ranks.zip(other).map(|(mut ranks, other)| {
        ranks.extend(other);
        ranks
    })
}

/// Adds to what is broken where a group's steps are not the same bits as through another driver,
/// which is named.
pub fn compare_drivers(
    group: &Group,
    observed: &mut [Observed],
    other: &[Observed],
    through: &str,
) {
    for (step, (observed, other)) in group.scenario.steps.iter().zip(observed.iter_mut().zip(other))
    {
        let pairs = fields(observed).into_iter().zip(fields(other));
        let differing = pairs.filter_map(|((part, field, here), (_, _, there))| {
            Some((
                part,
                format!("{}: {} through {through}", step.name, difference(field, &here, &there)?),
            ))
        });
        let differing: Vec<(Part, String)> = differing.collect();
        observed.broken.extend(differing);
    }
}

/// Everything numeric of a step, with the half that it belongs to and its name.
fn fields(observed: &Observed) -> [(Part, &'static str, Vec<f64>); 8] {
    let flat = |ranks: &[Vec<f64>]| ranks.concat();
    let gradients = observed.gradients.as_ref();
    let optional = |ranks: Option<&Vec<Vec<f64>>>| ranks.map_or(Vec::new(), |ranks| ranks.concat());
    [
        (Part::Forward, "y", flat(&observed.outputs)),
        (Part::Forward, "the statistics of the group's batch", statistics(observed)),
        (
            Part::Forward,
            "the local statistics",
            observed.local.iter().flat_map(|(a, b)| [&a[..], b].concat()).collect(),
        ),
        (Part::Forward, "the running statistics", running(observed)),
        (
            Part::Backward,
            "dx",
            gradients.map_or(Vec::new(), |gradients| flat(&gradients.grad_inputs)),
        ),
        (
            Part::Backward,
            "dweight",
            optional(gradients.and_then(|gradients| gradients.grad_weights.as_ref())),
        ),
        (
            Part::Backward,
            "dbias",
            optional(gradients.and_then(|gradients| gradients.grad_biases.as_ref())),
        ),
        (
            Part::Backward,
            "dz",
            optional(gradients.and_then(|gradients| gradients.grad_residuals.as_ref())),
        ),
    ]
}

/// Enters every bit of a step into a hash. Which NaN an operation makes is the processor's choice,
/// so that all are one here.
pub fn hash(observed: &Observed, hasher: &mut DefaultHasher) {
    for (_, _, values) in fields(observed) {
        for value in values {
            hasher.write_u64(if value.is_nan() { f64::NAN } else { value }.to_bits());
        }
    }
}

fn statistics(observed: &Observed) -> Vec<f64> {
    let Some(statistics) = &observed.statistics else { return Vec::new() };
    [&[statistics.count as f64], &statistics.mean[..], &statistics.var_biased, &statistics.inv_std]
        .concat()
}

fn running(observed: &Observed) -> Vec<f64> {
    let Some((mean, var, tracked)) = &observed.running else { return Vec::new() };
    [&mean[..], var, &[*tracked as f64]].concat()
}

/// The first place at which the bits differ.
fn difference(field: &str, here: &[f64], there: &[f64]) -> Option<String> {
    if here.len() != there.len() {
        return Some(format!("{field}: {} values, {}", here.len(), there.len()));
    }
    let differs = |(_, (here, there)): &(usize, (&f64, &f64))| here.to_bits() != there.to_bits();
    let (i, (here, there)) = here.iter().zip(there).enumerate().find(differs)?;
    Some(format!("{field}: value {i} is {here:e}, {there:e}"))
}
