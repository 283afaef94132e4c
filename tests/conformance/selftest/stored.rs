//! The part of the self-test that is about what folders store: the definition gives it, and
//! tolerances that are derived are not wider than those that are stored.

use syncbn::DType;
use syncbn::config::Activation;

use super::Summary;
use crate::compare::{Part, Quantity, Tolerance};
use crate::conditioning;
use crate::formula::Formula;
use crate::oracle;
use crate::scenario::{Observed, Scenario, Source, Step, judge};

/// How near the definition must come to stored f64 values, as a share of their tolerances (1e-5
/// relative and wider): about 1e-11 relative, far below what f32 can show and far above the
/// rounding of f64.
const ORACLE_SHARE: f64 = 1e-6;

/// The same where a stored case has a slope that f32 rounds, by at most 2⁻²⁴ of it: tolerances are
/// 1e-5 relative and wider.
const ROUNDED_SLOPE_SHARE: f64 = ORACLE_SHARE + 1.0 / (1 << 24) as f64 / 1e-5;

/// How near the definition must come to what is stored.
fn oracle_share(scenario: &Scenario) -> f64 {
    match scenario.config.activation {
        // Three decimals at most: what a file's author wrote, and what f32 makes of it.
        Activation::LeakyRelu(slope)
            if f64::from(slope) != (f64::from(slope) * 1e3).round() / 1e3 =>
        {
            ROUNDED_SLOPE_SHARE
        }
        _ => ORACLE_SHARE,
    }
}

/// The definition against numbers that another program computed.
pub(super) fn oracle_agrees(scenario: &Scenario, summary: &mut Summary) -> Result<(), String> {
    // What a framework returned in f32 is no oracle for f64; the same quantities are stored in f64
    // beside it.
    let mut scenario = scenario.clone();
    for step in &mut scenario.steps {
        step.checks.retain(|check| {
            !check.name.ends_with("_ms") && !matches!(check.tolerance, Tolerance::Value(_))
        });
    }
    let observed = oracle::observe(&scenario, Formula::Definition)?;
    // Stored running statistics were rounded to f32 between steps, and ONNX multiplies by a
    // momentum in f32: within their tolerance, but no closer than that.
    let mut exact = scenario.clone();
    for step in &mut exact.steps {
        step.checks.retain(|check| {
            !matches!(check.quantity, Quantity::RunningMean | Quantity::RunningVar)
        });
    }
    for part in [Part::Forward, Part::Backward].into_iter().filter(|&part| has(&exact, part)) {
        if let Some(failure) = judge(&scenario, &observed, part).failures.first() {
            return Err(format!(
                "{}: the definition does not give what is stored: {failure}",
                scenario.name
            ));
        }
        let verdict = judge(&exact, &observed, part);
        let at = format!("{}, {}", scenario.name, verdict.share_at);
        if verdict.share > oracle_share(&scenario) {
            return Err(format!(
                "{at}: the definition is off by {:.1e} of the tolerance",
                verdict.share
            ));
        }
        if verdict.share > summary.oracle_share {
            (summary.oracle_share, summary.oracle_share_at) = (verdict.share, at);
        }
    }
    Ok(())
}

/// Where a case stores tolerances of channels, those of `conditioning` are at most as wide.
pub(super) fn not_wider(scenario: &Scenario) -> Result<(), String> {
    if !scenario.stores_tolerances {
        return Ok(());
    }
    let observed = oracle::observe(scenario, Formula::Definition)?;
    for (step, observed) in scenario.steps.iter().zip(&observed) {
        compare_tolerances(scenario, step, observed)?;
    }
    Ok(())
}

fn compare_tolerances(scenario: &Scenario, step: &Step, observed: &Observed) -> Result<(), String> {
    let (Source::Group, Some(statistics)) = (scenario.source(step), &observed.statistics) else {
        return Ok(());
    };
    let given = (&statistics.mean[..], &statistics.var_biased[..]);
    let facts = conditioning::of_step(scenario, step, given);
    for check in &step.checks {
        let dtype = match check.quantity {
            Quantity::Output(rank) | Quantity::GradInput(rank) => step.inputs[rank].dtype,
            _ => DType::F32,
        };
        let derive: fn(&conditioning::Channel) -> f64 = match check.quantity {
            Quantity::Output(_) => conditioning::Channel::tol_y,
            Quantity::Mean => conditioning::Channel::tol_mean,
            Quantity::VarBiased => conditioning::Channel::tol_var,
            Quantity::GradInput(_) => conditioning::Channel::tol_dx,
            Quantity::GradWeightSum => conditioning::Channel::tol_dweight,
            Quantity::GradBiasSum => conditioning::Channel::tol_dbias,
            _ => continue,
        };
        // A stored tolerance of 0 is a statement about constants.
        let Tolerance::Channel(stored) = &check.tolerance else { continue };
        let roundings = conditioning::roundings(check, dtype, facts.len());
        for (c, ((stored, facts), rounding)) in stored.iter().zip(&facts).zip(roundings).enumerate()
        {
            let derived = derive(facts) + rounding;
            if *stored > 0.0 && derived.is_finite() && derived > stored * (1.0 + 1e-6) {
                let name = &check.name;
                return Err(format!(
                    "{}: {name}, channel {c}: derived {derived:e}, stored {stored:e}",
                    scenario.name
                ));
            }
        }
    }
    Ok(())
}

fn has(scenario: &Scenario, part: Part) -> bool {
    scenario.steps.iter().flat_map(|step| &step.checks).any(|check| check.quantity.part() == part)
}
