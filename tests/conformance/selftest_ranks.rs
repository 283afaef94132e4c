//! Owns the part of the self-test that is about ranks: what they must agree on, what happens when
//! one of them fails, and whether process groups can be told from the group of all ranks.

use std::panic::resume_unwind;
use std::time::Instant;

use syncbn::{Device, SyncBatchNorm};

use crate::agreement;
use crate::compare::Part;
use crate::formula::Formula;
use crate::library::{self, Driver};
use crate::message::chain;
use crate::oracle;
use crate::place::{self, Form};
use crate::scenario::{Group, Observed, ObservedGradients, RankTensor, Scenario, Source, judge};
use crate::threads;

/// A value of an observation.
type Value = fn(&mut Observed) -> Option<&mut f64>;

/// One bit in one rank's running statistics, or in anything between two drivers, is found.
pub fn agreement(ordinary: &Scenario) -> Result<(), String> {
    let group = Group::of_all(ordinary.clone());
    let observed = oracle::observe(ordinary, Formula::Definition)?;
    let rank = |rank: usize| -> Vec<Observed> {
        observed.iter().map(|step| of_rank(step, rank)).collect()
    };
    let ranks = || -> Vec<Vec<Observed>> { (0..ordinary.world()).map(rank).collect() };
    let broken =
        |steps: &[Observed]| steps.iter().flat_map(|step| step.broken.clone()).collect::<Vec<_>>();

    let joined = agreement::join(&group, ranks());
    if let Some((_, what)) = broken(&joined).first() {
        return Err(format!("ranks that agree are said not to: {what}"));
    }
    let mut alike = joined.clone();
    agreement::compare_drivers(&group, &mut alike, &observed, "another");
    if let Some((_, what)) = broken(&alike).first() {
        return Err(format!("what the ranks observed was not put together: {what}"));
    }
    let flips: [(Part, Value); 5] = [
        (Part::Forward, |step| step.running.as_mut()?.0.first_mut()),
        (Part::Forward, |step| step.running.as_mut()?.1.first_mut()),
        (Part::Forward, |step| step.outputs.first_mut()?.first_mut()),
        (Part::Backward, |step| step.gradients.as_mut()?.grad_inputs.first_mut()?.first_mut()),
        (Part::Backward, |step| {
            step.gradients.as_mut()?.grad_weights.as_mut()?.first_mut()?.first_mut()
        }),
    ];
    for (i, (part, value)) in flips.into_iter().enumerate() {
        let mut other = joined.clone();
        flip(value(&mut other[1]))?;
        agreement::compare_drivers(&group, &mut other, &joined, "another");
        if !matches!(broken(&other)[..], [(found, _)] if found == part) {
            return Err(format!("one bit between two drivers, value {i}: {:?}", broken(&other)));
        }
        // The first two are the running statistics.
        if i < 2 {
            let mut ranks = ranks();
            flip(value(&mut ranks[2][1]))?;
            let broken = broken(&agreement::join(&group, ranks));
            if !matches!(&broken[..], [(Part::Forward, what)] if what.contains("rank 2")) {
                return Err(format!(
                    "one bit in the running statistics of rank 2, value {i}: {broken:?}"
                ));
            }
        }
    }
    Ok(())
}

fn flip(value: Option<&mut f64>) -> Result<(), String> {
    let value = value.ok_or("there is no value to change a bit of")?;
    *value = f64::from_bits(value.to_bits() ^ 1);
    Ok(())
}

/// What a caller for one rank would have observed.
fn of_rank(step: &Observed, rank: usize) -> Observed {
    let one = |ranks: &Vec<Vec<f64>>| vec![ranks[rank].clone()];
    Observed {
        outputs: one(&step.outputs),
        local: step.local.get(rank).cloned().into_iter().collect(),
        gradients: step.gradients.as_ref().map(|gradients| ObservedGradients {
            grad_inputs: one(&gradients.grad_inputs),
            grad_weights: gradients.grad_weights.as_ref().map(one),
            grad_biases: gradients.grad_biases.as_ref().map(one),
            grad_residuals: gradients.grad_residuals.as_ref().map(one),
        }),
        ..step.clone()
    }
}

/// A rank that gives the library something wrong, and one that panics, end the case with an error
/// that names them, long before anyone's deadline.
pub fn failures(ordinary: &Scenario) -> Result<(), String> {
    let started = Instant::now();
    let mut wrong = ordinary.clone();
    let rank = wrong.world() - 1;
    let channels = wrong.config.num_features + 1;
    wrong.steps[1].inputs[rank] = RankTensor::new(vec![1, channels], vec![0.5; channels]);
    let host = place::host(ordinary.world(), Form::Partition);
    let error = library::observe(&[Group::of_all(wrong)], &host, Driver::EachRank);
    let named = |message: &str| message.contains(&format!("rank {rank}: s2"));
    if !error.as_ref().is_err_and(|message| named(message)) {
        return Err(format!("an input of {channels} channels on rank {rank}: {:?}", error.err()));
    }

    let panics = threads::run(ordinary.world(), |own, group| {
        let layer = SyncBatchNorm::new(ordinary.config.clone(), [Device::host()]);
        let layer =
            layer.and_then(|layer| layer.in_group(&group)).map_err(|error| chain(&error))?;
        for step in &ordinary.steps[..2] {
            if own == rank && step.name == "s2" {
                // Without the message that a panic prints.
                resume_unwind(Box::new("planted"));
            }
            let input = &step.inputs[own];
            let x = layer.devices()[0]
                .upload(&input.dims, &input.values)
                .map_err(|error| chain(&error))?;
            pollster::block_on(layer.forward_train(&x)).map_err(|error| chain(&error))?;
        }
        Ok(())
    });
    let named = |message: &str| {
        message.contains(&format!("rank {rank}: panicked: planted")) && message.contains("rank 0")
    };
    if !panics.as_ref().is_err_and(|message| named(message)) {
        return Err(format!("a panic of rank {rank}: {panics:?}"));
    }
    let took = started.elapsed();
    if took < threads::DEADLINE / 2 {
        Ok(())
    } else {
        Err(format!("ranks learned of the failure of a peer after {took:?}"))
    }
}

/// Every group of the case refuses the statistics of all of its ranks; how many did.
pub fn groups_told_apart(case: &[Group]) -> Result<usize, String> {
    let synchronizes = |group: &Group| {
        group.scenario.steps.iter().any(|step| group.scenario.source(step) == Source::Group)
    };
    if case.len() < 2 || !case.iter().all(synchronizes) {
        return Ok(0);
    }
    let mut all = case[0].scenario.clone();
    for group in &case[1..] {
        for (step, other) in all.steps.iter_mut().zip(&group.scenario.steps) {
            step.inputs.extend(other.inputs.iter().cloned());
            let lists = [
                (&mut step.grad_outputs, &other.grad_outputs),
                (&mut step.residuals, &other.residuals),
            ];
            for (list, other) in lists {
                list.iter_mut().for_each(|list| list.extend(other.iter().flatten().cloned()));
            }
            if let (Some(cotangents), Some(other)) = (&mut step.cotangents, &other.cotangents) {
                cotangents.extend(other);
            }
        }
    }
    let observed = oracle::observe(&all, Formula::Definition)?;
    let mut first = 0;
    for group in case {
        let members = first..first + group.ranks.len();
        first = members.end;
        let of_group = |step: &Observed| {
            agreement::join(group, members.clone().map(|rank| vec![of_rank(step, rank)]).collect())
        };
        let steps: Vec<Observed> = observed.iter().flat_map(of_group).collect();
        for part in [Part::Forward, Part::Backward] {
            if judge(&group.scenario, &steps, part).failures.is_empty() {
                return Err(format!(
                    "{}: {part:?} with the statistics of all ranks passes",
                    group.scenario.name
                ));
            }
        }
    }
    Ok(case.len())
}
